"""Objects by get-batch: several requests under way, what an answer lacks read again by GET."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.gets import got
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import BucketNotFound, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.batch import BatchForm, BatchRead
from aisdatapipes.store.read import Read

# The cluster holds the end of each answer back for about 100 ms: alone, a batch takes that long whatever its size.
# So what counts is objects under way, and small batches need more company (benchmarks/objects.py).
BATCHES_AT_ONCE = 4
MOST_BATCHES_AT_ONCE = 16
OBJECTS_AT_ONCE = 1024


def batched(
    urls: Iterable[AISURL],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    tolerance: Tolerance,
    form: BatchForm | None = None,
) -> Iterator[tuple[AISURL, bytes]]:
    """Each URL with its content, in order, ``plan.batch_objects`` to a request.

    Raises: ``StoreError`` at once where the cluster has no get-batch, else as `flow.fetch.fetched`.
    """
    for fits, group in itertools.groupby(urls, _fits):
        if fits:
            yield from _by_batch(group, clusters, plan, meter, tolerance, form or BatchForm())
        else:
            yield from got(group, clusters, plan, meter, tolerance)


def _fits(url: AISURL) -> bool:
    """False for what a get-batch cannot ask for: an ETL's answer, or a name that is no UTF-8."""
    try:
        url.name.encode()
    except UnicodeEncodeError:
        return False
    return not url.etl_name


def _by_batch(
    urls: Iterator[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter, tolerance: Tolerance, form: BatchForm
) -> Iterator[tuple[AISURL, bytes]]:
    jobs = _jobs(urls, clusters, plan, form)
    at_once = max(BATCHES_AT_ONCE, min(MOST_BATCHES_AT_ONCE, plan.width, OBJECTS_AT_ONCE // plan.batch_objects))
    for job in ordered(jobs, at_once, plan.window_bytes, meter):
        _check(job)
        lacking = [url for url, data in zip(job.urls, job.contents, strict=True) if data is None]
        again = ordered(
            (Read(job.cluster, url, verify=plan.verify) for url in lacking), plan.width, plan.window_bytes, meter
        )
        for url, content in zip(job.urls, job.contents, strict=True):
            data = content
            if data is None:
                read = next(again)
                if read.error is not None:
                    tolerance.bear(read.error, meter)
                    continue
                data = read.data
            meter.objects += 1
            meter.bytes += len(data)
            yield url, data


def _check(job: BatchRead) -> None:
    """Raise what no GET could mend; a batch that failed otherwise is read object by object."""
    if isinstance(job.error, BucketNotFound):
        raise job.error
    if job.unknown_to_the_server:
        text = "this cluster has no get-batch (AIStore 4.0 and later have); use FetchPlan(strategy='get')"
        status = job.error.status if job.error else None
        raise StoreError(text, url=job.cluster.config.endpoint, status=status, attempts=job.attempts)


def _jobs(urls: Iterator[AISURL], clusters: Clusters, plan: FetchPlan, form: BatchForm) -> Iterator[BatchRead]:
    for cluster, group in itertools.groupby(urls, clusters.of):
        while some := list(itertools.islice(group, plan.batch_objects)):
            yield BatchRead(cluster, some, form)
