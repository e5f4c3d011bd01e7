"""Get-batch: many objects in one archive, in the order asked, and what becomes of those that are not there."""

from __future__ import annotations

import email.parser
import email.policy
import json
from typing import Any

import pytest

from tests.conformance.conftest import Place, error_of, split_location, tar_of, untarred

# More than this many missing entries end a batch; AIStore's default.
SOFT_ERRORS = 8
CONTENT = {"a": b"AAAA", "b/c.jpg": b"BB", "empty": b"", "ten": b"0123456789", "ünï code": b"U"}


@pytest.fixture
def filled(place: Place) -> Place:
    place.bucket.fill(CONTENT)
    place.bucket.put("s.tar", tar_of({"x/1.jpg": b"J1", "x/2.jpg": b"J22"}))
    return place


def request(place: Place, entries: list[Any], **options: Any) -> dict[str, Any]:
    made = [{"objname": entry} if isinstance(entry, str) else entry for entry in entries]
    message = {
        "in": [{"bucket": place.name, "provider": "ais", **entry} for entry in made],
        "mime": ".tar",
        "coer": True,
        "onob": False,
        "strm": True,
    }
    return message | options


def batch(place: Place, entries: list[Any], **options: Any) -> Any:
    return place.http("GET", f"/v1/ml/moss/{place.name}?provider=ais", request(place, entries, **options))


def parts(reply: Any) -> tuple[dict[str, Any], bytes]:
    """Metadata and archive of a buffered answer."""
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + reply.data)
    found = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.iter_parts()
    }
    return json.loads(found["metadata"]), found["archive"]


def test_a_stream_has_the_order_of_the_request(filled: Place) -> None:
    """200, a tar without a length, entries by bucket and name, duplicates as often as asked for."""
    names = ["ten", "a", "b/c.jpg", "a", "empty", "ünï code", "ten"]
    reply = batch(filled, names)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-tar")
    assert "Content-Length" not in reply.headers
    assert untarred(reply.data) == [(f"{filled.name}/{name}", CONTENT[name]) for name in names]


def test_only_names(filled: Place) -> None:
    """With ``onob`` entries are called by the object's name alone."""
    assert untarred(batch(filled, ["b/c.jpg", "a"], onob=True).data) == [("b/c.jpg", b"BB"), ("a", b"AAAA")]


def test_members_of_shards(filled: Place) -> None:
    """An entry can be a member of an archive."""
    entries = [{"objname": "s.tar", "archpath": "x/2.jpg"}, "a", {"objname": "s.tar", "archpath": "x/1.jpg"}]
    assert untarred(batch(filled, entries).data) == [
        (f"{filled.name}/s.tar/x/2.jpg", b"J22"),
        (f"{filled.name}/a", b"AAAA"),
        (f"{filled.name}/s.tar/x/1.jpg", b"J1"),
    ]


def test_ranges(filled: Place) -> None:
    """Part of an object or of a member; a length of -1 goes to the end."""
    entries = [
        {"objname": "ten", "start": 2, "length": 3},
        {"objname": "ten", "start": 7, "length": -1},
        {"objname": "s.tar", "archpath": "x/2.jpg", "start": 1, "length": 2},
    ]
    assert [content for _, content in untarred(batch(filled, entries).data)] == [b"234", b"789", b"22"]


def test_entries_of_another_bucket(filled: Place) -> None:
    """Every entry may name its own bucket; the path may name none."""
    message = request(filled, ["a", "ten"])
    reply = filled.http("GET", "/v1/ml/moss", message)
    assert untarred(reply.data) == [(f"{filled.name}/a", b"AAAA"), (f"{filled.name}/ten", b"0123456789")]


def test_missing_entries_are_marked(filled: Place) -> None:
    """An empty member below ``__404__`` stands in the place of what is not there; the others are whole."""
    entries = ["a", "nope", {"objname": "s.tar", "archpath": "x/2.jpg"}, "ten"]
    found = untarred(batch(filled, entries).data)
    assert [name for name, _ in found] == [
        f"{filled.name}/a",
        f"__404__/{filled.name}/nope",
        f"{filled.name}/s.tar/x/2.jpg",
        f"{filled.name}/ten",
    ]
    assert [content for _, content in found] == [b"AAAA", b"", b"J22", b"0123456789"]


def test_a_missing_member_is_marked(filled: Place) -> None:
    """An empty member whose name begins with ``__404__``, bucket and shard."""
    first, second = untarred(batch(filled, [{"objname": "s.tar", "archpath": "nope"}, "a"]).data)
    assert first[0].startswith(f"__404__/{filled.name}/s.tar")
    assert (first[1], second) == (b"", (f"{filled.name}/a", b"AAAA"))


def test_missing_entries_up_to_the_limit(filled: Place) -> None:
    """As many as the server bears."""
    names = [f"nope-{number}" for number in range(SOFT_ERRORS)]
    found = untarred(batch(filled, [*names, "a"]).data)
    assert found == [*((f"__404__/{filled.name}/{name}", b"") for name in names), (f"{filled.name}/a", b"AAAA")]


def test_more_missing_entries_end_a_stream_early(filled: Place) -> None:
    """The status has gone out as 200 by then: members are missing, and only who counts them knows."""
    reply = batch(filled, [*(f"nope-{number}" for number in range(SOFT_ERRORS + 4)), "a"])
    assert reply.status == 200
    assert (f"{filled.name}/a", b"AAAA") not in untarred(reply.data)


