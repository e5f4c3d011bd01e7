"""One cluster as this process knows it: its map, who owns what, and whether owners answer directly.

Placement is a guess that saves a hop, never the truth: an owner that does not have an object, does not listen or
does not talk to us sends the question to the endpoint, whose answer counts.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.errors import Denied, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.mapread import MapRead
from aisdatapipes.store.membership import Membership
from aisdatapipes.store.proxies import Proxies
from aisdatapipes.store.transport import Reply, Transport
from aisdatapipes.wire.clustermap import ClusterMap
from aisdatapipes.wire.placement import owners, uname

log = logging.getLogger("aisdatapipes")

REFRESH_PAUSE = 1.0  # seconds between two readings of the map: a burst of 404s is one piece of evidence
# Seconds without get-batches after one that brought nothing. While targets come and go, AIStore 5.0 answers many of
# them with silence: each would cost `store.batch.SILENCE_S` once more.
BATCHES_REST_S = 60.0


class Cluster:
    """What a process keeps of one cluster; there is one for each `ClientConfig` (`store.pool`).

    Args:
        config: Where it is.
        transport: How it is asked.
        known: Ids of targets that were in it before.

    Attributes:
        answered: True once the endpoint has answered anything: then it exists, and patience pays.
        origins: ``scheme://host:port`` of every node; redirects lead nowhere else.
        latency_s: Seconds that the fastest answer took so far: a round trip, and what the cluster did; 0 before any.
        without_batches: True once the endpoint has told that it does not know get-batch.
        stale: True when something told that the map is out of date.
        proxies: Which of them is asked.
        membership: Which targets are here, and which are away.
        without_map: True where the token does not allow reading the map: AIStore's read-only role lacks
            ``SHOW-CLUSTER``. Then the endpoint's own redirects say who is of the cluster.
    """

    def __init__(self, config: ClientConfig, transport: Transport, known: frozenset[str] = frozenset()) -> None:
        self.config = config
        self.transport = transport
        self.answered = False
        self.origins: frozenset[str] = frozenset((config.endpoint,))
        self.latency_s = 0.0
        self.without_batches = False
        self.stale = False
        self.proxies = Proxies(config.endpoint)
        self.membership = Membership(known, patience_s=config.retry.deadline)
        self.without_map = False
        self._direct_allowed = True
        # Origins of the targets and their digests, as one value: a map may be read while others look.
        self._targets: tuple[tuple[str, ...], npt.NDArray[np.uint64]] = ((), np.zeros(0, np.uint64))
        self._opening: MapRead | None = None  # the first reading of the map
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []  # who wants to know when the map has been read
        self._read_at = -REFRESH_PAUSE
        self._told = False  # that targets have no TLS
        self._batches_from = 0.0  # when there may be get-batches again, on the monotonic clock

    @property
    def batches_rest(self) -> bool:
        """True while there shall be no get-batches."""
        return time.monotonic() < self._batches_from

    def rest_from_batches(self) -> None:
        """A get-batch brought nothing."""
        if not self.batches_rest:
            log.warning(
                "%s: a get-batch brought nothing: for %d s objects are read one by one",
                self.proxies.asked,
                BATCHES_REST_S,
            )
        self._batches_from = time.monotonic() + BATCHES_REST_S

    def prepare(self) -> None:
        """Ask for the map, if it is not there, and do not wait: it comes while something else does."""
        with self._lock:
            failed = self._opening is not None and self._opening.error is not None
            if self._targets[0] or self.without_map or (self._opening is not None and not failed):
                return
            read = self._opening = MapRead(self)
        read.begin()

    def open(self) -> None:
        """Have the map, before the first read: the one request that waits for the cluster."""
        while not (self._targets[0] or self.without_map):
            self.prepare()
            read = self._opening
            if read is None:
                continue  # another thread has just taken the map, or failed to
            try:
                read.result()
                self._take(read.map)
            except Denied as error:
                if not self._goes_without_map(error):
                    raise
            finally:
                self._opening = None

    def owners_of(self, urls: Sequence[AISURL]) -> list[str | None]:
        """Origins of the targets that should have the objects, which are of this cluster; None: ask the endpoint.

        A page at a time, for a name costs less among many (`wire.placement.owners`).
        """
        origins, digests = self._targets
        if not self._direct_allowed or not origins or self.config.has_token:
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

    def came_or_went_since(self, began_at: float) -> bool:
        """Whether a target did since this time, on the monotonic clock; reads the map, and waits for it.

        False where nobody knows: a map that cannot be read is an error of those who need it.
        """
        try:
            self.open()
        except StoreError:
            return False
        read = threading.Event()
        self.refresh(read.set, 0.0)
        read.wait()
        return self.membership.may_have_it(began_at)

    def refresh(self, then: Callable[[], None], pause_s: float = REFRESH_PAUSE) -> None:
        """Read the map again, without waiting, and call ``then`` afterwards; many at once are one reading.

        ``pause_s`` are the seconds since the last reading, at least.
        """
        with self._lock:
            self._waiting.append(then)
            if len(self._waiting) > 1:
                return
            pause = max(0.0, self._read_at + pause_s - time.monotonic())
        self.stale = False
        MapRead(self).start(self._refreshed, pause)

    def _refreshed(self, read: MapRead) -> None:
        if read.error is None:
            self._take(read.map)
        elif not self._goes_without_map(read.error):
            self.stale = True
        with self._lock:
            self._read_at = time.monotonic()
            waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def _goes_without_map(self, error: StoreError) -> bool:
        """Whether it is the map only that we may not have; with a token it decides nothing but where redirects lead."""
        if error.status == 403 and self.config.has_token:
            self.without_map = True
            log.info("%s: the token does not allow reading the cluster map, which is no harm", self.config.endpoint)
        return self.without_map

    def _take(self, smap: ClusterMap | None) -> None:
        assert smap is not None  # noqa: S101 - it was read without an error
        self.origins = smap.origins | {self.config.endpoint}
        self.membership.note(node.id for node in smap.targets)
        if not self.config.has_token:  # that is for the endpoint only
            self.proxies.know(node.url for node in smap.proxies)
        usable = smap.usable_targets
        if self.config.endpoint.startswith("https:") and not self._told and any(_is_plain(one.url) for one in usable):
            self._told = True
            log.warning(
                "%s: its map has targets without TLS: what is read travels in clear, though the endpoint's does not",
                self.config.endpoint,
            )
        digests = np.array([node.digest for node in usable], np.uint64)
        self._targets = (tuple(node.url for node in usable), digests)


def _is_plain(url: str) -> bool:
    return url.startswith("http:")


def _placed_by(url: AISURL) -> str | None:
    """What the owner of an object is computed from, but for its name; None where that is the endpoint's business.

    A target that is asked for an object of another provider or cluster fetches it from there, also where it is not
    the owner: with an outdated map that would leave copies in wrong places.
    """
    local = url.provider == "ais" and url.namespace[:2] in ("", "@#")
    return uname("ais", url.namespace, url.bucket, "") if local and not url.etl_name else None
