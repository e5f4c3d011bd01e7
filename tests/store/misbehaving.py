"""A server on a raw socket whose paths each misbehave in one named way."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time

BODY = bytes(range(256)) * 400
RESET = struct.pack("ii", 1, 0)


def answer(body: bytes, *headers: str, status: str = "200 OK", promise: int | None = None) -> bytes:
    length = len(body) if promise is None else promise
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {length}", *headers, "", ""]).encode() + body


class Misbehaving:
    """The server; ``seen`` has the head of every request, as text, in the order of arrival."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[str] = []
        self.said: list[bytes] = []  # the answer to "said", in the pieces in which it is sent
        self.release = threading.Event()  # lets the "hold" requests go
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._connections: set[socket.socket] = set()
        self.forgets = False  # whatever came in a packet behind a request
        self.most = 0  # connections at a time
        self._left: dict[socket.socket, bytes] = {}  # of requests that were sent together
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="misbehaving")
        self._accepting.start()

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return len(self._threads)

    def url(self, path: str = "") -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="misbehaving")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(30)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.add(connection)
            self.most = max(self.most, len(self._connections))
            while (head := self._head(connection)) and self._respond(connection, head):
                pass
        except OSError:
            pass  # the client has gone: that is what some tests are about
        finally:
            self._connections.discard(connection)
            self._left.pop(connection, None)
            connection.close()

    def _head(self, connection: socket.socket) -> str:
        data = self._left.pop(connection, b"")
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return ""
            data += more
            if data[:1] == b"\x16":  # TLS, which this port does not speak
                connection.sendall(answer(b"", status="400 Bad Request"))
                return ""
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = next((int(x.split(":")[1]) for x in text.lower().split("\r\n") if x.startswith("content-length:")), 0)
        while len(body) < length:
            body += connection.recv(65536)
        body, left = body[:length], body[length:]
        self._left[connection] = b"" if self.forgets else left
        self.seen.append(f"{text}\r\n\r\n{body.decode('latin-1')}")
        return text

    def _respond(self, connection: socket.socket, head: str) -> bool:
        """True when the connection goes on."""
        route = head.split(" ", 2)[1].split("?", maxsplit=1)[0].strip("/").split("/")[0]
        send = connection.sendall
        match route:
            case "cut":
                send(answer(BODY[:1000], promise=len(BODY)))
                return False
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            case "reset-inside":
                send(answer(BODY[:1000], promise=len(BODY)))
                time.sleep(0.05)  # so that the head arrives before the reset overtakes it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            case "nothing":
                return False
            case "silent":
                self.release.wait(20)
                return False
            case "stalled":
                send(answer(BODY[:1000], promise=len(BODY)))
                self.release.wait(20)
                return False
            case "hold":
                self.release.wait(20)
                send(answer(BODY))
            case "closing":  # says nothing of it, and closes the idle connection
                send(answer(BODY))
                return False
            case "once":  # and resets the connection when it is used again
                self.release.wait(20)
                send(answer(BODY))
                self._head(connection)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            case "huge":
                send(answer(b"", *(f"X-{i}: {'x' * 1000}" for i in range(400))))
            case "not-http":
                send(b"220 mail.example ESMTP\r\n\r\n" * 4)
                return False
            case "interim":
                send(b"HTTP/1.1 100 Continue\r\nX-Kind: interim\r\n\r\n" + answer(BODY, "X-Kind: final"))
            case "chunked" | "chunked-cut":
                pieces = [BODY[:7], BODY[7:50_000], BODY[50_000:]]
                end = b"0\r\n\r\n" if route == "chunked" else b"ff\r\nhalf"
                chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end
                send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
                return route == "chunked"
            case "redirect":
                send(answer(b"there", "Location: /elsewhere", status="302 Found"))
            case "refused":
                send(answer(b"no" * 20, status="404 Not Found"))
            case "part":
                send(answer(BODY, f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}", status="206 Partial Content"))
            case "part-cut":
                send(answer(BODY[:1000], status="206 Partial Content", promise=len(BODY)))
                return False
            case "said":
                for piece in self.said:
                    send(piece)
                    time.sleep(0.001)  # so that it mostly comes by itself
                return False
            case "name":
                send(answer(head.split(" ", 2)[1].encode()))
            case "late":
                time.sleep(0.02)
                send(answer(head.split(" ", 2)[1].encode()))
            case "more":  # than was asked for
                send(answer(b"asked for") + answer(b"not asked for"))
            case "head":
                send(answer(b"", promise=12345))
            case _:
                send(answer(BODY, "X-Kind: good"))
        return True
