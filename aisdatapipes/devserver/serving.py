"""One node on one port: aiohttp's bytes in, a `Reply` out, written well or, where a fault says so, badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from aisdatapipes.devserver import proxy, target
from aisdatapipes.devserver.calls import Call, Delivery, Reply
from aisdatapipes.devserver.faults import KINDS, RESET
from aisdatapipes.devserver.refusals import Refused

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

    from aiohttp.abc import AbstractStreamWriter

    from aisdatapipes.devserver.state import State
    from aisdatapipes.wire.clustermap import Node

IDLE_SECONDS = 30  # what AIStore's server grants an idle connection
_LOG = logging.getLogger("aisdatapipes.devserver")


class NodeServer:
    """A node that listens.

    Args:
        state: The cluster.
        node: Which node of it this is.
        sock: Bound to the node's port; a new one is bound to the same port after `stop`.
        tls: For https.
    """

    def __init__(self, state: State, node: Node, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.state, self.node = state, node
        self._address = sock.getsockname()
        self._sock: socket.socket | None = sock
        self._tls = tls
        self._kind: ModuleType = proxy if node in state.map.proxies else target
        self._name = f"{'p' if self._kind is proxy else 't'}[{node.id}]"
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens."""
        sock = self._sock or bound(*self._address)
        self._sock = None
        # A body that nobody wants is read for a moment, so that the client sees the reply and not a reset.
        self._http = web.Server(self._handle, access_log=None, keepalive_timeout=IDLE_SECONDS, lingering_time=2.0)
        self._listener = await asyncio.get_running_loop().create_server(self._http, sock=sock, ssl=self._tls)

    async def stop(self) -> None:
        """Neither listens nor has a connection."""
        if self._sock is not None:
            self._sock.close()
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            for connection in self._http.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await self._http.shutdown(0)
        self._listener = self._http = None

    def abandon(self) -> None:
        """Lets go of every socket in a forked child, which must not keep the parent's connections open."""
        sockets = list(self._listener.sockets) if self._listener else []
        numbers = [sock.fileno() for sock in sockets]
        for connection in self._http.connections if self._http else ():
            sock = connection.transport.get_extra_info("socket") if connection.transport else None
            if sock is not None:
                numbers.append(sock.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in numbers:
            if number >= 0:
                # Not closed but replaced: whoever closes it later closes nothing of somebody else's.
                os.dup2(nothing, number)
        os.close(nothing)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = _call(request)
        call.operation = self._kind.operation(call)
        bucket_and_name = call.path.removeprefix("/v1/objects/").removeprefix("/v1/buckets/")
        call.subject = bucket_and_name
        reply = await self._reply(call)
        return await _written(request, reply)

    async def _reply(self, call: Call) -> Reply:
        try:
            if self._kind is proxy:
                await proxy.refine(call)
            self.state.count(call.operation)
            struck = self.state.faults.striking(call)
            for fault in struck:
                if fault.kind == "delay":
                    await asyncio.sleep(fault.options["seconds"])
            instead = next((fault for fault in struck if KINDS[fault.kind].instead), None)
            if instead is not None:
                make = KINDS[instead.kind].instead
                assert make is not None  # noqa: S101 - it was chosen for having one
                return make(instead.options)
            reply: Reply = await self._kind.answer(self.state, self.node, call)
            for fault in struck:
                change = KINDS[fault.kind].after
                reply = change(reply, fault.options, call, self.state) if change else reply
        except Refused as refused:
            return self._refusal(refused, call)
        except Exception as error:  # noqa: BLE001 - a bug is a 500, and logged; the server goes on
            _LOG.exception("%s: %s %s", self._name, call.method, call.path)
            return self._refusal(Refused(500, f"{self._name}: {error!r}"), call)
        return reply

    def _refusal(self, refused: Refused, call: Call) -> Reply:
        """The error as AIStore writes it: in JSON, or of a HEAD in a header."""
        content: dict[str, object] = {"tcode": refused.tcode} if refused.tcode else {}
        content |= {
            "message": refused.message,
            "method": call.method,
            "url_path": call.path,
            "remote_addr": call.peer,
            "caller": "",
            "node": self._name,
            "status": refused.status,
        }
        body = json.dumps(content, separators=(",", ":"))
        headers = [
            *refused.headers,
            ("Content-Type", "application/json"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if call.method == "HEAD":
            return Reply(refused.status, [*headers, ("Hdr-Error", body)])
        return Reply(refused.status, headers, body.encode() + b"\n")


def bound(host: str, port: int) -> socket.socket:
    """A socket on this port; 0 is any free one."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def _call(request: web.BaseRequest) -> Call:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    body: list[bytes] = []

    async def read() -> bytes:
        if not body:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body.append(await request.content.read())
        return body[0]

    return Call.of(request.method, request.raw_path, request.headers, ":".join(map(str, (peer or ())[:2])), read)


class _Written(web.StreamResponse):
    """What aiohttp is handed when everything is written already."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        self.force_close()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


async def _written(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    headers = CIMultiDict(reply.headers)
    headers["Server"] = "aisdatapipes"
    delivery = reply.delivery or Delivery()
    if delivery.close_later is not None and request.transport is not None:
        asyncio.get_running_loop().call_later(max(delivery.close_later, 0.001), request.transport.close)
    if delivery.abnormal:
        return _written_badly(request, reply, delivery, headers)
    if isinstance(reply.body, bytes) and not delivery.piece:
        return web.Response(status=reply.status, headers=headers, body=reply.body or None)
    pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
    response = web.StreamResponse(status=reply.status, headers=headers)
    if isinstance(reply.body, bytes):
        response.content_length = len(reply.body)
    with contextlib.suppress(ConnectionError):  # the client has gone: nobody to tell
        await response.prepare(request)
        for piece in pieces:
            step = delivery.piece or len(piece) or 1
            for start in range(0, len(piece), step):
                await response.write(piece[start : start + step] if step < len(piece) else piece)
                if delivery.pause:
                    await asyncio.sleep(delivery.pause)
        await response.write_eof()
    return response


def _written_badly(
    request: web.BaseRequest, reply: Reply, delivery: Delivery, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Past aiohttp, which would not send what is wrong."""
    transport = request.transport
    if transport is None:
        return _Written()
    body = reply.whole
    if isinstance(reply.body, bytes) or delivery.promise is not None:
        headers["Content-Length"] = str(len(body) if delivery.promise is None else delivery.promise)
        sent = body if delivery.cut_after is None else body[: delivery.cut_after]
    else:
        headers["Transfer-Encoding"] = "chunked"
        sent = b"%x\r\n%b" % (len(body), body[: delivery.cut_after])  # a chunk that is never completed
    if not delivery.reset or delivery.cut_after is not None:
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        transport.write(head + (b"" if request.method == "HEAD" else sent))
    if delivery.reset:
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(*RESET)
        transport.abort()
    else:
        transport.close()
    return _Written()
