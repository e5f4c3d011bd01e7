"""Reading one object, or a part of it, or a member of an archive: the job that windows carry.

The form of the request and of its answer is that of AIStore's object API (``docs/http_api.md``): ``provider``,
``namespace``, ``archpath`` and ``etl_name`` in the query; ``Ais-Checksum-Value`` is the xxh64 (seed 0) of the whole
object, also on the answer to a range.
"""

from __future__ import annotations

from urllib.parse import quote

import xxhash

from aisdatapipes.model.errors import CorruptBody, StoreError, Truncated
from aisdatapipes.model.url import AISURL, object_path
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.placement import uname


class Read(Exchange):
    """One read; when it has ended, ``data`` is there, or ``error``.

    Args:
        cluster: Where the object is.
        url: The object.
        span: (first byte, length); None for the whole object.
        member: Path of a member inside the object, which is then an archive.
        verify: Compare a whole object with the checksum that comes with it.
        last: False for a part that others of the same object follow.
    """

    __slots__ = ("checksum", "data", "last", "member", "span", "total", "url", "verify", "version")

    def __init__(
        self,
        cluster: Cluster,
        url: AISURL,
        *,
        span: tuple[int, int] | None = None,
        member: str = "",
        verify: bool = True,
        last: bool = True,
    ) -> None:
        self.url, self.span, self.member, self.verify, self.last = url, span, member, verify, last
        self.data = b""
        self.total = -1  # bytes of the whole object, where an answer told it
        self.version = ""  # changes when the object is overwritten
        self.checksum: str | None = None  # xxh64 of the whole object, where the cluster keeps one
        plain = not (url.etl_name or url.namespace or url.provider != "ais")
        owner = cluster.owner_of(uname(url.provider, url.namespace, url.bucket, url.name)) if plain else None
        super().__init__(cluster, url, _path(url, member), "cannot read", owner)
        if span is not None:
            self.byte_range = (span[0], span[0] + span[1] - 1)

    @property
    def cost(self) -> int:
        """Bytes that it will occupy; -1 when nobody knows."""
        if self.span is not None:
            return self.span[1]
        return -1 if self.member or self.url.etl_name else self.url.size

    @property
    def held(self) -> int:
        """Bytes that it occupies."""
        return len(self.data)

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the bytes are all there and the promised ones."""
        data = reply.body
        promised = reply.header("Ais-Checksum-Value")
        self.version = f"{promised}/{reply.header('Ais-Version')}"
        self.checksum = promised if reply.header("Ais-Checksum-Type") == "xxhash2" else None
        if self.span is not None:
            return self._accept_part(reply)
        if self.verify and self.checksum:
            found = xxhash.xxh64_hexdigest(data)
            if found != self.checksum:
                text = f"the content's xxh64 is {found}, the cluster promised {promised}"
                return CorruptBody(f"{self.what}: {text}", url=self.url, status=200, attempts=self.attempts)
        self.data, self.total = data, len(data)
        return None

    def _accept_part(self, reply: Reply) -> StoreError | None:
        assert self.span is not None  # noqa: S101 - only a read of a part comes here
        start, length = self.span
        data = reply.body
        if reply.status == 200:  # a server that does not do ranges here sends everything
            self.total, data = len(data), data[start : start + length]
        else:
            self.total = _total(reply)
        expected = min(length, self.total - start)
        if len(data) != expected:
            text = f"{len(data)} bytes of the {expected} asked for, from byte {start} on"
            return Truncated(f"{self.what}: {text}", url=self.url, status=reply.status, attempts=self.attempts)
        self.data = data
        return None


def _path(url: AISURL, member: str) -> str:
    parts = [f"provider={url.provider}"]
    if url.namespace:
        parts.append(f"namespace={quote(url.namespace, safe='')}")
    if member:
        parts.append(f"archpath={quote(member, safe='', errors='surrogateescape')}")
    if url.etl_name:
        parts.append(f"etl_name={quote(url.etl_name, safe='')}")
    return f"{object_path(url.bucket, url.name)}?{'&'.join(parts)}"


def _total(reply: Reply) -> int:
    """Bytes of the whole object by ``Content-Range: bytes 0-9/100``."""
    total = (reply.header("Content-Range") or "").rpartition("/")[2]
    return int(total) if total.isdecimal() else -1
