"""The fast lane: plain GETs over kept sockets, which is most of what reading is.

Of HTTP/1.1 it speaks the least that reads an object off a target: GET, and an answer whose ``Content-Length`` says
where it ends. Libcurl calls back for every header line and every 16 KiB of body, and takes the interpreter's lock each
time; here an answer is one system call or a few. What is not of this form is begun again by libcurl, which understands
everything: so this needs to know nothing else, and no answer can lead it astray. Measured: `benchmarks/medium.py`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.transfer import Transfer
from aisdatapipes.store.transport import SLOWEST, BufferedSink, Failure, Request, excess

LOOK_S = 0.5  # seconds between two looks at what may be too slow, or silent
MAX_IDLE = 256  # connections kept for reuse; more than any sensible width
_HEAD_BYTES = 64 << 10  # of header lines; targets send half a KiB
_FIRST_BYTES = 64 << 10  # that are asked for at a time where nobody said how much there is
_MOST_BYTES = 1 << 20  # at a time
_WAITED_FOR = 32 << 10  # bytes that are waited for until all are there
_HEAD_ROOM = 2 << 10  # for header lines, so that they come with the whole body
_PORT = 80

_TEXT = re.compile(r"[!-~]+")
_HEAD = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [^\r\n\0]*)?\r\n(?:[!-9;-~]+:[^\r\n\0]*\r\n)+")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n")
_CLOSES = re.compile(rb"\r\nconnection:[^\r\n]*close")
_BODILESS = (204, 304)


class _Address(NamedTuple):
    """Where to connect to, and what it is called there."""

    family: int
    place: tuple[Any, ...]
    host: str


class _Line:
    """One connection, and the transfer that has it at present."""

    # fmt: off
    __slots__ = (
        "came", "closes", "connected", "fd", "head", "headers", "looked_at", "looked_came", "missing", "origin",
        "pieces", "sink", "sock", "status", "transfer", "used", "waits",
    )
    # fmt: on

    def __init__(self, sock: socket.socket, origin: str) -> None:
        self.sock, self.fd, self.origin = sock, sock.fileno(), origin
        self.transfer: Transfer | None = None
        self.connected = self.used = self.closes = self.waits = False
        self.begin()

    def begin(self) -> None:
        """An answer is to come."""
        self.head = b""
        self.headers: list[bytes] = []
        self.pieces: list[bytes] = []
        self.sink: BufferedSink | None = None
        self.status = self.missing = self.came = 0
        self.looked_at, self.looked_came = time.monotonic(), 0


class Lane:
    """The connections of one loop.

    Args:
        poll: Tells when something comes; shared with the loop, which hands events to `on_event`.
        config: Timeouts.
        finish: Called when a transfer has ended: with status, header lines, body, and why it is incomplete.
        otherwise: Called with a transfer that libcurl is to do.
    """

    def __init__(
        self,
        poll: select.epoll,
        config: ClientConfig,
        finish: Callable[[Transfer, int, list[bytes], bytes, Failure | None], None],
        otherwise: Callable[[Transfer], None],
    ) -> None:
        self._poll, self._config = poll, config
        self._finish, self._otherwise = finish, otherwise
        self.lines: dict[int, _Line] = {}  # all, by descriptor
        self._idle: dict[str, list[_Line]] = {}  # by origin
        self._addresses: dict[str, _Address | None] = {}
        self._kept = 0
        self._looked_at = 0.0

    @property
    def busy(self) -> int:
        """Transfers under way."""
        return len(self.lines) - self._kept

    def takes(self, request: Request) -> bool:
        """Whether a request is of the form that is spoken here."""
        return (
            request.plain
            and not request.fresh
            and not request.with_token
            and not request.headers
            and request.silence_s is None
            and _TEXT.fullmatch(request.url) is not None
            and self._address(request.origin) is not None
        )

    def begin(self, transfer: Transfer) -> None:
        """Ask, on a kept connection if there is one."""
        origin = transfer.request.origin
        kept = self._idle.get(origin)
        if kept:
            line = kept.pop()
            self._kept -= 1
            self._ask(line, transfer)
        else:
            self._connect(origin, transfer)

    def forget_one(self) -> None:
        """Close a connection that nobody has at present, if there is one."""
        for kept in self._idle.values():
            if kept:
                self._kept -= 1
                self._close(kept.pop(0))
                return

    def drop(self, transfer: Transfer) -> None:
        """Forget a transfer; its connection is closed with it."""
        line, transfer.line = transfer.line, None
        if line is not None:
            line.transfer = None
            self._close(line)

    def on_event(self, line: _Line) -> None:
        """Something came, or the connection is there or gone."""
        if line.transfer is None:  # an idle one that the other side has closed
            self._idle[line.origin].remove(line)
            self._kept -= 1
            self._close(line)
        elif not line.connected:
            self._connected(line, line.transfer)
        else:
            self._receive(line, line.transfer)

    def due(self) -> float | None:
        """When `on_time` is to be called, on the monotonic clock."""
        return self._looked_at + LOOK_S if self.busy else None

    def on_time(self, now: float) -> None:
        """Give up what has brought too little for too long; the rule is that of libcurl's low speed limit."""
        if now < self._looked_at + LOOK_S:
            return
        self._looked_at = now
        for line in [line for line in self.lines.values() if line.transfer is not None]:
            seconds = now - line.looked_at
            if line.connected and line.came - line.looked_came >= SLOWEST * seconds:
                line.looked_at, line.looked_came = now, line.came
            elif seconds >= (self._config.read_timeout if line.connected else self._config.connect_timeout):
                self._end(line, Failure("timeout", f"{line.came} bytes came, and too few of them for {seconds:.1f} s"))

    def close(self) -> None:
        """End every connection."""
        for line in list(self.lines.values()):
            self._close(line)

    # ---- steps of a transfer

    def _connect(self, origin: str, transfer: Transfer) -> None:
        address = self._address(origin)
        assert address is not None  # noqa: S101 - takes() has looked
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            self._otherwise(transfer)  # which says what is the matter
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address.place)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._otherwise(transfer)
            return
        line = self.lines[sock.fileno()] = _Line(sock, origin)
        line.transfer, transfer.line = transfer, line
        self._poll.register(line.fd, select.EPOLLOUT)

    def _connected(self, line: _Line, transfer: Transfer) -> None:
        if line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._give_up(line)
            return
        line.connected = True
        self._poll.modify(line.fd, select.EPOLLIN)
        self._ask(line, transfer)

    def _ask(self, line: _Line, transfer: Transfer) -> None:
        line.transfer, transfer.line = transfer, line
        line.begin()
        words = self._words(transfer.request)
        try:
            sent = line.sock.send(words)
        except OSError:
            sent = 0
        if sent < len(words):  # the other side is gone, or takes nothing
            self._give_up(line)

    def _words(self, request: Request) -> bytes:
        origin = request.origin
        address = self._addresses[origin]
        ranged = ""
        if request.byte_range is not None:
            first, last = request.byte_range
            ranged = f"Range: bytes={first}-{'' if last is None else last}\r\n"
        host = address.host if address is not None else ""
        head = f"GET {request.url[len(origin) :]} HTTP/1.1\r\nHost: {host}\r\n{ranged}"
        return f"{head}User-Agent: aisdatapipes\r\nAccept: */*\r\n\r\n".encode("ascii")

    def _receive(self, line: _Line, transfer: Transfer) -> None:
        data, size = b"", 0
        try:
            if line.sink is not None:
                size = line.sock.recv_into(line.sink.get_buffer(), min(line.missing, _MOST_BYTES))
            else:
                data = line.sock.recv(self._wanted(line, transfer.request))
                size = len(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(line, str(error))
            return
        if not size:
            self._broken(line, "the connection was closed")
            return
        line.came += size
        if line.status:
            self._more(line, data, size)
        elif not self._begun(line, transfer, line.head + data if line.head else data):
            return
        if line.missing <= 0:
            self._end(line, None)

    def _wanted(self, line: _Line, request: Request) -> int:
        if line.status:
            return min(line.missing, _MOST_BYTES)
        if request.sink is not None:
            return _HEAD_ROOM
        return min(request.expected + _HEAD_ROOM, _MOST_BYTES) if request.expected >= 0 else _FIRST_BYTES

    def _more(self, line: _Line, data: bytes, size: int) -> None:
        if line.sink is not None:
            line.sink.buffer_updated(size)
        else:
            line.pieces.append(data)
        line.missing -= size
        if line.waits:
            self._wake_at(line, max(1, min(line.missing, _MOST_BYTES)))

    def _begun(self, line: _Line, transfer: Transfer, data: bytes) -> bool:
        """Take the beginning of an answer; False where there is nothing to go on with yet, or any more."""
        end = data.find(b"\r\n\r\n") + 2
        if end < 2:
            line.head = data
            if len(data) > _HEAD_BYTES or b"\n\n" in data:
                self._give_up(line)
            return False
        head = data[:end]
        told, small = _HEAD.fullmatch(head), head.lower()
        lengths = _LENGTH.findall(small)
        status = int(told[1]) if told else 0
        # An overlap of two matches is a length that comes twice in a row.
        single = len(lengths) == 1 == small.count(b"content-length")
        if not told or not single or status in _BODILESS or b"\r\ntransfer-encoding:" in small:
            self._give_up(line)
            return False
        length = int(lengths[0])
        if length > transfer.request.most_bytes:
            line.status, line.headers = status, head.split(b"\r\n")
            self._end(line, excess(transfer.request))
            return False
        body = data[end + 2 :]
        if not self._has_place(line, transfer.request, status, length):
            self._give_up(line)
            return False
        line.status, line.headers, line.head = status, head.split(b"\r\n"), b""
        line.closes = _CLOSES.search(small) is not None or len(body) > length
        body = body[:length] if len(body) > length else body
        if line.sink is not None:
            line.sink.write(body)
        else:
            line.pieces = [body]
        line.missing = length - len(body)
        if line.missing >= _WAITED_FOR:
            self._wake_at(line, min(line.missing, _MOST_BYTES))
        return True

    def _has_place(self, line: _Line, request: Request, status: int, length: int) -> bool:
        """Whether a body can be taken: one that belongs into memory must be the part that this was made for."""
        if request.sink is None or status not in (200, 206):
            return True
        line.sink = cast("BufferedSink", request.sink)
        return status == 206 and length <= len(line.sink.get_buffer())

    def _wake_at(self, line: _Line, size: int) -> None:
        """Be told of what comes when there are so many bytes of it, or when no more come."""
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        line.waits = size > 1

    # ---- ends

    def _end(self, line: _Line, failure: Failure | None) -> None:
        """The transfer is over: with an answer, or with what came of one."""
        transfer, line.transfer = line.transfer, None
        assert transfer is not None  # noqa: S101 - nothing ends twice
        transfer.line = None
        pieces = line.pieces
        body = b"" if failure is not None and failure.kind == "excess" else b"".join(pieces)
        status, headers = line.status, line.headers
        line.used, line.pieces, line.headers, line.sink = True, [], [], None
        if line.waits:
            self._wake_at(line, 1)
        if failure is None and not line.closes and self._kept < MAX_IDLE:
            self._idle.setdefault(line.origin, []).append(line)
            self._kept += 1
        else:
            self._close(line)
        self._finish(transfer, status, headers, body, failure)

    def _broken(self, line: _Line, why: str) -> None:
        transfer = line.transfer
        if line.came and line.status:
            self._end(line, Failure("truncated", f"{why} with {line.missing} bytes missing"))
        elif line.came or line.used:
            self._give_up(line)  # a kept connection may have been closed long ago
        elif transfer is not None:
            self._end(line, Failure("reset", why))

    def _give_up(self, line: _Line) -> None:
        """Libcurl is to do it."""
        transfer, line.transfer = line.transfer, None
        self._close(line)
        if transfer is not None:
            transfer.line = None
            self._otherwise(transfer)

    def _close(self, line: _Line) -> None:
        del self.lines[line.fd]
        with contextlib.suppress(OSError):
            self._poll.unregister(line.fd)
        line.sock.close()

    def _address(self, origin: str) -> _Address | None:
        if origin not in self._addresses:
            self._addresses[origin] = _address_of(origin)
        return self._addresses[origin]


def _address_of(origin: str) -> _Address | None:
    """Where an origin is; None without an address in numbers, for looking up a name takes its time, and with TLS."""
    parts = urlsplit(origin)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
        port = parts.port or _PORT
    except ValueError:
        return None
    if parts.scheme != "http" or not _TEXT.fullmatch(origin):
        return None
    if address.version == 4:
        return _Address(socket.AF_INET, (str(address), port), parts.netloc)
    return None if "%" in origin else _Address(socket.AF_INET6, (str(address), port, 0, 0), parts.netloc)
