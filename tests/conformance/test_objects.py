"""Objects: what comes with a GET, ranges, HEAD in its two forms, PUT, DELETE, connections."""

from __future__ import annotations

import pytest
import xxhash

from tests.conformance.conftest import Place, error_of, said, split_location

TEN = b"0123456789"
SUM = xxhash.xxh64_hexdigest(TEN)


@pytest.fixture
def filled(place: Place) -> Place:
    place.bucket.fill({"ten": TEN, "empty": b""})
    return place


@pytest.mark.parametrize(("name", "content"), [("ten", TEN), ("empty", b"")])
def test_get_says_length_checksum_and_version(filled: Place, name: str, content: bytes) -> None:
    """A whole object comes with xxh64 of its content, in hexadecimal; an empty one says its length too."""
    reply = filled.ask("GET", name)
    headers = reply.headers
    assert (reply.status, reply.data) == (200, content)
    assert (headers["Ais-Checksum-Type"], headers["Ais-Checksum-Value"]) == ("xxhash2", xxhash.xxh64_hexdigest(content))
    assert (headers["Content-Length"], headers["Content-Type"]) == (str(len(content)), "application/octet-stream")
    assert headers["Ais-Version"] == "1"
    assert int(headers["Ais-Atime"]) > 0


@pytest.mark.parametrize(
    ("asked", "content", "said_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", TEN, "bytes 0-9/10"),
        ("bytes=0-", TEN, "bytes 0-9/10"),
    ],
)
def test_a_range_is_a_part_of_one_version(filled: Place, asked: str, content: bytes, said_range: str) -> None:
    """206, clamped to the object; checksum and version are those of the whole."""
    reply = filled.ask("GET", "ten", Range=asked)
    headers = reply.headers
    assert (reply.status, reply.data, headers["Content-Range"]) == (206, content, said_range)
    assert (headers["Content-Length"], headers["Accept-Ranges"]) == (str(len(content)), "bytes")
    assert (headers["Ais-Checksum-Value"], headers["Ais-Version"]) == (SUM, "1")


@pytest.mark.parametrize(
    ("name", "asked", "size"), [("ten", "bytes=10-", 10), ("ten", "bytes=10-12", 10), ("empty", "bytes=0-", 0)]
)
def test_a_range_beyond_the_end_says_the_size(filled: Place, name: str, asked: str, size: int) -> None:
    """416, and the header says how long the object is."""
    reply = filled.ask("GET", name, Range=asked)
    assert (reply.status, reply.headers["Content-Range"], error_of(reply)["tcode"]) == (
        416,
        f"bytes */{size}",
        "ErrRangeNotSatisfiable",
    )


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,4-5", "chars=0-1", "bytes=a-b", "bytes=-"])
def test_a_range_that_is_none_is_refused(filled: Place, asked: str) -> None:
    """416 for what cannot be read as one range."""
    assert filled.ask("GET", "ten", Range=asked).status == 416


@pytest.mark.parametrize(
    ("name", "props", "expected"),
    [
        ("ten", "name,size", {"Content-Length": "10", "Ais-Present": "true"}),
        ("empty", "name,size", {"Content-Length": "0", "Ais-Present": "true"}),
        ("ten", "checksum,version", {"Content-Length": "10", "Ais-Checksum-Value": SUM, "Ais-Checksum-Type": "xxhash2", "Ais-Version": "1"}),
        ("ten", "copies", {"Ais-Mirror-Copies": "1"}),
        ("ten", "", {"Content-Length": "10", "Ais-Checksum-Value": SUM, "Ais-Version": "1", "Ais-Name": "ten", "Ais-Present": "true"}),
    ],
)  # fmt: skip
def test_head_tells_what_is_asked_for(filled: Place, name: str, props: str, expected: dict[str, str]) -> None:
    """With props those and the size, also of an empty object; without, everything."""
    reply = filled.ask("HEAD", name, f"&props={props}" if props else "")
    assert (reply.status, reply.data) == (200, b"")
    assert {key: reply.headers.get(key) for key in expected} == expected


def test_head_with_props_tells_nothing_else(filled: Place) -> None:
    """What was not asked for is not there."""
    headers = filled.ask("HEAD", "ten", "&props=name,size").headers
    assert [key for key in headers if key.lower().startswith("ais-") and key.lower() != "ais-present"] == []


def test_head_locates_the_object(filled: Place) -> None:
    """The location names the owner."""
    location = filled.ask("HEAD", "ten", "&props=location").headers["Ais-Location"]
    assert location.startswith(f"t[{filled.owner('ten')['daemon_id']}]:")


@pytest.mark.parametrize("props", ["nonsense", "size,cached"])
def test_head_of_unknown_props_is_refused(filled: Place, props: str) -> None:
    """400, also for what a listing would know."""
    assert filled.ask("HEAD", "ten", f"&props={props}").status == 400


@pytest.mark.parametrize("query", ["", "&props=name,size"])
def test_head_of_a_missing_object(filled: Place, query: str) -> None:
    """The error is in a header, for a HEAD has no body."""
    reply = filled.ask("HEAD", "nope", query)
    assert reply.data == b""
    assert said(reply) == (404, f"t[ID]: ais://{filled.name}/nope does not exist")


