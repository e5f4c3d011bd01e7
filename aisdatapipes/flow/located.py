"""Samples by their places, in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.decoded import Decode
from aisdatapipes.flow.locatedreads import Job, Reads, Wanted, data_of
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.recipes import Chosen
from aisdatapipes.flow.samples import Sample
from aisdatapipes.flow.selection import Selections
from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import AISPipeError
from aisdatapipes.order.permutation import Positions

_PLANNED = 256  # samples whose reads are planned at a time, where they come one behind the other


def located_samples(
    table: ShardTable,
    groups: Iterable[Positions],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    chosen: Chosen,
    tolerance: Tolerance = RAISE,
    *,
    together: bool = False,
    run_bytes: int = 0,
    share: float = 0.0,
    keep: bool = False,
    decode: Decode | None = None,
) -> Iterator[Sample]:
    """The samples at some positions of the table, in this order.

    Only the fields that are chosen are read. What lies close together in a shard is read by one request; what is small
    and far apart is picked out by the shard's target, where that pays (`flow.selection`). Neither has a checksum of its
    own, but ranges carry that of the whole shard: it has to be that of the shard that was indexed.

    Args:
        table: Where the samples are.
        groups: Positions in the table, some at a time.
        clusters: Where the shards are.
        plan: How many requests are under way, and how much is read ahead.
        meter: Counts.
        chosen: What a sample is made of.
        tolerance: Of errors.
        together: What lies close together in a group is read together, in whichever order it is; else what comes one
            behind the other.
        run_bytes: Of one request, about, at most; 0 for ``plan.range_bytes``.
        share: Of all samples, the part that ``groups`` are going to be; 0 where nobody knows.
        keep: ``groups`` go through the shards in no order.
        decode: Makes values of the contents.

    Memory: ``plan.window_bytes``; with ``together`` also what is read for a group.
    Raises: what ``tolerance`` does not bear, when the sample is reached: ``CorruptBody`` for a shard that was
        overwritten, ``ObjectNotFound`` and the like, ``CorruptShard`` for a field that is missing, what ``decode``
        raises.
    """
    selections = Selections(table, chosen, share, keep=keep)
    reads = Reads(table, clusters, run_bytes or plan.range_bytes, chosen, selections)
    some = groups if together else (group[at : at + _PLANNED] for group in groups for at in _starts(group))
    planned = (read for group in some for read in _given_up(reads.planned(group, together=together)))
    jobs = ordered(planned, plan.width, plan.window_bytes, meter)
    try:
        for job in jobs:
            if not job.take(table):
                for read in ordered(iter(reads.instead_of(job.run)), plan.width, plan.window_bytes, meter):
                    read.take(table)
            yield from _complete(reads.samples, job.run.number, meter, tolerance, decode)
        yield from _complete(reads.samples, None, meter, tolerance, decode)
    finally:
        jobs.close()


def _given_up(reads: list[Job]) -> Iterator[Job]:
    """The same; a list of them would keep what they have read until the last one is taken."""
    reads.reverse()
    while reads:
        yield reads.pop()


def _starts(group: Positions) -> range:
    return range(0, len(group), _PLANNED)


def _complete(
    samples: deque[Wanted], number: int | None, meter: Meter, tolerance: Tolerance, decode: Decode | None
) -> Iterator[Sample]:
    """The samples for which everything up to the read with this number is enough; None for all that are left."""
    while samples and (number is None or samples[0].last <= number):
        wanted = samples.popleft()
        error = wanted.error or next((run.error for run, _, _ in wanted.pieces if run.error is not None), None)
        if error is not None:
            tolerance.bear(error, meter)
        elif wanted.recipe is None:
            meter.skipped += 1
        else:
            pieces = wanted.pieces
            content = {name: b"" if read is None else data_of(pieces[read]) for name, read in wanted.recipe.made}
            try:
                values = content if decode is None else decode(wanted.shard, wanted.key, content)
            except AISPipeError as cause:
                tolerance.bear(cause, meter)
                continue
            meter.objects += 1
            meter.bytes += sum(map(len, content.values()))
            yield wanted.key, values
            del wanted, pieces, content, values  # nobody but the consumer has them
