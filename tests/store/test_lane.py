"""The fast lane: it takes what is of its form, and whatever comes, its answer is libcurl's."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.engine import CurlTransport
from aisdatapipes.store.transport import Request
from tests.store.misbehaving import BODY, Misbehaving, answer
from tests.store.plain import PlainTransport
from tests.store.test_transports import Answers, ask, seen


@pytest.fixture
def there():
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture
def lane(there):
    transport = PlainTransport(ClientConfig(there.url(), read_timeout=2))
    yield transport
    transport.close()


class Memory:
    """A sink that has the memory already."""

    def __init__(self, size):
        self.bytes, self.came = bytearray(size + 8), 0
        self.size = size

    def get_buffer(self):
        return memoryview(self.bytes)[self.came : self.size]

    def buffer_updated(self, size):
        self.came += size

    def write(self, data):
        kept = data[: self.size - self.came]
        self.bytes[self.came : self.came + len(kept)] = kept
        self.came += len(kept)
        return True

    @property
    def content(self):
        assert not any(self.bytes[self.size :])
        return bytes(self.bytes[: self.came])


# ---- what it takes, and what not

TAKEN = ["good", "refused", "redirect", "closing", "part"]
NOT_TAKEN = ["chunked", "interim"]


@pytest.mark.parametrize("route", [*TAKEN, *NOT_TAKEN])
def test_which_answers_it_takes(lane, there, route):
    """An answer that tells its length is taken; another one libcurl asks for again, and understands."""
    reply = ask(lane, Request(there.url(f"/{route}")))
    assert reply.failure is None
    assert len(there.seen) == (1 if route in TAKEN else 2)


def unplain(there):
    """Requests that libcurl sends itself, by what is the matter with them."""
    return {
        "verb": Request(there.url("/chunked"), "POST", body=b""),
        "header": Request(there.url("/chunked"), headers=("X-A: b",)),
        "token": Request(there.url("/chunked"), with_token=True),
        "fresh": Request(there.url("/chunked"), fresh=True),
        "name": Request(there.url("/chunked").replace("127.0.0.1", "localhost")),
    }


@pytest.mark.parametrize("matter", ["verb", "header", "token", "fresh", "name"])
def test_which_requests_it_takes(lane, there, matter):
    """Had it sent them, libcurl would have had to ask again."""
    assert seen(ask(lane, unplain(there)[matter])) == (200, BODY, None)
    assert len(there.seen) == 1


def test_what_it_sends(lane, there):
    """The same words as libcurl."""
    curl = CurlTransport(ClientConfig(there.url()))
    try:
        for byte_range in (None, (5, 9), (5, None)):
            for transport in (lane, curl):
                ask(transport, Request(there.url("/good/a%20b?x=%2F"), byte_range=byte_range))
            first, second = (sorted(text.split("\r\n")) for text in there.seen[-2:])
            assert first == second
    finally:
        curl.close()


# ---- connections


def test_connections_are_kept(lane, there):
    """One after another goes over the same one, and as many at a time take as many."""
    for _ in range(5):
        ask(lane, Request(there.url("/good")))
    assert there.accepted == 1
    answers = Answers()
    for _ in range(4):
        request = Request(there.url("/hold"))
        lane.send(request, answers.of(request))
    while len(there.seen) < 9:
        time.sleep(0.01)
    there.release.set()
    answers.wait(4)
    assert there.accepted == 4


def test_a_kept_connection_that_is_gone(lane, there):
    """It is closed when it is used again, before it answers: that is nobody's error."""
    there.release.set()
    for _ in range(3):
        assert seen(ask(lane, Request(there.url("/once")))) == (200, BODY, None)


def test_a_dropped_request_takes_its_connection_along(lane, there):
    """What comes for it is not taken for the answer to the next one."""
    held = Request(there.url("/hold"))
    lane.send(held, Answers().of(held))
    while not there.seen:
        time.sleep(0.01)
    lane.cancel(held)
    there.release.set()
    assert seen(ask(lane, Request(there.url("/refused")))) == (404, b"no" * 20, None)
    assert there.accepted == 2


# ---- bodies that belong into memory


def test_a_body_is_read_into_memory(lane, there):
    """All of it, where it belongs; of one that breaks off what came is told."""
    memory = Memory(len(BODY))
    assert seen(ask(lane, Request(there.url("/part"), sink=memory))) == (206, b"", None)
    assert memory.content == BODY
    memory = Memory(len(BODY))
    assert seen(ask(lane, Request(there.url("/part-cut"), sink=memory))) == (206, b"", "truncated")
    assert (memory.content, len(there.seen)) == (BODY[:1000], 2)


@pytest.mark.parametrize("route", ["good", "part", "chunked", "part-cut"])
def test_a_body_without_room(lane, there, route):
    """A body that is larger than the memory, or not the part of it, is left to the sink; nothing is written behind it."""
    memory = Memory(len(BODY) - 100)
    ask(lane, Request(there.url(f"/{route}"), sink=memory))
    assert memory.content == (BODY[:1000] if route == "part-cut" else BODY[:-100])


