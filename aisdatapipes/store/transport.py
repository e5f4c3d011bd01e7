"""The seam between this project and the network.

Everything above it speaks of `Request` and `Reply`; everything below it is an HTTP library. A fake, or a transport
that misbehaves on purpose, implements four verbs: `send`, `resume`, `cancel`, `close`. Nothing that an HTTP library
raises passes this line: a transfer that fails is a `Reply` with a `Failure`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

log = logging.getLogger("aisdatapipes")

# What can go wrong before there is a complete answer:
#   connect    nobody listens, no such host, no route
#   timeout    no connection, or no byte for `read_timeout` seconds
#   reset      the connection broke before the answer began
#   truncated  the connection broke inside the answer
#   tls        certificate refused, or no TLS on the other side
#   protocol   the answer is no HTTP
#   local      this machine cannot: out of file descriptors or memory
#   excess     the body is longer than `most_bytes`
#   closed     the transport was closed meanwhile
FailureKind = Literal["connect", "timeout", "reset", "truncated", "tls", "protocol", "local", "excess", "closed"]


# Bytes of an answer that is no content of an object, at most: a page of 10,000 names of 1,024 bytes, the longest that
# clouds have, is 10 MiB; the map of 4,096 nodes 8 MiB.
ANSWER_BYTES = 16 << 20
# Bytes a second, over `read_timeout`: a server that sends less has stopped, whatever it sends.
SLOWEST = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no complete answer: a kind, and the library's own words."""

    kind: FailureKind
    text: str


def excess(request: Request) -> Failure:
    """The failure of a body that is longer than the request allows."""
    return Failure("excess", f"the answer is longer than the {request.most_bytes:,} bytes that it can have")


class Sink(Protocol):
    """Where a body goes as it arrives, instead of being collected."""

    def write(self, data: bytes) -> bool:
        """Take ``data``; False means "not now": the same bytes come again after `Transport.resume`."""
        ...


class BufferedSink(Sink, Protocol):
    """A sink that has memory for the body, to be read into without a copy; names as in `asyncio.BufferedProtocol`."""

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong: all of what is left."""
        ...

    def buffer_updated(self, size: int) -> None:
        """So many bytes were written there."""
        ...


@dataclass(slots=True, eq=False)
class Request:
    """One HTTP request. Identity is its key: send each only once.

    Args:
        url: Absolute, with a path, and already percent-encoded; sent as it is.
        method: Verb.
        headers: Beyond those of the transport, such as ``("Range: bytes=0-9",)``.
        body: Sent with the request; redirects are the caller's business, so it is never lost on one.
        byte_range: (first, last) byte, both included; last None means "to the end".
        with_token: Send the transport's token. Only to the endpoint itself: nodes behind it trust its redirects.
        delay: Seconds to wait before it is sent.
        sink: Where a 200 or 206 body goes as it arrives; other bodies are collected.
        fresh: On a new connection: kept ones may all be broken.
        most_bytes: Of the body; a longer one is given up where it is noticed, at best before its first byte.
        silence_s: Seconds without a byte before it is given up; None for ``read_timeout`` of the config.
        plain: A GET whose answer tells its length in advance, most likely: a transport may have a faster way for it.
            Its sink, if it has one, is a `BufferedSink`.
        expected: Bytes of its body, most likely; -1 where nobody knows.
    """

    url: str
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: bytes | None = None
    byte_range: tuple[int, int | None] | None = None
    with_token: bool = False
    delay: float = 0.0
    sink: Sink | None = None
    fresh: bool = False
    most_bytes: int = ANSWER_BYTES
    silence_s: float | None = None
    plain: bool = False
    expected: int = -1

    @property
    def origin(self) -> str:
        """Scheme, host and port of the URL."""
        return self.url[: self.url.find("/", len("https://"))]


class Reply:
    """What came back: a status with headers and body, or a failure.

    Attributes:
        status: HTTP status; 0 when there was none.
        body: The collected body (empty with a sink).
        failure: Why the answer is incomplete; None when it is complete.
        head: The status line and the header lines, each with its end.
        repeats: How often the transport sent the request again by itself, because an answer broke off.
    """

    __slots__ = ("_small", "body", "failure", "head", "repeats", "status")

    def __init__(self, status: int, head: bytes, body: bytes, failure: Failure | None = None, repeats: int = 0) -> None:
        self.status = status
        self.head = head
        self._small: bytes | None = None  # the same in lower case, where somebody asks
        self.body = body
        self.failure, self.repeats = failure, repeats

    def header(self, name: str) -> str | None:
        """The value of a header, the first one if it comes twice; None where it is absent. Its name in any case."""
        if self._small is None:
            self._small = self.head.lower()
        begin = _beginning(name)
        at = self._small.find(begin)
        if at < 0:
            return None
        at += len(begin)
        return self.head[at : self.head.find(b"\n", at)].strip().decode("latin-1")


@functools.cache
def _beginning(name: str) -> bytes:
    """How a header begins, and the line before it ends."""
    return b"\n" + name.lower().encode() + b":"


Done = Callable[[Reply], None]

CLOSED = Failure("closed", "the transport was closed meanwhile")
FORKED = Failure("closed", "it was begun in another process: begin anew after the fork")


def tell(done: Done, reply: Reply) -> None:
    """Call a listener; one that fails is a defect, which must not end the thread that serves all the others."""
    try:
        done(reply)
    except Exception:
        log.exception("a listener failed: a defect in aisdatapipes, please report it")


class Transport(Protocol):
    """Many requests in flight, each answered once.

    ``done`` is called exactly once for each `send`, on a thread of the transport, and must be quick. After `cancel`
    it is called no more, or one last time if it was under way. `close` answers what is left with a ``closed`` failure
    and leaves no thread and no socket. In a forked child, which has none of the threads, `send` is answered with a
    ``closed`` failure, and the others do nothing.
    """

    def send(self, request: Request, done: Done) -> None:
        """Begin, and return at once."""
        ...

    def resume(self, request: Request) -> None:
        """Let a request go on whose sink said "not now"."""
        ...

    def cancel(self, request: Request) -> None:
        """Stop it; its bytes are nobody's any more."""
        ...

    def close(self) -> None:
        """Stop everything; idempotent; callable from any thread but a ``done``."""
        ...
