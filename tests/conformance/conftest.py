"""Plain HTTP for the conformance tests: no client of this project and none of the SDK is between test and server."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
import urllib3
import xxhash

from tests.conftest import Server, TestBucket

SECONDS = 20.0  # for one request; the slowest, a get-batch that waits for a peer, takes ten
HEX64 = re.compile(r"[0-9a-f]{1,16}")
SEED = 1103515245
MASK = (1 << 64) - 1


class Http:
    """Requests to a cluster, one at a time, without retries.

    Args:
        endpoint: The proxy's address.
        token: Sent with every request.
        ca_file: Certificate to trust.
    """

    def __init__(self, endpoint: str, token: str | None = None, ca_file: str | None = None) -> None:
        self.endpoint, self.token = endpoint, token
        self._pools = urllib3.PoolManager(num_pools=16, maxsize=1, timeout=SECONDS, retries=False, ca_certs=ca_file)

    def close(self) -> None:
        self._pools.clear()

    def pool(self, url: str) -> urllib3.HTTPConnectionPool:
        return self._pools.connection_from_url(url)

    def once(
        self, method: str, target: str, body: Any = None, at: str | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """The reply to one request; a redirect is not followed. Header names have ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.pool(at or self.endpoint).urlopen(
            method, target, body, sent, retries=False, redirect=False, assert_same_host=False
        )

    def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """The reply after the redirect, if there is one."""
        reply = self.once(method, target, body, **headers)
        if reply.status not in (301, 307):
            return reply
        node, rest = split_location(reply)
        return self.once(method, rest, body, at=node, **headers)

    def targets(self) -> dict[str, dict[str, Any]]:
        """The targets by their ids, as the map describes them."""
        found: dict[str, dict[str, Any]] = self.once("GET", "/v1/daemon?what=smap").json()["tmap"]
        return found

    def listed(self, bucket: str, **value: Any) -> dict[str, Any]:
        """One page of a listing, asked for as the SDK does; keys as they are on the wire."""
        reply = self.list_reply(bucket, "application/msgpack", **value)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/msgpack"), reply.data
        page: dict[str, Any] = msgspec.msgpack.decode(reply.data)
        return page

    def list_reply(self, bucket: str, accept: str, **value: Any) -> urllib3.BaseHTTPResponse:
        default = {"prefix": "", "pagesize": 0, "uuid": "", "props": "", "continuation_token": "", "flags": "0"}
        message = {"action": "list", "name": "", "value": {**default, **value}}
        return self.once("GET", f"/v1/buckets/{bucket}?provider=ais", message, Accept=accept)


def split_location(reply: urllib3.BaseHTTPResponse) -> tuple[str, str]:
    """Node and target of a redirect."""
    parts = urlsplit(reply.headers["Location"])
    return f"{parts.scheme}://{parts.netloc}", f"{parts.path}?{parts.query}"


def names_of(page: dict[str, Any]) -> list[str]:
    return [entry["n"] for entry in page["Entries"] or []]


def error_of(reply: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """What an error says, in its body or, of a HEAD, in its header."""
    text = reply.headers["Hdr-Error"] if "Hdr-Error" in reply.headers else reply.data.decode()
    found: dict[str, Any] = json.loads(text)
    return found


def said(reply: urllib3.BaseHTTPResponse) -> tuple[int, str]:
    """Status and message, with the ids of nodes blotted out."""
    return reply.status, re.sub(r"\b([pt])\[[^\]]+\]", r"\1[ID]", error_of(reply)["message"])


def object_path(bucket: str, name: str) -> str:
    """Every byte that could mean something is encoded."""
    return f"/v1/objects/{bucket}/{quote(name, safe='/')}"


def owner(targets: dict[str, dict[str, Any]], bucket: str, name: str) -> str:
    """The id of the target that owns an object: highest random weight, written out again from the description."""
    ours = xxhash.xxh64_intdigest(f"ais/@#/{bucket}/{name}".encode(), SEED)
    return max(targets, key=lambda target: weight(xxhash.xxh64_intdigest(target.encode(), SEED) ^ ours))


def weight(seed: int) -> int:
    """xoshiro256** whose state comes from SplitMix64: one step of it."""

    def mix(z: int) -> int:
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    five = 5 * mix((mix((seed + golden) & MASK) + golden) & MASK) & MASK
    return 9 * (five << 7 & MASK | five >> 57) & MASK


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def untarred(data: bytes, mode: str = "r:") -> list[tuple[str, bytes]]:
    """Name and content of every member, in order."""
    with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive if member.isreg()]


@dataclass
class Place:
    """A bucket, and plain HTTP to its cluster."""

    http: Http
    bucket: TestBucket

    @property
    def name(self) -> str:
        return self.bucket.name

    def path(self, name: str) -> str:
        return object_path(self.name, name)

    def ask(self, method: str, name: str, query: str = "", body: Any = None, **headers: str) -> Any:
        """The reply about an object, wherever it comes from."""
        return self.http(method, f"{self.path(name)}?provider=ais{query}", body, **headers)

    def owner(self, name: str) -> dict[str, Any]:
        targets = self.http.targets()
        return targets[owner(targets, self.name, name)]


@pytest.fixture
def http(server: Server) -> Iterator[Http]:
    made = Http(server.endpoint)
    yield made
    made.close()


@pytest.fixture
def place(http: Http, bucket: TestBucket) -> Place:
    return Place(http, bucket)
