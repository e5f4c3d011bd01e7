"""A server on a raw socket that answers every request with whatever bytes a function makes of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

END = b"\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path, errors="surrogateescape")

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def kind(self) -> str:
        """What is asked for: "map", "list", "index", "batch", "head", "range", "get", "put" or "other"."""
        if "what=smap" in self.target:
            return "map"
        if self.path.startswith("/v1/buckets/"):
            return "list" if self.method == "GET" else "other"
        if self.path.startswith("/v1/ml/moss"):
            return "batch"
        if not self.path.startswith("/v1/objects/"):
            return "other"
        if "/.sys-shardidx/" in self.path:
            return "index"
        if self.method == "GET":
            return "range" if "range" in self.headers else "get"
        return self.method.lower()


Answer = Callable[[Asked], Iterable[bytes]]


class HostileServer:
    """The server; after each answer it closes the connection, unless the answer was all that it promised.

    Args:
        answer: Makes the bytes of an answer, in pieces, out of a request; it runs on the connection's thread.
        host: Address to listen on.
        tls: Speak HTTPS.

    Attributes:
        asked: Every request, in the order of arrival.
    """

    def __init__(self, answer: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self._listener = socket.create_server((host, 0), backlog=256)
        self._connections: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._tls = tls
        self.url = f"http{'s' if tls else ''}://{host}:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, name="hostile")
        self._accepting.start()

    def __enter__(self) -> HostileServer:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="hostile")
            self._threads.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(20)
            if self._tls is not None:
                self._connections.discard(connection)
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.add(connection)
            requests = _Requests(connection)
            while (asked := requests.next()) is not None:
                self.asked.append(asked)
                for piece in self.answer(asked):
                    connection.sendall(piece)
        except OSError:
            pass  # the client has had enough: that is what the tests are about
        finally:
            self._connections.discard(connection)
            connection.close()
            self._threads.discard(threading.current_thread())


class _Requests:
    """The requests of a connection, of which several can come together."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._left = connection, b""

    def next(self) -> Asked | None:
        """The next one; None at the end."""
        asked, self._left = _received(self._connection, self._left)
        return asked


def _received(connection: socket.socket, data: bytes) -> tuple[Asked | None, bytes]:
    """A request, and what has come behind it."""
    while END not in data:
        more = connection.recv(1 << 16)
        if not more:
            return None, b""
        data += more
    head, _, body = data.partition(END)
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        more = connection.recv(1 << 16)
        if not more:
            return None, b""
        body += more
    return Asked(method, target, headers, body[:length]), body[length:]


class Hung(ConnectionError):
    """Raised by an answer that wants the connection closed."""


def whole(body: bytes = b"", *headers: str, status: str = "200 OK") -> list[bytes]:
    """An answer as it should be."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return ["\r\n".join(lines).encode("latin-1", "replace") + body]


def closing(*pieces: bytes) -> Iterable[bytes]:
    """These bytes, and the end of the connection."""
    yield from pieces
    raise Hung
