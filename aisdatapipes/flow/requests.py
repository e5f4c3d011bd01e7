"""Which request brings which object: one GET, parts of a large one, or a get-batch of many small ones.

URLs are looked at in groups, so that small objects come together into batches also where larger ones stand between
them; the requests begin in the order of their first objects, and the objects keep their order (`places`). The first
group is small, so that the first sample is there after a GET or two; each further one is twice as large.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.batch import BatchForm, BatchRead
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.large import LargeRead
from aisdatapipes.store.read import Read

FetchJob: TypeAlias = "Read | LargeRead | BatchRead"

# What "auto" does (benchmarks/strategies.py has the measurements).
# Up to this size get-batch is faster than GET, and from this many objects in a group on.
BATCH_BYTES_EACH = 16 << 10
# Of a cluster that is far away GETs get fewer done: no more than the width in each round trip.
FAR_S = 0.01
BATCH_BYTES_EACH_FAR = 64 << 10
FEWEST_FOR_A_BATCH = 32
# A pass over a list has nothing behind it that a batch could be overlapped with: its time counts in full.
FEWEST_IN_A_PASS = 256
# Above this size parts of an object are faster than one GET, and bound what a broken answer costs.
WHOLE_BYTES = 8 << 20

FIRST_GROUP = 2  # objects
PATIENCE_S = 0.02  # a source of URLs that is slower than that gets smaller groups
# Bytes of one batch, as a share of the window: several are to be under way.
BATCH_SHARE = 8
# A batch takes the cluster some time however small it is: what counts is objects under way.
BATCHES_AT_ONCE = 4
MOST_BATCHES_AT_ONCE = 16
OBJECTS_AT_ONCE = 1024


class Place(NamedTuple):
    """Where the content of an object will be: in which job, and as which of its contents."""

    url: AISURL
    job: FetchJob
    which: int


class Requests(Iterator[FetchJob]):
    """The jobs that bring some objects; `places` tells, in the order of the URLs, which one brings what.

    Args:
        urls: The objects; a list is looked at as a whole, anything else in groups.
        clusters: Where they are.
        plan: How they are fetched.
        form: Of the answers of get-batch.
        as_views: Large objects as memoryviews instead of bytes.
        meter: Counts the objects that "auto" would have read by get-batch where the cluster has none.
    """

    def __init__(
        self,
        urls: Iterable[AISURL],
        clusters: Clusters,
        plan: FetchPlan,
        meter: Meter,
        form: BatchForm | None = None,
        *,
        as_views: bool = False,
    ) -> None:
        self.places: deque[Place] = deque()
        self._urls, self._clusters, self._plan, self._meter = iter(urls), clusters, plan, meter
        self._form, self._as_views = form or BatchForm(), as_views
        self._ready: deque[FetchJob] = deque()
        self._most = max(plan.width, plan.batch_objects)
        one_pass = isinstance(urls, list)
        self._group = self._most if one_pass else min(FIRST_GROUP, self._most)
        self._fewest = FEWEST_IN_A_PASS if one_pass else FEWEST_FOR_A_BATCH
        at_once = max(BATCHES_AT_ONCE, min(MOST_BATCHES_AT_ONCE, OBJECTS_AT_ONCE // plan.batch_objects))
        self._batch_weight = max(1, plan.width // at_once)
        self._failed: Exception | None = None

    def __next__(self) -> FetchJob:
        if not self._ready:
            self._plan_group(self._next_group())
        return self._ready.popleft()

    def _next_group(self) -> list[AISURL]:
        """The next URLs, at least one; what their source raises comes after those that it gave before."""
        if self._failed is not None:
            raise self._failed
        group: list[AISURL] = []
        try:
            end = time.monotonic() + PATIENCE_S
            for url in itertools.islice(self._urls, self._group):
                group.append(url)
                if time.monotonic() > end:
                    break
        except Exception as error:
            if not group:
                raise
            self._failed = error
        if not group:
            raise StopIteration
        self._group = min(2 * self._group, self._most)
        return group

    def _plan_group(self, group: list[AISURL]) -> None:
        for cluster, run in itertools.groupby(group, self._clusters.of):
            urls = list(run)
            by_batch = self._by_batch(cluster, urls)
            owners = iter(cluster.owners_of([url for url, batch in zip(urls, by_batch, strict=True) if not batch]))
            open_batch: BatchRead | None = None
            for url, batch in zip(urls, by_batch, strict=True):
                if batch:
                    if open_batch is None or self._is_full(open_batch, url):
                        open_batch = BatchRead(cluster, self._form, self._batch_weight)
                        self._ready.append(open_batch)
                    self.places.append(Place(url, open_batch, open_batch.add(url)))
                else:
                    job = self._alone(cluster, url, next(owners))
                    self._ready.append(job)
                    self.places.append(Place(url, job, 0))

    def _by_batch(self, cluster: Cluster, urls: list[AISURL]) -> list[bool]:
        """For each object whether get-batch brings it."""
        strategy = self._plan.strategy
        if strategy == "batch" and not cluster.batches_rest:
            return [_can_be_named(url) for url in urls]
        if strategy != "auto":
            return [False] * len(urls)
        largest = BATCH_BYTES_EACH_FAR if cluster.latency_s > FAR_S else BATCH_BYTES_EACH
        small = [0 <= url.size <= largest and url.provider == "ais" and _can_be_named(url) for url in urls]
        few = sum(small) < self._fewest or cluster.batches_rest
        if not few and cluster.without_batches:
            self._meter.fallbacks += sum(small)
        return [False] * len(urls) if few or cluster.without_batches else small

    def _is_full(self, batch: BatchRead, url: AISURL) -> bool:
        most = self._plan.window_bytes // BATCH_SHARE
        return len(batch.urls) >= self._plan.batch_objects or max(0, batch.cost) + max(0, url.size) > most

    def _alone(self, cluster: Cluster, url: AISURL, owner: str | None) -> Read | LargeRead:
        plan = self._plan
        part_bytes = _part_bytes(url, plan)
        if not part_bytes:
            return Read(cluster, url, owner, verify=plan.verify)
        return LargeRead(
            cluster, url, owner,
            part_bytes=part_bytes, width=plan.width, verify=plan.verify, as_view=self._as_views,
        )  # fmt: skip


def _can_be_named(url: AISURL) -> bool:
    """False for what a get-batch cannot ask for: an ETL's answer, or a name that is no UTF-8."""
    try:
        url.name.encode()
    except UnicodeEncodeError:
        return False
    return not url.etl_name


def _part_bytes(url: AISURL, plan: FetchPlan) -> int:
    """Bytes of the parts in which an object is read; 0 for no parts.

    What is large and not wanted in parts is one part: so it arrives in its place, and is not in memory twice.
    """
    if url.size <= 0 or url.etl_name:  # an ETL answers as a whole
        return 0
    if plan.strategy == "ranges":
        return plan.range_bytes if url.size > plan.range_bytes else 0
    if plan.strategy == "auto" and url.size > max(WHOLE_BYTES, plan.range_bytes):
        return plan.range_bytes
    return url.size if url.size > WHOLE_BYTES else 0
