"""Members of a shard that its target picks out, in one answer.

The GET of an archive with ``archmode=regexp`` and ``archregx`` (AIStore's ``docs/archive.md``) has its target walk the
headers, and gives a tar of the members whose names match. That tar tells neither version nor checksum of the shard,
and nothing promises that it is complete: so the shard's first byte is asked for behind it, with which both come, and
whoever takes the tar compares it with what must be in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from aisdatapipes.model.errors import StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.store.read import path_of

_WEIGHT = 8  # of the width: a target works at one for as long as at some hundred plain GETs


class Selection:
    """A selection out of one shard; a job of a window.

    Args:
        cluster: Where the shard is.
        url: The shard.
        owner: As in `store.read.Read`.
        pattern: What the whole names of members must match: a regular expression (RE2).
        cost: Bytes of the tar, about.

    Attributes:
        archive: The tar, once it has ended; None where none came, for whatever reason: then they are to be read in
            another way, which tells the reason.
        part: The shard's first byte, read behind it.
    """

    early = False
    weight = _WEIGHT
    waited_s = 0.0
    outgrown = False
    room = -1
    error: StoreError | None = None

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None, pattern: str, cost: int) -> None:
        self.cost = cost
        self.attempts = self.retries = 0
        self.archive: bytes | None = None
        self.part = PartInPieces(cluster, url, owner, 0, 1)
        self._read = _Tar(cluster, url, owner, pattern, cost)
        self._lock = threading.RLock()  # the collector may cancel this while it is held
        self._under_way: Exchange | None = None
        self._cancelled = False

    @property
    def held(self) -> int:
        """Bytes that it occupies."""
        return len(self.archive or b"")

    def start(self, done: Callable[[Any], None]) -> None:
        """Begin; ``done`` is called once."""
        self._done = done
        self._go_on(self._read, self._picked)

    def cancel(self) -> None:
        """Stop; idempotent."""
        with self._lock:
            self._cancelled, under_way = True, self._under_way
        if under_way is not None:
            under_way.cancel()

    # ---- on the transport's thread

    def _go_on(self, exchange: Exchange, then: Callable[[Any], None]) -> None:
        with self._lock:
            self._under_way = exchange
            cancelled = self._cancelled
        if not cancelled:
            exchange.start(then)

    def _picked(self, read: _Tar) -> None:
        self._count(read)
        if read.reply is None:
            self._done(self)
        else:
            self.archive = read.reply.body
            self._go_on(self.part, self._told)

    def _told(self, part: PartInPieces) -> None:
        self._count(part)
        self._done(self)

    def _count(self, exchange: Exchange) -> None:
        self.attempts += exchange.attempts
        self.retries += exchange.retries


class _Tar(Exchange):
    """A tar of some members of a shard; asked for once: whatever is the matter, there is another way."""

    __slots__ = ("_most_bytes",)

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None, pattern: str, cost: int) -> None:
        path = f"{path_of(url)}&archmode=regexp&archregx={quote(pattern, safe='')}"
        super().__init__(cluster, url, path, "cannot read members of it", owner)
        self.attempts_at_most = 1
        self._most_bytes = 4 * cost  # long names take headers of their own

    @property
    def most_bytes(self) -> int:
        """A few times what it should have; a server that knows no such selection sends all of the shard."""
        return self._most_bytes
