"""Objects: from URLs to contents, in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.requests import FetchJob, Requests
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.flow.window import Window, ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.batch import BatchForm, BatchRead
from aisdatapipes.store.read import Read, taken_alone


def fetched(
    urls: Iterable[AISURL],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    tolerance: Tolerance = RAISE,
    form: BatchForm | None = None,
    *,
    as_views: bool = False,
) -> Iterator[tuple[AISURL, Any]]:
    """Each URL with the content of its object, in the order of the URLs, by the strategy of the plan.

    Args:
        urls: A list is planned as a whole; anything else is read ahead.
        clusters: Where the objects are.
        plan: How they are fetched.
        meter: Counts.
        tolerance: Which errors are borne.
        form: Of the answers of get-batch.
        as_views: Large objects, that are read in parts, as memoryviews; else all contents are bytes.

    Raises: what ``tolerance`` does not bear, when the object is reached and not before.
    """
    requests = Requests(urls, clusters, plan, meter, form, as_views=as_views)
    window = Window(requests, plan.width, plan.window_bytes, meter, first_at_once=not isinstance(urls, list))
    otherwise = _Otherwise(plan, meter, tolerance)
    taken: set[FetchJob] = set()
    try:
        for run in window.runs():
            taken.update(run)
            run.clear()
            # The job of the first place is the next one of the window, if it has not been taken yet.
            while requests.places and requests.places[0].job in taken:
                url, job, index = requests.places.popleft()
                data = job.content(index)
                if data is None:
                    data = otherwise.content(job, index)
                if data is not None:
                    meter.objects += 1
                    meter.bytes += len(data)
                    yield url, data
                if index == job.last_index:
                    taken.discard(job)
                    otherwise.done_with(job)
                    window.release(job)
                del job, data  # while the next one is waited for nobody but the consumer has them
    finally:
        otherwise.close()
        window.cancel()


class _Otherwise:
    """What becomes of an object whose job has no content for it."""

    def __init__(self, plan: FetchPlan, meter: Meter, tolerance: Tolerance) -> None:
        self._plan, self._meter, self._tolerance = plan, meter, tolerance
        self._reads: dict[BatchRead, Generator[Read, None, None]] = {}

    def content(self, job: FetchJob, index: int) -> bytes | memoryview | None:
        """The content after all; None where an error is borne.

        What a batch lacks is asked for object by object: the answer to that decides.
        """
        if isinstance(job, BatchRead):
            if job not in self._reads:
                self._reads[job] = self._begun(job, index)
            job = next(self._reads[job])
        if isinstance(job, Read):
            job = taken_alone(job)
        if job.error is None:
            return job.content()
        self._tolerance.bear(job.error, self._meter)
        return None

    def _begun(self, batch: BatchRead, index: int) -> Generator[Read, None, None]:
        cluster, plan = batch.cluster, self._plan
        lacking = batch.lacking(index)
        if batch.unknown_to_the_server:
            self._check_strategy(batch)
            cluster.without_batches = True
            self._meter.fallbacks += len(lacking)
        reads = (
            Read(cluster, url, owner, verify=plan.verify)
            for url, owner in zip(lacking, cluster.owners_of(lacking), strict=True)
        )
        return ordered(reads, plan.width, plan.window_bytes, self._meter)

    def _check_strategy(self, batch: BatchRead) -> None:
        if self._plan.strategy == "batch":
            text = "this cluster has no get-batch (AIStore 4.0 and later have); use FetchPlan(strategy='get')"
            status = batch.error.status if batch.error else None
            raise StoreError(text, url=batch.cluster.config.endpoint, status=status, attempts=batch.attempts)

    def done_with(self, job: FetchJob) -> None:
        """Forget a job whose last content was asked for."""
        if isinstance(job, BatchRead) and job in self._reads:
            self._reads.pop(job).close()

    def close(self) -> None:
        """Stop what is under way."""
        for reads in self._reads.values():
            reads.close()
