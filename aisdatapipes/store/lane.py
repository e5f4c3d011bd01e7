"""The fast lane: plain GETs over kept sockets, which is most of what reading is.

Of HTTP/1.1 it speaks the least that reads an object off a target: GET, and an answer whose ``Content-Length`` says
where it ends. Libcurl calls back for every header line and every 16 KiB of body, and takes the interpreter's lock each
time; here an answer is one system call or a few, and small ones are less (`store.pace`). What is not of this form is
begun again by libcurl, which understands everything: so this needs to know nothing else, and no answer can lead it
astray. Measured: `benchmarks/objects.py`, `benchmarks/medium.py`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.line import Line
from aisdatapipes.store.pace import Pace
from aisdatapipes.store.transfer import Transfer
from aisdatapipes.store.transport import SLOWEST, Failure, Request, excess
from aisdatapipes.wire.plain_head import NotPlain, head_at

LOOK_S = 0.5  # seconds between two looks at what may be too slow, or silent
MAX_IDLE = 256  # connections kept for reuse; more than any sensible width
# What is not longer may go out together with others: nobody waits long for them. The addresses are short, too, so that
# what is asked for at a time fits into the memory that the system has for it.
SHORT_BYTES = 80 << 10
_SHORT_URL = 1024
BURST_S = 1.0  # that a burst takes; then each of it is asked for by itself, for one may be what holds up all
_PORT = 80

_TEXT = re.compile(r"[!-~]+")


class _Address(NamedTuple):
    """Where to connect to, and what it is called there."""

    family: int
    place: tuple[Any, ...]
    host: str


class Lane:
    """The connections of one loop.

    Args:
        poll: Tells when something comes; shared with the loop, which hands events to `on_event`.
        config: Timeouts.
        finish: Called when a transfer has ended: with status, head, body, and why it is incomplete.
        otherwise: Called with a transfer that libcurl is to do.
    """

    def __init__(
        self,
        poll: select.epoll,
        config: ClientConfig,
        finish: Callable[[Transfer, int, bytes, bytes, Failure | None], None],
        otherwise: Callable[[Transfer], None],
    ) -> None:
        self._poll, self._config = poll, config
        self._finish, self._otherwise = finish, otherwise
        self.lines: dict[int, Line] = {}  # all, by descriptor
        # By origin:
        self._idle: defaultdict[str, list[Line]] = defaultdict(list)
        self._open: dict[str, Line] = {}  # what is asked there is not sent yet, and short
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        self._addresses: dict[str, _Address | None] = {}
        self._kept = 0
        self._unsent: list[Line] = []
        self._looked_at = 0.0

    @property
    def busy(self) -> int:
        """Connections that have transfers."""
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
        """Ask at the next `flush`: together with others if that may be, on a kept connection or on a new one."""
        request = transfer.request
        origin, short = request.origin, _is_short(request)
        line = self._open.get(origin) if short else None
        if line is None or len(line.asked) >= self._paces[origin].depth:
            line = self._idle_one(origin) or self._connect(origin)
            if line is None:
                self._otherwise(transfer)  # which says what is the matter
                return
            self._unsent.append(line)
            if short:
                self._open[origin] = line
        line.ask(transfer, self._words(request))

    def flush(self) -> None:
        """Send what was asked since the last time: what is for one connection in one piece."""
        lines, self._unsent = self._unsent, []
        self._open.clear()
        for line in lines:
            if not line.connected or not line.words:
                continue  # `_connected` sends it; or the connection is closed
            words = b"".join(line.words)
            line.words.clear()
            try:
                sent = line.sock.send(words)
            except OSError:
                sent = 0
            if sent < len(words):  # the other side is gone, or takes nothing
                self._give_up(line)

    def forget_one(self) -> None:
        """Close a connection that nobody has at present, if there is one."""
        for kept in self._idle.values():
            if kept:
                self._kept -= 1
                self._close(kept.pop(0))
                return

    def drop(self, transfer: Transfer) -> None:
        """Forget a transfer, and close its connection; but where others wait there, only its answer is passed over."""
        line, transfer.line = transfer.line, None
        if line is not None and not any(one.line is line for one in line.asked):
            self._close(line)

    def on_event(self, line: Line) -> None:
        """Something came, or the connection is there or gone."""
        if not line.asked:  # an idle one that the other side has closed
            self._idle[line.origin].remove(line)
            self._kept -= 1
            self._close(line)
        elif not line.connected:
            self._connected(line)
        else:
            self._receive(line)

    def due(self) -> float | None:
        """When `on_time` is to be called, on the monotonic clock."""
        return self._looked_at + LOOK_S if self.busy else None

    def on_time(self, now: float) -> None:
        """Give up what has brought too little for too long; the rule is that of libcurl's low speed limit."""
        if now < self._looked_at + LOOK_S:
            return
        self._looked_at = now
        for line in [line for line in self.lines.values() if line.asked]:
            if line.is_burst and now - line.begun_at > BURST_S:
                self._give_up(line)
                continue
            seconds = now - line.looked_at
            if line.connected and line.came - line.looked_came >= SLOWEST * seconds:
                line.looked_at, line.looked_came = now, line.came
            elif seconds >= (self._config.read_timeout if line.connected else self._config.connect_timeout):
                self._end(line, Failure("timeout", f"{line.came} bytes came, and too few of them for {seconds:.1f} s"))

    def close(self) -> None:
        """End every connection."""
        for line in list(self.lines.values()):
            self._close(line)

    # ---- where a request goes

    def _idle_one(self, origin: str) -> Line | None:
        kept = self._idle[origin]
        if not kept:
            return None
        self._kept -= 1
        return kept.pop()

    def _connect(self, origin: str) -> Line | None:
        address = self._address(origin)
        assert address is not None  # noqa: S101 - takes() has looked
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address.place)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return None
        line = self.lines[sock.fileno()] = Line(sock, origin)
        self._poll.register(line.fd, select.EPOLLOUT)
        return line

    def _connected(self, line: Line) -> None:
        if line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._give_up(line)
            return
        line.connected = True
        self._poll.modify(line.fd, select.EPOLLIN)
        self._unsent.append(line)

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

    # ---- what comes

    def _receive(self, line: Line) -> None:
        try:
            data = line.receive()
        except BlockingIOError:
            return
        except (OSError, EOFError) as error:
            self._broken(line, str(error) or "the connection was closed")
            return
        if data is not None:
            self._take(line, data)
        elif line.missing:
            line.wait_for_more()
        else:
            self._end(line, None)

    def _take(self, line: Line, data: bytes) -> None:
        """Take a piece of an answer, or several answers."""
        at = 0
        while at < len(data):
            if not line.status:
                body_at = self._begun(line, data, at)
                if body_at is None:
                    return
                at = body_at
            end = min(len(data), at + line.missing)
            line.put(data[at:end])
            at = end
            if line.missing:
                line.wait_for_more()
                return
            is_last = len(line.answers) + 1 == len(line.asked)
            if is_last and at < len(data):  # nobody has asked for that
                line.closes = True
                if line.is_burst:
                    self._give_up(line)
                    return
            self._end(line, None)
            if is_last or not line.asked:
                return

    def _begun(self, line: Line, data: bytes, at: int) -> int | None:
        """Where the body of an answer begins; None where there is nothing to go on with yet, or any more."""
        request = line.present.request
        try:
            head = head_at(data, at)
            if head is None:
                line.keep(data[at:])
                return None
            if head.length > request.most_bytes:
                line.status, line.head = head.status, head.text
                self._end(line, excess(request))
                return None
            line.accept(head, request)
        except NotPlain:
            self._give_up(line)
            return None
        if line.answers:
            self._paces[line.origin].answered_after(time.monotonic() - line.begun_at)
        return head.end

    # ---- ends

    def _end(self, line: Line, failure: Failure | None) -> None:
        """The present answer is there, or all that came of it."""
        if line.is_burst and (failure is not None or (line.closes and len(line.answers) + 1 < len(line.asked))):
            self._give_up(line)  # whoever of them it was
            return
        body = b"" if failure is not None and failure.kind == "excess" else line.body()
        line.answers.append((line.status, line.head, body))
        if len(line.answers) < len(line.asked):
            line.begin()
        elif line.is_burst and not line.fits():
            self._give_up(line)
        else:
            self._told(line, failure)

    def _told(self, line: Line, failure: Failure | None) -> None:
        """All that was asked is answered."""
        told = line.take_all()
        if failure is not None or line.closes or self._kept >= MAX_IDLE:
            self._close(line)
        else:
            line.begin()
            self._idle[line.origin].append(line)
            self._kept += 1
        for transfer, (status, head, body) in told:
            if transfer.line is line:  # else it was dropped
                transfer.line = None
                self._finish(transfer, status, head, body, failure)

    def _broken(self, line: Line, why: str) -> None:
        if line.is_burst or not line.status:
            if line.is_burst and line.status:
                line.present.repeats += 1
            if line.is_burst or line.came or line.used:
                self._give_up(line)  # a kept connection may have been closed long ago
            else:
                self._end(line, Failure("reset", why))
        else:
            self._end(line, Failure("truncated", f"{why} with {line.missing} bytes missing"))

    def _give_up(self, line: Line) -> None:
        """Libcurl is to do it: what is of another form, or what others may have spoiled."""
        left = line.asked
        if line.is_burst:
            self._paces[line.origin].rest()
        self._close(line)
        for transfer in left:
            if transfer.line is line:  # else it was dropped
                transfer.line = None
                self._otherwise(transfer)

    def _close(self, line: Line) -> None:
        del self.lines[line.fd]
        if self._open.get(line.origin) is line:  # nobody shall join it
            del self._open[line.origin]
        line.asked, line.words = [], []
        with contextlib.suppress(OSError):
            self._poll.unregister(line.fd)
        line.sock.close()

    def _address(self, origin: str) -> _Address | None:
        if origin not in self._addresses:
            self._addresses[origin] = _address_of(origin)
        return self._addresses[origin]


def _is_short(request: Request) -> bool:
    """Whether it may go out together with others."""
    return request.sink is None and 0 <= request.expected <= SHORT_BYTES and len(request.url) <= _SHORT_URL


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