def test_without_tolerance_a_stream_ends_early_or_has_the_mark(filled: Place) -> None:
    """It ends at what the answering target itself lacks, and marks what another target lacks; nothing else comes."""
    whole = [(f"{filled.name}/a", b"AAAA"), (f"__404__/{filled.name}/nope", b""), (f"{filled.name}/ten", b"0123456789")]
    reply = batch(filled, ["a", "nope", "ten"], coer=False)
    assert reply.status == 200
    assert untarred(reply.data) in (whole[:1], whole)


def test_a_buffered_answer_has_two_parts(filled: Place) -> None:
    """What there is about each entry, in the order of the request, and the archive."""
    reply = batch(filled, ["ten", "nope", "a"], strm=False)
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("multipart/mixed; boundary=")
    about, archive = parts(reply)
    assert about["uuid"]
    assert [(one["objname"], one["bucket"], one["provider"], one["size"]) for one in about["out"]] == [
        ("ten", filled.name, "ais", 10),
        ("nope", filled.name, "ais", 0),
        ("a", filled.name, "ais", 4),
    ]
    assert [bool(one.get("err_msg")) for one in about["out"]] == [False, True, False]
    assert untarred(archive) == [
        (f"{filled.name}/ten", b"0123456789"),
        (f"__404__/{filled.name}/nope", b""),
        (f"{filled.name}/a", b"AAAA"),
    ]


def test_opaque_comes_back(filled: Place) -> None:
    """What a client notes on an entry is in the metadata of a buffered answer."""
    about, _ = parts(batch(filled, [{"objname": "a", "opaque": "//4="}, "ten"], strm=False))
    assert [one.get("opaque") for one in about["out"]] == ["//4=", None]


def test_more_missing_entries_fail_a_buffered_answer(filled: Place) -> None:
    """Beyond the limit the status says so."""
    entries = [f"nope-{number}" for number in range(SOFT_ERRORS + 4)]
    assert batch(filled, entries, strm=False).status in (400, 404)


def test_without_tolerance_a_buffered_answer_fails_or_has_the_mark(filled: Place) -> None:
    """It fails for what the answering target itself lacks, and marks what another target lacks."""
    reply = batch(filled, ["a", "nope"], strm=False, coer=False)
    if reply.status == 200:
        assert [bool(one.get("err_msg")) for one in parts(reply)[0]["out"]] == [False, True]
    else:
        assert reply.status in (400, 404)


@pytest.mark.parametrize(("mime", "kind"), [(".tgz", "application/gzip"), (".tar.gz", "application/gzip")])
def test_compressed_streams(filled: Place, mime: str, kind: str) -> None:
    """The same archive in gzip."""
    reply = batch(filled, ["a", "ten"], mime=mime)
    assert (reply.status, reply.headers["Content-Type"]) == (200, kind)
    assert untarred(reply.data, "r:gz") == [(f"{filled.name}/a", b"AAAA"), (f"{filled.name}/ten", b"0123456789")]


def test_an_address_serves_one_batch(filled: Place) -> None:
    """307 to a target; the address that it names is good for one request, and only with the proxy's mark."""
    message = request(filled, ["a"])
    first = filled.http.once("GET", f"/v1/ml/moss/{filled.name}?provider=ais", message)
    node, rest = split_location(first)
    assert first.status == 307
    assert node in {target["public_net"]["direct_url"] for target in filled.http.targets().values()}
    assert rest.startswith(f"/v1/ml/moss/{filled.name}/")
    assert filled.http.once("GET", rest.partition("?")[0], message, at=node).status == 401
    assert filled.http.once("GET", rest, message, at=node).status == 200
    assert filled.http.once("GET", rest, message, at=node).status == 404


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"objname": ""}],
        [{"objname": "ten", "start": 3}],
        [{"objname": "ten", "start": 0, "length": -2}],
        [{"objname": "../x"}],
    ],
    ids=["none", "no name", "no length", "negative", "path"],
)
def test_requests_that_cannot_be_are_refused(filled: Place, entries: list[Any]) -> None:
    """400 at the proxy."""
    assert filled.http.once("GET", f"/v1/ml/moss/{filled.name}?provider=ais", request(filled, entries)).status == 400


def test_a_batch_of_a_missing_bucket(filled: Place) -> None:
    """404 at the proxy, in the path or in an entry."""
    path = f"/v1/ml/moss/{filled.name}?provider=ais"
    reply = filled.http.once("GET", path, request(filled, [{"objname": "a", "bucket": "nosuch-bucket"}]))
    assert (reply.status, error_of(reply)["message"]) == (404, 'bucket "ais://nosuch-bucket" does not exist')


def test_sdk_reads_the_same(filled: Place) -> None:
    """The SDK's batch, streaming or not, gives the contents in order."""
    for streaming in (True, False):
        one = filled.bucket.server.client().batch(
            ["a", "ten", "empty"], bucket=filled.bucket.sdk, streaming_get=streaming
        )
        assert [(out.obj_name, content) for out, content in one.get()] == [
            ("a", b"AAAA"),
            ("ten", b"0123456789"),
            ("empty", b""),
        ]
