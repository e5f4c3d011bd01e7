"""A slower network on loopback: a proxy of TCP in front of every node of a cluster.

Every byte comes half of ``delay`` later on its way there, and half of it on its way back, so a request and its answer
take ``delay`` longer; a connection can be held to a rate as well. Clients that read straight from the nodes come
through it too: in what the nodes say, their addresses are replaced by those of this proxy, which are equally long
(the cluster map, and the Location of a redirect), so nothing else of an answer changes.

It is a process of its own, and takes its CPU from the same machine: compare rows of one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import re
import secrets
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

try:
    from uvloop import run
except ImportError:
    from asyncio import run

PENDING_BYTES = 4 << 20  # of one direction of a connection; more are not read
NODE = re.compile(rb"127\.0\.0\.1:(\d{5})")


@contextlib.contextmanager
def slow_network(endpoint: str, *, delay: float = 0.0, rate: float = 0.0) -> Iterator[str]:
    """Another endpoint of the same cluster, behind the slower network.

    Args:
        endpoint: ``http://127.0.0.1:port`` of a cluster whose nodes all listen on 127.0.0.1, on ports of five digits.
        delay: Seconds that a request and its answer take longer.
        rate: Bytes a second of one connection, from the cluster; 0 for any.
    """
    ports = {port: _free_port() for port in _ports(endpoint)}
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=_serve, args=(ports, delay, rate, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(30):
            raise OSError("the slow network does not listen")
        yield f"http://127.0.0.1:{ports[int(endpoint.rpartition(':')[2])]}"
    finally:
        process.terminate()
        process.join()


def _ports(endpoint: str) -> list[int]:
    with urllib.request.urlopen(f"{endpoint}/v1/daemon?what=smap", timeout=10) as answer:
        smap: dict[str, Any] = json.load(answer)
    nodes = [*smap["pmap"].values(), *smap["tmap"].values()]
    found = [int(match[1]) for node in nodes if (match := NODE.search(node["public_net"]["direct_url"].encode()))]
    if len(found) != len(nodes):
        raise OSError("a node does not listen on 127.0.0.1 and a port of five digits")
    return found


def _free_port() -> int:
    while True:
        port = 10_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _serve(ports: dict[int, int], delay: float, rate: float, ready: Any) -> None:
    names = {str(there).encode(): str(here).encode() for there, here in ports.items()}

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for there, here in ports.items():
            await loop.create_server(
                lambda there=there: _Client(there, delay, rate, names),  # type: ignore[misc]
                "127.0.0.1", here,
            )  # fmt: skip
        ready.set()
        await asyncio.Event().wait()

    run(serve())


class _Side(asyncio.Protocol):
    """One end of a connection; what it receives goes to the other end, later."""

    def __init__(self, delay: float, rate: float, names: dict[bytes, bytes]) -> None:
        self.delay, self.rate, self.names = delay, rate, names
        self.other: _Side | None = None
        self.transport: Any = None
        self.early: list[bytes] = []  # received before there was another end
        self._loop = asyncio.get_running_loop()
        self._last = 0.0  # when the last piece is due
        self._pending = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
            return
        if self.names and b"127.0.0.1:" in data:
            data = NODE.sub(lambda found: b"127.0.0.1:" + self.names.get(found[1], found[1]), data)
        due = max(self._last, self._loop.time() + self.delay / 2) + (len(data) / self.rate if self.rate else 1e-9)
        self._last = due
        self._pending += len(data)
        if self._pending > PENDING_BYTES:
            self.transport.pause_reading()
        self._loop.call_at(due, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        before, self._pending = self._pending, self._pending - len(data)
        if before > PENDING_BYTES >= self._pending and not self.transport.is_closing():
            self.transport.resume_reading()
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None:
            self._loop.call_at(max(self._last, self._loop.time()) + 1e-6, self.other.transport.close)


class _Client(_Side):
    """The end towards the client; it opens the other one."""

    def __init__(self, there: int, delay: float, rate: float, names: dict[bytes, bytes]) -> None:
        super().__init__(delay, 0.0, {})
        self._there, self._server = there, _Side(delay, rate, names)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._loop.create_connection(lambda: self._server, "127.0.0.1", self._there)
        except OSError:
            self.transport.close()
            return
        self.other, self._server.other = self._server, self
        early, self.early = self.early, []
        for data in early:
            self.data_received(data)
