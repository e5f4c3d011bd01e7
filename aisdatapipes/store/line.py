"""One connection of the fast lane: what was asked on it, and the answers as they come.

Several short requests that go out together are a burst. Nothing is asked behind it before all of it is answered, and no
answer is handed on before: a server that lost a request of a burst would answer fewer, and whoever took the second
answer for that to the second request would take the bytes of another object.
"""

from __future__ import annotations

import io
import socket
import time
from typing import cast

from aisdatapipes.store.transfer import Transfer
from aisdatapipes.store.transport import BufferedSink, Request
from aisdatapipes.wire.plain_head import Head, NotPlain

_MOST_BYTES = 1 << 20  # of one system call
_FIRST_BYTES = 64 << 10  # that are asked for at a time where nobody said how much there is
_WAITED_FOR = 32 << 10  # bytes that are waited for until all are there
_HEAD_ROOM = 2 << 10  # for header lines, so that they come with the whole body


class Line:
    """A connection.

    Attributes:
        asked: Transfers, in the order of their answers; none while nobody has the connection.
        answers: Status, head and body of those that have come: of the first ones of ``asked``.
        words: What is asked, and not sent yet: others can join it.
        closes: Nothing can be asked any more.
        came: Bytes of the present answer; it has a ``status`` as soon as its head is there.
        begun_at: When it became the present one.
        looked_at, looked_came: When it was last looked whether enough comes, and what had come.
    """

    # fmt: off
    __slots__ = (
        "_beginning", "_own", "_pieces", "_sink", "_waits", "answers", "asked", "begun_at", "came", "closes",
        "connected", "fd", "head", "looked_at", "looked_came", "missing", "origin", "sock", "status", "used", "words",
    )
    # fmt: on

    def __init__(self, sock: socket.socket, origin: str) -> None:
        self.sock, self.fd, self.origin = sock, sock.fileno(), origin
        self.asked: list[Transfer] = []
        self.answers: list[tuple[int, bytes, bytes]] = []
        self.words: list[bytes] = []
        self.connected = self.used = self.closes = self._waits = False
        self.begin()

    @property
    def present(self) -> Transfer:
        """The transfer whose answer is coming."""
        return self.asked[len(self.answers)]

    @property
    def is_burst(self) -> bool:
        """Whether several requests share it."""
        return len(self.asked) > 1

    def ask(self, transfer: Transfer, words: bytes) -> None:
        """A request more, to be sent."""
        transfer.line = self
        self.asked.append(transfer)
        self.words.append(words)
        if len(self.asked) == 1:
            self.begin()

    def take_all(self) -> list[tuple[Transfer, tuple[int, bytes, bytes]]]:
        """Those who asked, and their answers; nobody has the connection any more."""
        told = list(zip(self.asked, self.answers, strict=True))
        self.asked, self.answers, self.used = [], [], True
        return told

    def fits(self) -> bool:
        """Whether all answers may be those to what was asked: by what was known of them."""
        return all(
            status not in (200, 206) or len(body) == transfer.request.expected
            for transfer, (status, _, body) in zip(self.asked, self.answers, strict=True)
        )

    def begin(self) -> None:
        """An answer is to come."""
        self._beginning = b""
        self._pieces: list[bytes] = []
        self._sink: BufferedSink | None = None
        self._own: OnePiece | None = None  # the same, where nobody brought it
        self.head = b""
        self.status = self.missing = self.came = 0
        self.begun_at = self.looked_at = time.monotonic()
        self.looked_came = 0

    def receive(self) -> bytes | None:
        """What has come, to be taken; None where a sink has it already. Raises ``OSError``, ``EOFError`` at the end."""
        data = None
        if self._sink is None:
            data = self.sock.recv(self._wanted())
            size = len(data)
        else:
            size = self.sock.recv_into(self._sink.get_buffer(), min(self.missing, _MOST_BYTES))
            self._sink.buffer_updated(size)
            self.missing -= size
        if not size:
            raise EOFError
        self.came += size
        if data is not None and self._beginning:
            data, self._beginning = self._beginning + data, b""
        return data

    def _wanted(self) -> int:
        request, others = self.present.request, len(self.asked) - len(self.answers) - 1
        if self.status:
            first = self.missing
        elif request.sink is not None:
            return _HEAD_ROOM
        else:
            first = request.expected + _HEAD_ROOM if request.expected >= 0 else _FIRST_BYTES
        return min(first + others * (max(request.expected, 0) + _HEAD_ROOM), _MOST_BYTES)

    def keep(self, beginning: bytes) -> None:
        """Keep the beginning of a head until the rest of it is there."""
        self._beginning = beginning

    def accept(self, head: Head, request: Request) -> None:
        """The answer begins so; raises `NotPlain` where its body is not the part that a sink was made for."""
        self.status, self.head, self.missing = head.status, head.text, head.length
        self.closes |= head.closes
        if request.sink is not None and head.status in (200, 206):
            self._sink = cast("BufferedSink", request.sink)
            if head.status != 206 or head.length > len(self._sink.get_buffer()):
                raise NotPlain
        elif _MOST_BYTES < head.length == request.expected:
            self._sink = self._own = OnePiece(head.length)

    def put(self, data: bytes) -> None:
        """The first bytes of the body, or more of them."""
        self.missing -= len(data)
        if self._sink is None:
            self._pieces.append(data)
        else:
            self._sink.write(data)

    def wait_for_more(self) -> None:
        """Be told of the rest when all of it is there, or when no more comes."""
        if self._waits or (self.missing >= _WAITED_FOR and not self.is_burst):
            size = max(1, min(self.missing, _MOST_BYTES))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._waits = size > 1

    def body(self) -> bytes:
        """What was collected, once."""
        if self._waits:
            self.wait_for_more()  # for nothing more
        pieces, own = self._pieces, self._own
        self._pieces, self._own, self._sink = [], None, None
        return own.content() if own is not None else b"".join(pieces)  # of a single piece no copy


class OnePiece:
    """A body of a known length, read straight to where it stays: a `BufferedSink`."""

    __slots__ = ("_came", "_file", "_memory")

    def __init__(self, length: int) -> None:
        # Of bytes that nobody else has, BytesIO makes no copy, neither here nor in `content`.
        self._file = io.BytesIO(bytes(length))
        self._memory = self._file.getbuffer()
        self._came = 0

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong."""
        return self._memory[self._came :]

    def buffer_updated(self, size: int) -> None:
        """So many bytes were written there."""
        self._came += size

    def write(self, data: bytes) -> bool:
        """Take a piece."""
        self._memory[self._came : self._came + len(data)] = data
        self._came += len(data)
        return True

    def content(self) -> bytes:
        """What has come."""
        whole = self._came == len(self._memory)
        self._memory.release()
        return self._file.getvalue() if whole else self._file.getvalue()[: self._came]
