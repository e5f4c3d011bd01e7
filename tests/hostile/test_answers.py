"""Answers that look right and are not, and some that look wrong and are right."""

from __future__ import annotations

import gzip

import pytest

from aisdatapipes import AISIterDataset, AISPipeError, CorruptBody, FetchPlan, InvalidURL, Truncated
from aisdatapipes.flow.indexjob import indexed_by_server
from aisdatapipes.model.url import AISURL
from aisdatapipes.store import pool
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import object_size
from aisdatapipes.wire.clustermap import decoded_map
from aisdatapipes.wire.listing import Entry, Page, decoded_brief_page, encoded_page
from aisdatapipes.wire.malformed import Malformed
from tests.hostile import honest
from tests.hostile.readers import config_of, read
from tests.hostile.server import HostileServer, closing, whole


def cluster(kinds, change):
    """An honest cluster, but for what ``change`` makes of status, headers and body of these kinds of answers."""

    def answer(asked):
        if asked.kind not in kinds:
            return honest.answer(asked, server.url)
        return change(*honest.content(asked, server.url))

    server = HostileServer(answer)
    return server


def listed_as(size):
    """A listing from when every object had this size."""
    entries = [Entry(name, size=size) for name in sorted(honest.OBJECTS)]
    return cluster(["list"], lambda *_: whole(encoded_page(Page(entries))))


@pytest.fixture(autouse=True)
def closed():
    yield
    pool.close_all()


@pytest.mark.parametrize("strategy", ["auto", "get", "batch"])
@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_objects_that_were_overwritten_are_read(strategy, size):
    """Whatever size the listing told: what counts is what is there."""
    with listed_as(size) as server:
        found = AISIterDataset("ais://b/", config=config_of(server.url), fetch=FetchPlan(strategy=strategy))
        assert dict(found) == honest.OBJECTS


@pytest.mark.parametrize("window", [1000, 64 << 20])
def test_objects_that_have_grown_are_read_alone(monkeypatch, window):
    """An object that is megabytes larger than it was is read, when it is its turn, with a window that is too small too."""
    grown = bytes(range(256)) * 20_000
    monkeypatch.setitem(honest.STORED, "objects/005", grown)
    with listed_as(10) as server:
        plan = FetchPlan(strategy="get", window_bytes=window)
        assert dict(AISIterDataset("ais://b/", config=config_of(server.url), fetch=plan)) == {
            **honest.OBJECTS,
            "objects/005": grown,
        }


def test_large_objects_of_unknown_size(monkeypatch):
    """They are read whole, however the window has to guess."""
    large = {f"objects/{i:03}": bytes([i]) * (3 << 20) for i in range(6)}
    for name, data in large.items():
        monkeypatch.setitem(honest.STORED, name, data)
    with HostileServer(lambda asked: honest.answer(asked, server.url)) as server:
        dataset = AISIterDataset(
            [f"ais://b/{name}" for name in large], config=config_of(server.url), fetch=FetchPlan(window_bytes=1 << 20)
        )
        assert dict(dataset) == large


def test_another_part_than_was_asked_for():
    """A range that begins elsewhere is not taken, though it is as long."""

    def shifted(status, headers, body):
        return whole(body, *(line.replace("bytes 0-", "bytes 1-") for line in headers), status=status)

    with cluster(["range"], shifted) as server, pytest.raises(Truncated, match="which part it is"):
        read("ranges", config_of(server.url))


