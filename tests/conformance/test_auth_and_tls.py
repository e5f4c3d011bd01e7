"""A cluster that wants tokens, and one that speaks HTTPS: who is let in, and what becomes of the others."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import urllib3
from aistore.sdk import Client
from aistore.sdk.errors import AISError

from aisdatapipes.devserver import DevCluster
from tests.cluster import LocalCluster, aisnode
from tests.conformance.conftest import SECONDS, Http, error_of, object_path, split_location

LEGS = [pytest.param("embedded", marks=pytest.mark.embedded), pytest.param("real", marks=pytest.mark.real)]
NO_PROGRAM = "no aisnode on PATH to start a cluster of this kind with"
CREATE = {"action": "create-bck", "name": "", "value": None}


@dataclass
class Guarded:
    """A cluster with a bucket of one object, and what its clients need."""

    endpoint: str
    token: str | None = None
    ca_file: str | None = None

    def http(self, **other: str | None) -> Http:
        return Http(**({"endpoint": self.endpoint, "token": self.token, "ca_file": self.ca_file} | other))

    def filled(self) -> Guarded:
        http = self.http()
        assert http.once("POST", "/v1/buckets/guarded?provider=ais", CREATE).status == 200
        assert http("PUT", PATH, b"content").status == 200
        http.close()
        return self


PATH = object_path("guarded", "x y.jpg") + "?provider=ais"


@pytest.fixture(scope="module", params=LEGS)
def with_tokens(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    if request.param == "embedded":
        with DevCluster(targets=2, token="letmein") as cluster:
            yield Guarded(cluster.endpoint, "letmein").filled()
    elif aisnode() is None:
        pytest.skip(NO_PROGRAM)
    else:
        with LocalCluster(targets=2, authn_secret="secret") as real:
            yield Guarded(real.endpoint, real.token).filled()


@pytest.fixture(scope="module", params=LEGS)
def with_tls(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    if request.param == "embedded":
        with DevCluster(targets=2, tls=True) as cluster:
            yield Guarded(cluster.endpoint, ca_file=cluster.ca_file).filled()
    elif aisnode() is None:
        pytest.skip(NO_PROGRAM)
    else:
        with LocalCluster(targets=2, tls=True) as real:
            yield Guarded(real.endpoint, ca_file=real.ca_file).filled()


@pytest.fixture
def let_in(with_tokens: Guarded) -> Iterator[Http]:
    http = with_tokens.http()
    yield http
    http.close()


@pytest.fixture
def stranger(with_tokens: Guarded) -> Iterator[Http]:
    http = with_tokens.http(token=None)
    yield http
    http.close()


@pytest.fixture
def https(with_tls: Guarded) -> Iterator[Http]:
    http = with_tls.http()
    yield http
    http.close()


# ---- tokens


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_without_a_token_nothing_is_told(stranger: Http, method: str) -> None:
    """401 at the proxy, in the words that clients know."""
    reply = stranger.once(method, PATH, b"x" if method == "PUT" else None)
    assert (reply.status, error_of(reply)["message"]) == (401, "token required")


def test_without_a_token_nothing_is_listed(stranger: Http) -> None:
    """Neither buckets nor objects nor batches."""
    listing = stranger.list_reply("guarded", "application/msgpack")
    buckets = stranger.once("GET", "/v1/buckets?provider=ais", {"action": "list", "name": "", "value": None})
    batch = {"in": [{"objname": "x y.jpg"}], "mime": ".tar", "coer": True, "strm": True}
    moss = stranger.once("GET", "/v1/ml/moss/guarded?provider=ais", batch)
    assert [listing.status, buckets.status, moss.status] == [401, 401, 401]


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", ""])
def test_a_wrong_token_is_none(stranger: Http, token: str) -> None:
    """401 as well."""
    assert stranger.once("GET", PATH, Authorization=f"Bearer {token}").status == 401


def test_with_a_token_everything_is_read(let_in: Http) -> None:
    """By way of the proxy; the redirect itself is trusted, and may be followed without the token."""
    assert let_in("GET", PATH).data == b"content"
    assert [entry["n"] for entry in let_in.listed("guarded")["Entries"]] == ["x y.jpg"]
    node, rest = split_location(let_in.once("GET", PATH))
    plain = Http(let_in.endpoint)
    assert plain.once("GET", rest, at=node).data == b"content"
    plain.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_no_target_is_reached_directly(let_in: Http, method: str) -> None:
    """403 at every target, whether or not a token comes with the request."""
    for target in let_in.targets().values():
        reply = let_in.once(method, PATH, b"x" if method == "PUT" else None, at=target["public_net"]["direct_url"])
        assert (reply.status, error_of(reply)["message"].rpartition(": ")[2]) == (403, "direct target access denied")


def test_sdk_is_let_in_by_its_token(with_tokens: Guarded) -> None:
    """The SDK reads with a token and has a plain error without."""
    reader = Client(with_tokens.endpoint, token=with_tokens.token).bucket("guarded").object("x y.jpg").get_reader()
    assert reader.read_all() == b"content"
    with pytest.raises(AISError) as caught:
        Client(with_tokens.endpoint).bucket("guarded").object("x y.jpg").get_reader().read_all()
    assert caught.value.status_code == 401


# ---- HTTPS


def test_everything_is_read_over_https(https: Http) -> None:
    """The map and every redirect say https; proxy, targets and direct reads are covered by one certificate."""
    assert https("GET", PATH).data == b"content"
    assert https.once("GET", PATH).headers["Location"].startswith("https://")
    for target in https.targets().values():
        url = target["public_net"]["direct_url"]
        assert url.startswith("https://")
        assert https.once("GET", "/v1/health", at=url).status == 200


def test_an_upload_over_https(https: Http) -> None:
    """A PUT is redirected as well; the target takes the body."""
    assert https("PUT", object_path("guarded", "new") + "?provider=ais", b"n" * 100_000).status == 200
    assert https("GET", object_path("guarded", "new") + "?provider=ais").data == b"n" * 100_000


def test_an_unknown_certificate_is_not_trusted(with_tls: Guarded) -> None:
    """Who does not know the certificate gets no answer."""
    http = with_tls.http(ca_file=None)
    with pytest.raises(urllib3.exceptions.SSLError):
        http.once("GET", PATH)
    http.close()


def test_plain_http_to_the_https_port_is_no_answer(with_tls: Guarded) -> None:
    """Whoever forgets the ``s`` gets an error, 400 or a closed connection, and no content."""
    http = with_tls.http(endpoint=with_tls.endpoint.replace("https://", "http://"))
    try:
        status = http.once("GET", PATH).status
    except urllib3.exceptions.HTTPError:
        status = 400
    assert status == 400
    http.close()


def test_https_to_a_plain_port_is_an_error_of_tls(with_tokens: Guarded) -> None:
    """The handshake fails at once; nothing hangs."""
    context = ssl.create_default_context()
    pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=SECONDS)
    with pytest.raises(urllib3.exceptions.SSLError):
        pool.request("GET", with_tokens.endpoint.replace("http://", "https://") + PATH)
    pool.clear()