def test_an_error_is_no_content(lane, there):
    """What is said in place of a part is the reply's."""
    memory = Memory(len(BODY))
    assert seen(ask(lane, Request(there.url("/refused"), sink=memory))) == (404, b"no" * 20, None)
    assert memory.content == b""


# ---- whatever comes

LIKELY = ["HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content", "HTTP/1.1 404 Not Found", "HTTP/1.1 503", "HTTP/1.1 204 None",
          "HTTP/1.1 304 Same"]  # fmt: skip
UNLIKELY = st.sampled_from([
    "HTTP/1.0 200 OK", "HTTP/1.1 100 Continue", "HTTP/1.1 999 What", "HTTP/1.1 20 OK", "220 mail",
    "HTTP/1.1  200 OK", "HTTP/2 200", "",
])  # fmt: skip
LENGTHS = [
    "0", "1", "7", "40", "00007", " 7", "7 ", "+7", "-7", "7, 7", "7;7", "0x7", "7e1", "9" * 30, "", "\u0667", "7\0",
]  # fmt: skip
HEADER = st.one_of(
    st.sampled_from(LENGTHS).map("Content-Length: {}".format),
    st.sampled_from(LENGTHS).map("content-length:{}".format),
    st.sampled_from([
        "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive", "X: y", "X:", ": y", " folded: 1",
        "no colon", "Content-Length : 7", "X-Content-Length: 3", "X: content-length: 3", "A: b\rc", "A: b\nContent-Length: 2",
        "Content-Encoding: gzip", "Trailer: X", "A: \u00e9",
    ]),
)  # fmt: skip
BODIES = st.sampled_from(
    [b"", b"a", b"abcdefg", b"abcdefgh" * 5, b"5\r\nabcde\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)


@st.composite
def answers_in_pieces(draw):
    """The bytes of an answer, likely or not, in pieces."""
    if draw(st.booleans()):
        length = draw(st.sampled_from(["0", "1", "7", "29", "40"]))
        more = draw(st.sampled_from(["X: y", "Connection: close", "Connection: Keep-Alive, CLOSE", "A: b\rc"]))
        lines, end = [draw(st.sampled_from(LIKELY)), f"Content-Length: {length}", more], "\r\n"
    else:
        lines = [draw(st.one_of(st.sampled_from(LIKELY), UNLIKELY)), *draw(st.lists(HEADER, max_size=4))]
        end = draw(st.sampled_from(["\r\n"] * 6 + ["\n"]))
    data = end.join([*lines, "", ""]).encode("latin-1", "replace") + draw(BODIES)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@pytest.mark.timeout(240)
def test_whatever_comes(there):
    """The same status, headers, body and kind of failure as by libcurl alone."""

    def told(kind):
        # A new one: what comes behind an answer is not to be taken for the next.
        transport = kind(ClientConfig(there.url(), read_timeout=2))
        try:
            reply = ask(transport, Request(there.url("/said"), most_bytes=30))
        finally:
            transport.close()
        names = ("Content-Length", "Connection", "X", "A")
        return (*seen(reply), [reply.header(name) for name in names])

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(
        pieces=[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"]
    )
    @example(pieces=[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length : 2\r\n\r\nabcde"])
    @example(pieces=[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n Content-Length: 2\r\n\r\nabcde"])
    @example(pieces=[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nno colon\r\n\r\nabcde"])
    @given(pieces=answers_in_pieces())
    def same(pieces):
        there.said = pieces
        assert told(PlainTransport) == told(CurlTransport)

    same()


def test_a_trickle_is_given_up(lane, there):
    """An answer whose bytes come too slowly is given up after ``read_timeout``; it would end, cut off, in 9 s."""
    there.said = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", *[b"x"] * 9000]
    assert seen(ask(lane, Request(there.url("/said"))))[2] == "timeout"


# ---- long bodies


@pytest.mark.parametrize("size", [(1 << 20) + 1, (3 << 20) + 5])
def test_a_long_body_in_one_piece(lane, there, size):
    """A body of several system calls, whose length was known, is what was sent; of one that breaks off, what came."""
    body = (BODY * (size // len(BODY) + 1))[:size]
    whole = answer(body)
    there.said = [whole[at : at + 700_000] for at in range(0, len(whole), 700_000)]
    assert seen(ask(lane, Request(there.url("/said"), most_bytes=size, expected=size))) == (200, body, None)
    there.said = [whole[:600_000], whole[600_000:1_000_000]]
    status, got, failure = seen(ask(lane, Request(there.url("/said"), most_bytes=size, expected=size)))
    assert (status, failure) == (200, "truncated")
    assert got == body[: len(got)]
    assert len(got) > 900_000