@pytest.mark.parametrize("checked", [True, False])
def test_an_answer_whose_end_nobody_told(checked):
    """Without a length and without a checksum nobody knows whether it broke off; with a checksum everybody does."""

    def untold(status, headers, body):
        lines = [line for line in headers if checked or not line.startswith("Ais-")]
        return closing("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body)

    with cluster(["get"], untold) as server:
        if checked:
            assert len(read("named", config_of(server.url))) == 2
        else:
            with pytest.raises(Truncated, match="does not tell its length"):
                read("named", config_of(server.url))


def test_compressed_on_the_way():
    """Nobody asked for it: it is not unpacked, and is not the object."""

    def packed(status, headers, body):
        return whole(gzip.compress(body), *headers, "Content-Encoding: gzip", status=status)

    with cluster(["get"], packed) as server, pytest.raises(CorruptBody, match="xxh64"):
        read("get", config_of(server.url))


@pytest.mark.parametrize("length", ["", "-1", "1e3", "+5", "5, 6", "9" * 19, "9" * 30, "٣"])
def test_sizes_that_cannot_be(length):
    """A HEAD that tells none, or one that no object has, is an error of the object."""
    head = f"HTTP/1.1 200 OK\r\n{f'Content-Length: {length}' if length else 'X: y'}\r\n\r\n".encode()
    with cluster(["head"], lambda *_: closing(head)) as server:
        config = config_of(server.url)
        made = Cluster(config, pool.new_transport(config))
        with pytest.raises(AISPipeError) as caught:
            object_size(made, AISURL.parse("ais://b/objects/001"))
        made.transport.close()
    assert "defect" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", [{"n": ""}, {"n": "a", "s": -1}, {"n": "a", "s": 1 << 63}, {"n": "a", "s": 1.5}, {"s": 1}, {"n": 3}]
)
def test_entries_that_cannot_be(entry):
    """A page with a nameless object, or with a size that no array holds, is none."""
    import msgspec

    with pytest.raises(Malformed, match="not a page"):
        decoded_brief_page(msgspec.msgpack.encode({"UUID": "u", "ContinuationToken": "", "Entries": [entry]}))


@pytest.mark.parametrize("flags", ["8192", 0.5, [8192]])
def test_flags_that_cannot_be(flags):
    """Whoever lists names and sizes does not look at them; whoever does says that this is no page."""
    import msgspec

    page = {"UUID": "u", "ContinuationToken": "", "Entries": [{"n": "a.tar", "s": 1, "f": flags}]}
    with cluster(["list"], lambda *_: whole(msgspec.msgpack.encode(page))) as server:
        config = config_of(server.url)
        made = Cluster(config, pool.new_transport(config))
        with pytest.raises(CorruptBody, match="cannot list: not a page"):
            indexed_by_server(made, AISURL.parse("ais://b/a.tar"))
        made.transport.close()


@pytest.mark.parametrize("change", [
    (b'"id_digest":', b'"id_digest":-'), (b'"id_digest":', b'"id_digest":99999999999999999999'), (b'"version":"3"', b'"version":"' + b"9" * 5000 + b'"'),
])  # fmt: skip
def test_maps_that_cannot_be(change):
    """Numbers that placement could not be computed with."""
    good = honest.map_of("http://127.0.0.1:1")
    assert change[0] in good
    with pytest.raises(Malformed):
        decoded_map(good.replace(*change))


def test_maps_of_too_many_nodes():
    """A map that claims more nodes than any cluster has."""
    import json

    found = json.loads(honest.map_of("http://127.0.0.1:1"))
    found["tmap"] = {str(number): found["tmap"]["t1"] for number in range(5000)}
    with pytest.raises(Malformed, match="5000 nodes"):
        decoded_map(json.dumps(found).encode())


def test_a_token_that_cannot_be_sent_back():
    """A page whose token is no text is an error of the bucket; so is a prefix of the user's own."""
    body = encoded_page(Page([Entry("a")], "\udcff", "u"))
    with cluster(["list"], lambda *_: whole(body)) as server:
        with pytest.raises(CorruptBody, match="no text that could be sent back"):
            read("get", config_of(server.url))
        with pytest.raises(InvalidURL, match="UTF-8"):
            list(AISIterDataset("ais://b/", {"ais://b/": "\udcff"}, config=config_of(server.url)))


def test_the_map_is_never_waited_for_by_itself():
    """A cluster that sends even the question for its map elsewhere is an error, soon."""
    with (
        cluster(
            ["map", "get"], lambda *_: whole(b"", "Location: http://127.0.0.1:1/v1/x", status="301 Moved")
        ) as server,
        pytest.raises(AISPipeError, match="no node of this cluster"),
    ):
        read("get", config_of(server.url))