def test_an_overwritten_object_has_the_next_version(filled: Place) -> None:
    """PUT says checksum and version of what it stored; versions count from 1."""
    replies = [filled.ask("PUT", "new", body=body) for body in (b"one", b"two", b"")]
    assert [(reply.status, reply.data, reply.headers["Ais-Version"]) for reply in replies] == [
        (200, b"", str(n)) for n in (1, 2, 3)
    ]
    assert [reply.headers["Ais-Checksum-Value"] for reply in replies] == [
        xxhash.xxh64_hexdigest(body) for body in (b"one", b"two", b"")
    ]
    got = filled.ask("GET", "new")
    assert (got.data, got.headers["Ais-Version"], got.headers["Content-Length"]) == (b"", "3", "0")


def test_put_with_a_wrong_checksum_stores_nothing(filled: Place) -> None:
    """A client's checksum is compared; the object stays what it was."""
    reply = filled.ask("PUT", "ten", body=b"other", Ais_Checksum_Type="xxhash2", Ais_Checksum_Value="0" * 16)
    assert reply.status >= 400
    assert filled.ask("GET", "ten").data == TEN


def test_delete(filled: Place) -> None:
    """A deleted object is gone; deleting it again is 404, in words of its own."""
    assert filled.ask("DELETE", "ten").status == 200
    assert said(filled.ask("GET", "ten")) == (404, f"t[ID]: ais://{filled.name}/ten does not exist")
    again = filled.ask("DELETE", "ten")
    assert said(again) == (404, f"ais://{filled.name}/ten doesn't exist")


def test_errors_have_one_form(filled: Place) -> None:
    """JSON with type, message, method, path, node and status, ended by a newline."""
    reply = filled.ask("GET", "nope")
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.data.endswith(b"}\n")
    found = error_of(reply)
    assert (found["tcode"], found["method"], found["url_path"], found["status"]) == (
        "ErrNotFound",
        "GET",
        filled.path("nope"),
        404,
    )
    assert {"message", "remote_addr", "caller", "node"} <= set(found)


@pytest.mark.parametrize(
    "query", ["&nonsense=1", "&provider=ais", "&namespace=%40%23", "&latest-ver=false", "&uuid=", "&etl_name="]
)
def test_unknown_and_idle_query_keys_change_nothing(filled: Place, query: str) -> None:
    """Keys that mean nothing here are ignored."""
    assert filled.ask("GET", "ten", query).data == TEN


def test_without_a_provider_it_is_ais(filled: Place) -> None:
    """The provider may be left out."""
    assert filled.http("GET", filled.path("ten")).data == TEN


def test_a_token_is_ignored_where_none_is_needed(filled: Place) -> None:
    """A cluster without access control does not look at tokens."""
    assert filled.ask("GET", "ten", Authorization="Bearer nonsense").data == TEN


def test_one_connection_serves_everything(filled: Place) -> None:
    """Hits, misses, ranges, heads and empty objects leave a connection as they found it; so do redirects."""
    owner = filled.owner("ten")["public_net"]["direct_url"]
    path, other = filled.path("ten") + "?provider=ais", filled.path("empty") + "?provider=ais"
    for _ in range(2):
        assert filled.http.once("GET", path, at=owner).data == TEN
        assert filled.http.once("GET", path, at=owner, Range="bytes=99-").status == 416
        assert filled.http.once("HEAD", path, at=owner).status == 200
        assert filled.http.once("GET", filled.path("nope"), at=owner).status == 404
        assert filled.http.once("HEAD", filled.path("nope"), at=owner).status == 404
    at_empty = filled.owner("empty")["public_net"]["direct_url"]
    for _ in range(2):
        assert filled.http.once("GET", other, at=at_empty).data == b""
    proxy = filled.http.endpoint
    for _ in range(2):
        assert filled.http.once("GET", path).status == 301
        assert filled.http.once("HEAD", path).status == 307
        assert filled.http.once("GET", "/v1/objects/nosuch-bucket/x").status == 404
        filled.http.listed(filled.name)
    assert [filled.http.pool(url).num_connections for url in {owner, at_empty, proxy}] == [1] * len(
        {owner, at_empty, proxy}
    )


def test_a_body_without_a_length_is_stored_whole(filled: Place) -> None:
    """A chunked PUT at the target."""
    node, rest = split_location(filled.http.once("PUT", filled.path("chunked") + "?provider=ais"))
    assert filled.http.once("PUT", rest, iter([b"abc", b"def"]), at=node).status == 200
    assert filled.ask("GET", "chunked").data == b"abcdef"


def test_sdk_reads_the_same(filled: Place) -> None:
    """The SDK sees content, size, checksum and version as they are on the wire, by way of the proxy and directly."""
    one = filled.bucket.sdk.object("ten")
    assert [
        one.get_reader().read_all(),
        one.get_reader(direct=True).read_all(),
        one.get_reader(byte_range="bytes=2-4").read_all(),
    ] == [TEN, TEN, b"234"]
    props = one.props
    assert (props.checksum_value, props.size, props.obj_version) == (SUM, 10, "1")
