"""One cluster as this process knows it: its map, who owns what, and whether owners answer directly.

Placement is a guess that saves a hop, never the truth: an owner that does not have an object, does not listen or
does not talk to us sends the question to the endpoint, whose answer counts.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.mapread import MapRead
from aisdatapipes.store.transport import Reply, Transport
from aisdatapipes.wire.clustermap import ClusterMap
from aisdatapipes.wire.placement import owners, uname

REFRESH_PAUSE = 1.0  # seconds between two readings of the map: a burst of 404s is one piece of evidence


class Cluster:
    """What a process keeps of one cluster; there is one for each `ClientConfig` (`store.pool`).

    Attributes:
        answered: True once the endpoint has answered anything: then it exists, and patience pays.
        origins: ``scheme://host:port`` of every node; redirects lead nowhere else.
        latency_s: Seconds that the fastest answer took so far: a round trip, and what the cluster did; 0 before any.
        without_batches: True once the endpoint has told that it does not know get-batch.
        stale: True when something told that the map is out of date.
    """

    def __init__(self, config: ClientConfig, transport: Transport) -> None:
        self.config = config
        self.transport = transport
        self.answered = False
        self.origins: frozenset[str] = frozenset((config.endpoint,))
        self.latency_s = 0.0
        self.without_batches = False
        self.stale = False
        self._direct_allowed = True
        # Origins of the targets and their digests, as one value: a map may be read while others look.
        self._targets: tuple[tuple[str, ...], npt.NDArray[np.uint64]] = ((), np.zeros(0, np.uint64))
        self._opening: MapRead | None = None  # the first reading of the map
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []  # who wants to know when the map has been read
        self._read_at = -REFRESH_PAUSE

    def prepare(self) -> None:
        """Ask for the map, if it is not there, and do not wait: it comes while something else does."""
        with self._lock:
            failed = self._opening is not None and self._opening.error is not None
            if self._targets[0] or (self._opening is not None and not failed):
                return
            read = self._opening = MapRead(self)
        read.begin()

    def open(self) -> None:
        """Have the map, before the first read: the one request that waits for the cluster."""
        while not self._targets[0]:
            self.prepare()
            read = self._opening
            if read is None:
                continue  # another thread has just taken the map, or failed to
            try:
                read.result()
                self._take(read.map)
            finally:
                self._opening = None

    def owners_of(self, urls: Sequence[AISURL]) -> list[str | None]:
        """Origins of the targets that should have the objects, which are of this cluster; None: ask the endpoint.

        A page at a time, for a name costs less among many (`wire.placement.owners`).
        """
        origins, digests = self._targets
        if not self._direct_allowed or not origins or self.config.token:
            return [None] * len(urls)  # a cluster that asks for tokens refuses direct reads anyway
        if self.stale:
            self.refresh(lambda: None)
        found: list[str | None] = []
        for prefix, group in itertools.groupby(urls, _placed_by):
            names = [url.name for url in group]
            if prefix is None:
                found += [None] * len(names)
            else:
                found += [origins[i] for i in owners(prefix, names, digests).tolist()]
        return found

    def learn_latency(self, seconds: float) -> None:
        """An answer took so long. The fastest one counts: others waited for this machine or for the cluster."""
        if not 0 < self.latency_s <= seconds:
            self.latency_s = seconds

    def distrust_placement(self, reply: Reply) -> None:
        """A direct read failed with ``reply``: learn from it."""
        if reply.status in (401, 403):
            self._direct_allowed = False  # for good: AuthN or signed redirects
        else:
            self.stale = True

    def refresh(self, then: Callable[[], None]) -> None:
        """Read the map again, without waiting, and call ``then`` afterwards; many at once are one reading."""
        with self._lock:
            self._waiting.append(then)
            if len(self._waiting) > 1:
                return
            pause = max(0.0, self._read_at + REFRESH_PAUSE - time.monotonic())
        self.stale = False
        MapRead(self).start(self._refreshed, pause)

    def _refreshed(self, read: MapRead) -> None:
        if read.error is None:
            self._take(read.map)
        else:
            self.stale = True
        with self._lock:
            self._read_at = time.monotonic()
            waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def _take(self, smap: ClusterMap | None) -> None:
        assert smap is not None  # noqa: S101 - it was read without an error
        self.origins = smap.origins | {self.config.endpoint}
        usable = smap.usable_targets
        digests = np.array([node.digest for node in usable], np.uint64)
        self._targets = (tuple(node.url for node in usable), digests)


def _placed_by(url: AISURL) -> str | None:
    """What the owner of an object is computed from, but for its name; None where that is the endpoint's business.

    A target that is asked for an object of another provider or cluster fetches it from there, also where it is not
    the owner: with an outdated map that would leave copies in wrong places.
    """
    local = url.provider == "ais" and url.namespace[:2] in ("", "@#")
    return uname("ais", url.namespace, url.bucket, "") if local and not url.etl_name else None
