"""libcurl's easy handles: how each is set up, and how it is aimed at a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pycurl

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.certificates import ca_bundle
from aisdatapipes.store.transport import SLOWEST, Failure, FailureKind, Request, Sink

BUFFER_BYTES = 512 * 1024  # libcurl's largest useful read: -16 % CPU at 1 MiB objects against its default of 16 KiB

_KINDS: dict[int, FailureKind] = {
    pycurl.E_COULDNT_RESOLVE_HOST: "connect",
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PARTIAL_FILE: "truncated",
    pycurl.E_GOT_NOTHING: "reset",
    pycurl.E_SEND_ERROR: "reset",
    pycurl.E_RECV_ERROR: "reset",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_OUT_OF_MEMORY: "local",
    pycurl.E_FILESIZE_EXCEEDED: "excess",
}


def new_handle(config: ClientConfig) -> Any:
    """An easy handle with everything set that is the same for all requests to this cluster."""
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    # libcurl speaks many languages: without this, a map or a redirect could have it read files of this machine.
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)  # an exchange does, after it has looked where to
    curl.setopt(pycurl.PATH_AS_IS, 1)  # else "a/../b" silently becomes another object
    curl.setopt(pycurl.PROXY, "")  # a storage cluster is not reached through http_proxy
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.BUFFERSIZE, BUFFER_BYTES)
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(config.connect_timeout * 1000))
    curl.setopt(pycurl.LOW_SPEED_LIMIT, SLOWEST)
    curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(config.read_timeout)))
    curl.setopt(pycurl.USERAGENT, "aisdatapipes")
    curl.setopt(pycurl.SSL_VERIFYPEER, int(config.verify))
    curl.setopt(pycurl.SSL_VERIFYHOST, 2 if config.verify else 0)
    curl.setopt(pycurl.CAINFO, config.ca_file or ca_bundle())
    if config.client_cert:
        cert, key = (config.client_cert, None) if isinstance(config.client_cert, str) else config.client_cert
        curl.setopt(pycurl.SSLCERT, cert)
        if key:
            curl.setopt(pycurl.SSLKEY, key)
    return curl


def aim(curl: Any, request: Request, lines: list[bytes], chunks: list[bytes], token: str | None) -> None:
    """Set what differs from request to request; header lines and body go into the two lists."""
    curl.setopt(pycurl.URL, request.url)
    # Bound methods of C: no Python frame for each header line and each chunk.
    curl.setopt(pycurl.HEADERFUNCTION, lines.append)
    curl.setopt(pycurl.WRITEFUNCTION, _writer(request.sink, lines, chunks) if request.sink else chunks.append)
    # What a HEAD says is the length of another body.
    curl.setopt(pycurl.MAXFILESIZE_LARGE, 0 if request.method == "HEAD" else request.most_bytes)
    if request.byte_range is None:
        curl.unsetopt(pycurl.RANGE)
    else:
        first, last = request.byte_range
        curl.setopt(pycurl.RANGE, f"{first}-{'' if last is None else last}")
    with_token = [f"Authorization: Bearer {token}"] if token else []
    curl.unsetopt(pycurl.HTTPHEADER)  # for pycurl an empty list changes nothing: the token would go to the next one too
    curl.setopt(pycurl.HTTPHEADER, [*request.headers, *with_token])
    if request.fresh:
        curl.setopt(pycurl.FRESH_CONNECT, 1)
    if request.method == "HEAD":
        curl.setopt(pycurl.NOBODY, 1)
    elif request.body is not None:
        curl.setopt(pycurl.POSTFIELDS, request.body)
        curl.setopt(pycurl.CUSTOMREQUEST, request.method)
    elif request.method != "GET":
        curl.setopt(pycurl.CUSTOMREQUEST, request.method)


def let_go(curl: Any) -> None:
    """Forget what the last request was written into: an idle handle would keep its body."""
    curl.setopt(pycurl.WRITEFUNCTION, _ignored)


def _ignored(_data: bytes) -> None:
    """Takes what comes, and keeps nothing."""


def reusable(request: Request) -> bool:
    """True where `aim` can take all of the request back: method, body and ``fresh`` stick to a handle."""
    return request.method == "GET" and request.body is None and not request.fresh


def failure(code: int, text: str, *, began: bool) -> Failure:
    """What libcurl's error code means to us; ``began`` when there was an answer already."""
    kind = _KINDS.get(code, "protocol")
    if kind == "reset" and "alert" in text:  # with TLS 1.3 a server refuses its client after the handshake
        kind = "tls"
    if kind == "reset" and began:
        kind = "truncated"
    return Failure(kind, text or f"libcurl error {code}")


def _writer(sink: Sink, lines: list[bytes], chunks: list[bytes]) -> Callable[[bytes], int | None]:
    """A body with status 200 or 206 goes to the sink; an error's body is collected."""
    wanted: bool | None = None  # decided with the first piece: this runs for every 16 KiB

    def write(data: bytes) -> int | None:
        nonlocal wanted
        if wanted is None:
            # libcurl cannot be asked for the status while it works; the header lines are here already.
            status_line = next(line for line in reversed(lines) if line.startswith(b"HTTP/"))
            wanted = status_line.split(None, 2)[1] in (b"200", b"206")
        if wanted:
            return None if sink.write(data) else int(pycurl.WRITEFUNC_PAUSE)
        chunks.append(data)
        return None

    return write
