"""Embedded clusters for these tests, and plain HTTP to talk to them."""

import http.client
import io
import tarfile
from urllib.parse import urlsplit

import pytest

from aisdatapipes.devserver import DevCluster

TIMEOUT = 20  # seconds; a reply that takes longer is a hang


def tar_of(members):
    """A tar with these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Http:
    """One connection, kept alive, to one node."""

    def __init__(self, endpoint):
        parts = urlsplit(endpoint)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)

    def __call__(self, method, target, body=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, target, body, named)
        response = self.connection.getresponse()
        response.content = response.read()
        return response

    def local_port(self):
        return self.connection.sock.getsockname()[1]

    def close(self):
        self.connection.close()


@pytest.fixture
def cluster():
    with DevCluster() as cluster:
        yield cluster


@pytest.fixture
def http_to():
    made = []

    def connect(endpoint):
        made.append(Http(endpoint))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def followed(connect, endpoint, method, target, body=None, **headers):
    """The reply after one redirect."""
    first = connect(endpoint)(method, target, body, **headers)
    if first.status not in (301, 307):
        return first
    parts = urlsplit(first.headers["Location"])
    return connect(f"http://{parts.netloc}")(method, f"{parts.path}?{parts.query}", body, **headers)
