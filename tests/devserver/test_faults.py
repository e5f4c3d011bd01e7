"""Every fault does what its name says, to the requests it is meant for, as often as it should."""

import http.client
import io
import tarfile

import pytest

from aisdatapipes.devserver.faults import KINDS
from aisdatapipes.wire.batch import BatchEntry, BatchRequest, encoded_request
from aisdatapipes.wire.clustermap import decoded_map
from aisdatapipes.wire.listing import ListOptions, decoded_page, encoded_list
from tests.devserver.conftest import followed

DATA = bytes(range(256)) * 40
DIRECT = "/v1/objects/bk/a?provider=ais"


@pytest.fixture
def filled(cluster):
    cluster.create_bucket("bk")
    for name in "abc":
        cluster.put("bk", name, DATA)
    return cluster


@pytest.fixture
def get(filled, http_to):
    """One GET, straight from the owner, on a new connection each time."""
    return lambda **headers: http_to(filled.owner("bk", "a").url)("GET", DIRECT, **headers)


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_described(cluster, kind):
    """Every fault can be added by its name alone, strikes requests that there are, and says what it does."""
    fault = cluster.faults.add(kind)
    assert fault.operation in ("get", "map", "list", "batch", "redirect", "redirect-batch")
    assert KINDS[kind].says


def test_wrong_names(cluster):
    """Unknown names and options are errors that say what there is."""
    with pytest.raises(ValueError, match="known are"):
        cluster.faults.add("nonsense")
    with pytest.raises(ValueError, match="has no option"):
        cluster.faults.add("cut", before=1)


def test_status(filled, get):
    """A status, with the time to wait, as often as asked and no more."""
    fault = filled.faults.add("status", times=2, status=429, retry_after=3)
    first, second, third = get(), get(), get()
    assert [429, 429, 200] == [response.status for response in (first, second, third)]
    assert ("3", 2) == (first.headers["Retry-After"], fault.struck)
    assert DATA == third.content


def test_status_of_one_object(filled, http_to):
    """Only the object that matches, and only after those that are skipped."""
    filled.faults.add("status", "get", match="^bk/b$", skip=1)
    statuses = [
        followed(http_to, filled.endpoint, "GET", f"/v1/objects/bk/{name}").status for name in ("a", "b", "b", "c")
    ]
    assert [200, 200, 503, 200] == statuses


def test_put_that_fails_stores_nothing(filled, http_to):
    """What answers an error instead has done nothing."""
    filled.faults.add("status", "put")
    assert 503 == followed(http_to, filled.endpoint, "PUT", "/v1/objects/bk/new", b"x").status
    assert ["a", "b", "c"] == filled.names("bk")


def test_share(filled, get):
    """A share of the requests, by chance, but the same in every run."""
    filled.faults.add("status", share=0.5)
    statuses = [get().status for _ in range(40)]
    assert {200, 503} == set(statuses)


@pytest.mark.parametrize("kind", ["delay", "drip"])
def test_slow(filled, get, kind):
    """Slow replies are right."""
    filled.faults.add(kind)
    assert DATA == get().content


@pytest.mark.parametrize("after", [0, 1, 5000])
def test_cut(filled, get, after):
    """The connection ends after so many bytes, though more were promised."""
    filled.faults.add("cut", after=after)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get()
    assert (after, len(DATA) - after) == (len(caught.value.partial), caught.value.expected)


def test_promise_of_more(filled, get):
    """More is promised than comes."""
    filled.faults.add("wrong_length", by=7)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get()
    assert (len(DATA), 7) == (len(caught.value.partial), caught.value.expected)


def test_promise_of_less(filled, get):
    """Less is promised than comes: a client that believes it has too few bytes."""
    filled.faults.add("wrong_length", by=-7)
    assert DATA[:-7] == get().content


