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


class Read(Exchange):
    """One read; when it has ended, ``data`` is there, or ``error``.

    A body that breaks off is resumed where it broke, if it is still the same version of the object.

    Args:
        cluster: Where the object is.
        url: The object.
        owner: Origin of the target that should have it (`Cluster.owners_of`); None asks the endpoint.
        span: (first byte, length); None for the whole object.
        member: Path of a member inside the object, which is then an archive.
        verify: Compare a whole object with the checksum that comes with it.
        last: False for a part that others of the same object follow.
    """

    __slots__ = (
        "_kept",
        "_kept_version",
        "checksum",
        "data",
        "last",
        "member",
        "span",
        "total",
        "url",
        "verify",
        "version",
    )

    last_index = 0  # of its contents

    def __init__(
        self,
        cluster: Cluster,
        url: AISURL,
        owner: str | None = None,
        *,
        span: tuple[int, int] | None = None,
        member: str = "",
        verify: bool = True,
        last: bool = True,
    ) -> None:
        super().__init__(cluster, url, path_of(url, member), "cannot read", owner)
        self.url, self.span, self.member, self.verify, self.last = url, span, member, verify, last
        self.data = b""
        self.total = -1  # bytes of the whole object, where an answer told it
        self.version = ""  # changes when the object is overwritten
        self.checksum: str | None = None  # xxh64 of the whole object, where the cluster keeps one
        self._kept = b""  # the beginning of a body that broke off
        self._kept_version = ""
        if span is not None:
            self.byte_range = (span[0], span[0] + span[1] - 1)

    def content(self, _index: int = 0) -> bytes | None:
        """The bytes, once it has ended; None where there is an error."""
        return self.data if self.error is None else None

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

    def keep(self, reply: Reply) -> None:
        """Keep what came of a body that broke off, and ask for the rest in the next try."""
        version = version_of(reply)
        complete_from_here = reply.status == (206 if self._kept or self.span is not None else 200)
        if self.member or self.url.etl_name or not version or not complete_from_here:
            return
        if self._kept and version != self._kept_version:
            self._ask_anew()
            return
        self._kept, self._kept_version = self._kept + reply.body, version
        first, last = self._range()
        self.byte_range = (first + len(self._kept), last)

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the bytes are all there and the promised ones."""
        body = reply.body
        self.version = version_of(reply)
        self.checksum = checksum_of(reply)
        if self._kept:
            if self.version != self._kept_version or reply.status != 206:
                self._ask_anew()
                return self._corrupt(reply, "it was overwritten while it was read")
            body = self._kept + body
        if self.span is not None:
            return self._accept_part(reply, body)
        if self.verify and self.checksum:
            found = xxhash.xxh64_hexdigest(body)
            if found != self.checksum:
                self._ask_anew()
                return self._corrupt(reply, f"the content's xxh64 is {found}, the cluster promised {self.checksum}")
        self.data, self.total = body, len(body)
        return None

    def _accept_part(self, reply: Reply, body: bytes) -> StoreError | None:
        assert self.span is not None  # noqa: S101 - only a read of a part comes here
        start, length = self.span
        if reply.status == 200:  # a server that does not do ranges here sends everything
            self.total, body = len(body), body[start : start + length]
        else:
            self.total = total_of(reply)
        expected = min(length, self.total - start)
        if len(body) != expected:
            self._ask_anew()
            text = f"{len(body)} bytes of the {expected} asked for, from byte {start} on"
            return Truncated(f"{self.what}: {text}", url=self.url, status=reply.status, attempts=self.attempts)
        self.data = body
        return None

    def _refused(self, reply: Reply) -> None:
        if reply.status == 416 and self._kept:  # there is nothing behind what was kept: the first answer was wrong
            self._ask_anew()
            self._again(self._corrupt(reply, "it ends before its promised length"), reply)
        else:
            super()._refused(reply)

    def _range(self) -> tuple[int, int | None]:
        """First and last byte that are wanted."""
        return (0, None) if self.span is None else (self.span[0], self.span[0] + self.span[1] - 1)

    def _ask_anew(self) -> None:
        """Of what was kept nothing counts: the next try asks for everything."""
        self._kept, self._kept_version = b"", ""
        self.byte_range = None if self.span is None else self._range()

    def _corrupt(self, reply: Reply, text: str) -> CorruptBody:
        return CorruptBody(f"{self.what}: {text}", url=self.url, status=reply.status, attempts=self.attempts)


def version_of(reply: Reply) -> str:
    """What tells two versions of an object apart; empty where the cluster tells nothing."""
    checksum, number = reply.header("Ais-Checksum-Value"), reply.header("Ais-Version")
    return f"{checksum}/{number}" if checksum or number else ""


def checksum_of(reply: Reply) -> str | None:
    """xxh64 of the whole object; None where the cluster keeps another digest or none."""
    return reply.header("Ais-Checksum-Value") if reply.header("Ais-Checksum-Type") == "xxhash2" else None


def path_of(url: AISURL, member: str = "") -> str:
    """Path and query of an object, or of a member of it."""
    parts = [f"provider={url.provider}"]
    if url.namespace:
        parts.append(f"namespace={quote(url.namespace, safe='')}")
    if member:
        parts.append(f"archpath={quote(member, safe='', errors='surrogateescape')}")
    if url.etl_name:
        parts.append(f"etl_name={quote(url.etl_name, safe='')}")
    return f"{object_path(url.bucket, url.name)}?{'&'.join(parts)}"


def total_of(reply: Reply) -> int:
    """Bytes of the whole object by ``Content-Range: bytes 0-9/100``."""
    total = (reply.header("Content-Range") or "").rpartition("/")[2]
    return int(total) if total.isdecimal() else -1
