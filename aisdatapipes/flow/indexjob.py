"""Having a bucket's shards indexed by the cluster, and waiting for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aisdatapipes.model.errors import NotFound, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.shardindex import IndexJob, JobRead

log = logging.getLogger("aisdatapipes")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks at the job
_PATIENCE = 10.0  # seconds in which a job that has just begun may be unknown

# Is told now and then what is being done, how much of it is done, and of how much (0 where nobody knows).
OnStep = Callable[[str, int, int], None]


def indexed_by_server(cluster: Cluster, shard: AISURL, on_step: OnStep | None = None) -> None:
    """Have all tars of the shard's bucket indexed; returns when it is done.

    Args:
        cluster: Where the bucket is.
        shard: Any object of the bucket.
        on_step: Told now and then for how many seconds the job has been running.

    A tar that the cluster cannot index does not keep the others from their indexes: it is warned of.

    Raises: ``Denied``, ``BucketNotFound``, ``StoreError`` where the cluster does not do it, or the job is stopped. It
        takes as long as the cluster says that the job runs.
    """
    start = IndexJob(cluster, shard)
    start.wait()
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        status = JobRead(cluster, start.subject, start.job)
        try:
            status.wait()
        except NotFound:  # no target has heard of it yet
            if time.monotonic() - began > _PATIENCE:
                raise
        if status.over:
            break
        if on_step is not None:
            on_step(f"{start.subject}: the cluster indexes it, seconds", int(time.monotonic() - began), 0)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    if status.stopped:
        text = (
            f"the cluster's job {start.job}, which indexes its shards, was stopped: {status.failure or 'by somebody'}"
        )
        raise StoreError(f"{text}; start again, or use index='client'", url=start.subject, attempts=1)
    if status.failure:
        log.warning("%s: not all of its shards could be indexed: %s", start.subject, status.failure)