def test_corrupt(filled, get):
    """One bit is another, and the checksum is that of the right content."""
    filled.faults.add("corrupt", at=3)
    response = get()
    assert DATA[:3] + bytes([DATA[3] ^ 1]) + DATA[4:] == response.content
    filled.faults.clear()
    assert response.headers["Ais-Checksum-Value"] == get().headers["Ais-Checksum-Value"]


@pytest.mark.parametrize("after", [None, 100])
def test_reset(filled, get, after):
    """The connection is reset, before or within a reply."""
    filled.faults.add("reset", after=after)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        get()


def test_idle_close(filled, http_to):
    """The reply is right, and the connection it came on is gone for the next request."""
    filled.faults.add("idle_close", times=1)
    connection = http_to(filled.owner("bk", "a").url)
    assert DATA == connection("GET", DIRECT).content
    # Wait for the end of the connection itself rather than for a time.
    assert b"" == connection.connection.sock.recv(1)


def test_redirect_loop(filled, http_to):
    """The proxy sends to itself."""
    filled.faults.add("redirect_loop")
    response = http_to(filled.endpoint)("GET", "/v1/objects/bk/a")
    assert 301 == response.status
    assert response.headers["Location"].startswith(f"{filled.endpoint}/v1/objects/bk/a?")


def test_redirect_elsewhere(filled, http_to):
    """The proxy sends out of the cluster."""
    filled.faults.add("redirect_elsewhere", url="http://127.0.0.1:9")
    response = http_to(filled.endpoint)("GET", "/v1/objects/bk/a?provider=ais")
    assert response.headers["Location"].startswith("http://127.0.0.1:9/v1/objects/bk/a?provider=ais&pid=")


def test_stale_map(filled, http_to):
    """The map is older and lacks a target; the next one is right again."""
    filled.faults.add("stale_map", times=1, without=1)
    old, new = (decoded_map(http_to(filled.endpoint)("GET", "/v1/daemon?what=smap").content) for _ in range(2))
    assert (["t1", "t3"], filled.map.version - 1) == ([target.id for target in old.targets], old.version)
    assert filled.map == new


def batch(filled, http_to, names="abc"):
    body = encoded_request(BatchRequest(tuple(BatchEntry("bk", "ais", name) for name in names)))
    return followed(http_to, filled.endpoint, "GET", "/v1/ml/moss/bk?provider=ais", body)


def member_names(response):
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        return archive.getnames()


def test_batch_short(filled, http_to):
    """The last members are missing from a tar that is whole."""
    filled.faults.add("batch_short", count=2)
    response = batch(filled, http_to)
    assert (200, ["bk/a"]) == (response.status, member_names(response))


def test_batch_misordered(filled, http_to):
    """The members come in another order."""
    filled.faults.add("batch_misordered")
    assert ["bk/c", "bk/b", "bk/a"] == member_names(batch(filled, http_to))


def test_batch_cut(filled, http_to):
    """A streamed batch can break off, too."""
    filled.faults.add("cut", "batch", after=600)
    with pytest.raises(http.client.IncompleteRead):
        batch(filled, http_to)


def test_refuse_batch(filled, http_to):
    """The cluster knows no get-batch."""
    filled.faults.add("refuse_batch", status=404)
    assert 404 == batch(filled, http_to).status


def test_refuse_direct(filled, get, http_to):
    """Whom no proxy sent is turned away; whom it sent is served."""
    filled.faults.add("refuse_direct")
    assert 403 == get().status
    assert DATA == followed(http_to, filled.endpoint, "GET", "/v1/objects/bk/a").content


def test_empty_page(filled, http_to):
    """A page is empty and yet has a token, which leads to what was held back."""
    filled.faults.add("empty_page", times=1)
    ask = http_to(filled.endpoint)
    pages, token = [], ""
    for _ in range(2):
        body = encoded_list(ListOptions(token=token))
        pages.append(decoded_page(ask("GET", "/v1/buckets/bk", body, Accept="application/msgpack").content))
        token = pages[-1].token
    assert ([], ["a", "b", "c"]) == tuple([entry.name for entry in page.entries] for page in pages)
