"""A request as nodes see it, and a reply before it becomes bytes: values, so that answers are functions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from aisdatapipes.devserver.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_TRUE = ("1", "t", "true", "y", "yes", "on")


@dataclass(slots=True)
class Call:
    """One request.

    Args:
        method: HTTP method.
        path: Percent-decoded; bytes that are no UTF-8 as surrogate escapes.
        raw_query: As it came, without the question mark.
        headers: Case-insensitive.
        peer: Address of the client, as ``host:port``.
        read: Gives the body; only answers that want it call it.
        operation: The kind of request, by which faults and counters go.
        subject: ``bucket/name``, or else the path.
        token: Of a listing: what its page begins after.
        body: What was read, once `message` was asked for.
    """

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    peer: str
    read: Callable[[], Awaitable[bytes]]
    query: dict[str, str] = field(init=False)
    operation: str = ""
    subject: str = ""
    token: str = ""
    body: bytes = b""

    def __post_init__(self) -> None:
        pairs = parse_qsl(self.raw_query, keep_blank_values=True, errors="surrogateescape")
        self.query = dict(pairs)  # the last of several wins, as on the server

    @classmethod
    def of(
        cls,
        method: str,
        target: str,
        headers: Mapping[str, str],
        peer: str,
        read: Callable[[], Awaitable[bytes]],
    ) -> Call:
        """The call of a request line's target, such as ``/v1/objects/bk/a%20b?provider=ais``."""
        path, _, query = target.partition("?")
        return cls(method, unquote(path, errors="surrogateescape"), query, headers, peer, read)

    @property
    def redirected(self) -> bool:
        """Whether the request carries the mark of a proxy's redirect."""
        return "pid" in self.query and "utm" in self.query

    def says(self, key: str) -> bool:
        """Whether a query parameter is there and true."""
        return self.query.get(key, "").lower() in _TRUE

    async def message(self) -> dict[str, Any]:
        """The control message in the body; its keys in lower case, as the server does not mind the case."""
        self.body = body = await self.read()
        try:
            found = json.loads(body)
        except ValueError as error:
            why = error if body else "EOF"
            raise Refused(400, f"failed to unmarshal [*apc.ActMsg] ({self.method}), err: {why}") from None
        if not isinstance(found, dict):
            raise Refused(400, f"failed to unmarshal [*apc.ActMsg] ({self.method}), err: not an object")
        return {str(key).lower(): value for key, value in found.items()}

    def object_parts(self) -> tuple[str, str]:
        """Bucket and name in ``/v1/objects/bucket/name``."""
        parts = self.path.split("/", 4)
        if len(parts) < 5 or not parts[3] or not parts[4]:
            said = self.path.strip("/")
            raise Refused(400, f"URL '{said}' is too short: expected 4 items, got {len(said.split('/'))}")
        return parts[3], parts[4]


def check_name(name: str, method: str) -> None:
    """Refuses a name that the server would refuse."""
    parts = name.split("/")
    trailing = name.endswith("/") and method != "HEAD"
    if not name or trailing or "." in parts or ".." in parts or name.startswith("~/"):
        raise Refused(400, f'invalid object name "{name}"', "errInvalidPath")


@dataclass(slots=True)
class Delivery:
    """How a reply is written where it is not written well.

    Args:
        cut_after: Bytes of the body that are sent before the connection is closed.
        promise: What ``Content-Length`` says, if not the truth.
        pause: Seconds between pieces of the body.
        piece: Bytes of one such piece.
        reset: The connection is reset, after `cut_after` bytes of the body, or before any byte at all.
        close_later: Seconds after which the connection is closed, without having announced it.
    """

    cut_after: int | None = None
    promise: int | None = None
    pause: float = 0.0
    piece: int = 0
    reset: bool = False
    close_later: float | None = None

    @property
    def abnormal(self) -> bool:
        """Whether no HTTP library would write it."""
        return self.cut_after is not None or self.promise is not None or self.reset


@dataclass(slots=True)
class Reply:
    """One reply.

    Args:
        status: HTTP status.
        headers: In order; a name may come several times.
        body: Bytes, or pieces that are sent chunked, without a length.
        delivery: How it is written, where a fault wants something special.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | list[bytes] = b""
    delivery: Delivery | None = None

    @property
    def whole(self) -> bytes:
        """The body in one piece."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


def text(content: str) -> Reply:
    """A reply of plain text, such as a job's id."""
    return Reply(200, [("Content-Type", "text/plain; charset=utf-8")], content.encode())


def as_json(content: Any) -> Reply:
    """A reply of JSON, with the type that the server gives it."""
    return json_reply(json.dumps(content, separators=(",", ":")).encode() + b"\n")


def json_reply(body: bytes) -> Reply:
    """A reply whose body is JSON already."""
    return Reply(200, [("Content-Type", "application/json; charset=utf-8")], body)


def byte_range(header: str, size: int) -> tuple[int, int]:
    """First byte and end (exclusive) of a ``Range`` header; refuses what the server refuses."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    said = header.strip().removeprefix("bytes=")
    if found is None or not (found[1] or found[2]):
        raise Refused(416, f'read range "{said}" is invalid')
    if not found[1]:
        length = int(found[2])
        first, end = max(0, size - length), size
    else:
        first, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if found[2] and int(found[2]) < first:
            raise Refused(416, f'read range "{said}" is invalid (end)')
    if first >= size or first >= end:
        unsatisfied = [("Content-Range", f"bytes */{size}")]
        raise Refused(416, f"size={size}: not satisfiable range [{said}]", "ErrRangeNotSatisfiable", unsatisfied)
    return first, end
