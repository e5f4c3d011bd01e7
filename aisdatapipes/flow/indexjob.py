"""Having a bucket's shards indexed by the cluster, and waiting for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aisdatapipes.model.errors import NotFound, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import PageRead, PageTurns
from aisdatapipes.store.shardindex import IndexJob, JobRead
from aisdatapipes.wire.listing import CHUNKED, BriefPage, ListOptions

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

    Raises: ``Denied``, ``BucketNotFound``, ``StoreError`` where the cluster does not do it, where it would spoil a tar,
        or the job is stopped. It takes as long as the cluster says that the job runs.
    """
    _check_chunks(cluster, shard, on_step)
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


def _check_chunks(cluster: Cluster, shard: AISURL, on_step: OnStep | None) -> None:
    """Raise where the job would spoil a tar of the bucket: one that is stored in chunks.

    AIStore 5.0 notes in the metadata of each tar that it has an index, and forgets there that it lies in chunks
    (``SaveShardIndex`` in its ``core/shard_idx.go``): from then on nobody can read it.
    """
    page, turns, seen = BriefPage(), PageTurns(), 0
    while True:
        # Without "cached" a cloud alone would answer for its bucket, and it knows of no chunks.
        read = PageRead(cluster, shard, ListOptions(token=page.token, uuid=page.uuid, props="name,size,cached"))
        read.wait()
        page, entries = read.page, read.entries()
        spoiled = next((one.name for one in entries if one.flags & CHUNKED and one.name.endswith(".tar")), None)
        if spoiled is not None:
            text = (
                "it is stored in chunks (a multipart upload, or larger than the bucket's chunks.objsize_limit), and "
                "AIStore 5.0, asked to index its bucket, would make it unreadable; use index='client'"
            )
            raise StoreError(text, url=f"{read.subject.rstrip('/')}/{spoiled}", attempts=read.attempts)
        endless = turns.error(read, len(entries))
        if endless is not None:
            raise endless
        if not page.token:
            return
        seen += len(entries)
        if on_step is not None:
            on_step(f"{read.subject}: looked for tars in chunks, objects", seen, 0)
