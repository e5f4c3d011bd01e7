"""Get-batch, both ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.wire.batch import (
    BatchEntry,
    BatchReply,
    BatchRequest,
    BatchResult,
    decoded_reply,
    decoded_request,
    encoded_reply,
    encoded_request,
    member_name,
)
from aisdatapipes.wire.malformed import Malformed

REQUESTS = [
    (
        {"in": [{"objname": "a", "bucket": "bk", "provider": "ais"}],
         "mime": ".tar", "coer": True, "onob": False, "strm": True, "coloc": 0},
        BatchRequest((BatchEntry("bk", "ais", "a"),)),
    ),
    (
        {"in": [{"objname": "s.tar", "bucket": "bk", "provider": "aws", "archpath": "x/1.jpg", "opaque": "//4="},
                {"objname": "a", "bucket": "bk", "provider": "ais", "start": 5, "length": 10},
                {"objname": "a", "bucket": "bk", "provider": "ais", "length": -1},
                {"objname": "a", "bucket": "bk", "provider": "ais", "uname": "ais/@u#n/bk/a"}],
         "mime": ".zip", "coer": False, "onob": True, "strm": False, "coloc": 1},
        BatchRequest(
            (BatchEntry("bk", "aws", "s.tar", "x/1.jpg", opaque=b"\xff\xfe"), BatchEntry("bk", "ais", "a", "", 5, 10),
             BatchEntry("bk", "ais", "a", "", 0, -1), BatchEntry("bk", "ais", "a", namespace="@u#n")),
            ".zip", False, True, False, 1,
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "request_"), REQUESTS)
def test_request_both_ways(message, request_):
    """The message is the request, and the request is the message."""
    assert request_ == decoded_request(json.dumps(message).encode())
    assert message == json.loads(encoded_request(request_))


def test_defaults_of_the_path():
    """An entry without a bucket is of the bucket in the request's path."""
    body = b'{"in":[{"objname":"a"}],"coer":true,"onob":false,"strm":true}'
    assert BatchRequest((BatchEntry("bk", "aws", "a"),)) == decoded_request(body, "bk", "aws")


def test_global_namespace_in_a_full_name():
    """A full name in the global namespace has no namespace."""
    body = b'{"in":[{"objname":"","uname":"ais/@#/bk/x/y"}],"coer":true,"strm":true}'
    assert (BatchEntry("bk", "ais", "x/y"),) == decoded_request(body).entries


texts = st.text(max_size=12)
filled = st.text(min_size=1, max_size=12)
parts = st.sampled_from([(None, None), (0, -1), (0, 1), (7, 9), (7, -1)])
segments = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1, max_size=9)
entries = st.builds(
    lambda bucket, provider, name, archpath, part, namespace, opaque: BatchEntry(
        bucket, provider, name, archpath, *part, namespace, opaque
    ),
    segments, segments, filled, texts, parts, st.sampled_from(["", "#n", "@u#n"]), st.binary(max_size=6),
)  # fmt: skip
booleans = st.booleans()
requests = st.builds(
    BatchRequest,
    st.lists(entries, max_size=5).map(tuple),
    filled,
    booleans,
    booleans,
    booleans,
    st.integers(0, 2),
)


@given(requests)
def test_request_round_trip(request_):
    """A request comes back as it was."""
    assert request_ == decoded_request(encoded_request(request_))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b'{"in":[{}]}', b'{"in":[{"objname":"a","start":1}]}', b'{"in":[{"objname":"a","length":-2}]}',
        b'{"in":[{"objname":"a","start":-1,"length":1}]}', b'{"in":[{"objname":"a","uname":"x/y"}]}',
        b'{"in":[{"objname":"a","opaque":"*"}]}',
    ],
)  # fmt: skip
def test_no_request(body):
    """A range that cannot be, and anything else, is an error of its own."""
    with pytest.raises(Malformed):
        decoded_request(body)


@pytest.mark.parametrize(
    ("entry", "only_names", "name"),
    [
        (BatchEntry("bk", "ais", "d/a"), False, "bk/d/a"),
        (BatchEntry("bk", "ais", "d/a"), True, "d/a"),
        (BatchEntry("bk", "ais", "s.tar", "x/1"), False, "bk/s.tar/x/1"),
        (BatchEntry("bk", "ais", "s.tar", "/x/1"), True, "s.tar/x/1"),
    ],
)
def test_member_name(entry, only_names, name):
    """A member has the bucket, unless only names are wanted, the object and the path in it."""
    assert name == member_name(entry, only_names)


REPLY = BatchReply(
    "x1", (BatchResult("a", "bk", "ais", 3), BatchResult("s.tar", "bk", "ais", 0, "m", "no", b"\0")), b"TAR"
)
BODY = (
    b'--B\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"uuid":"x1","out":['
    b'{"objname":"a","bucket":"bk","provider":"ais","size":3},'
    b'{"objname":"s.tar","bucket":"bk","provider":"ais","size":0,"archpath":"m","err_msg":"no","opaque":"AA=="}]}\n\r\n'
    b'--B\r\nContent-Disposition: form-data; name="archive"; filename="x1"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\nTAR\r\n--B--\r\n"
)


def test_reply_both_ways():
    """The body is the reply, and the reply is the body."""
    assert decoded_reply(BODY, "multipart/mixed; boundary=B") == REPLY
    assert encoded_reply(REPLY, "B") == BODY


results = st.builds(BatchResult, texts, texts, texts, st.integers(0, 1 << 62), texts, texts, st.binary(max_size=5))
safe = st.text("abz019", max_size=9)


@given(st.builds(BatchReply, safe, st.lists(results, max_size=4).map(tuple), st.binary(max_size=50)))
def test_reply_round_trip(reply):
    """A reply comes back as it was, whatever bytes its archive holds."""
    assert reply == decoded_reply(encoded_reply(reply, "b0undary"), 'multipart/mixed; boundary="b0undary"')


def test_archive_that_looks_like_an_end():
    """Bytes of the archive that look like the boundary end nothing."""
    reply = BatchReply("u", (), b"\r\n--B\r\n\r\n\r\n--B--\r\n")
    assert reply == decoded_reply(encoded_reply(reply, "B"), "multipart/mixed; boundary=B")


@pytest.mark.parametrize("end", range(0, len(BODY) - 5, 7))
def test_reply_that_ends_early(end):
    """A cut reply is never taken for a whole one."""
    with pytest.raises(Malformed):
        decoded_reply(BODY[:end], "multipart/mixed; boundary=B")


def test_reply_of_another_type():
    """What is not multipart is no buffered reply."""
    with pytest.raises(Malformed, match="application/x-tar"):
        decoded_reply(BODY, "application/x-tar")


def test_texts_that_are_no_utf8():
    """They make no answer and no request, and are no other error than that."""
    with pytest.raises(Malformed, match="not a get-batch request"):
        decoded_request(b'{"in":[{"objname":"\xc3.a"}]}')
    reply = encoded_reply(BatchReply("u-1", (), b""), "xyz").replace(b'"u-1"', b'"\xc3.a"')
    with pytest.raises(Malformed, match="unreadable metadata"):
        decoded_reply(reply, "multipart/mixed; boundary=xyz")
