"""How long does `len` of shards take, in a process that has not talked to the cluster before?

8 shards of 500 samples, which the cluster has indexed. What was asked of the cluster is counted: nothing of the shards
is to be read but their ends, which tell whether they are still what was indexed.

    python -m benchmarks.length [--quick]
"""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

from benchmarks.cluster import bucket_of
from benchmarks.measure import Content, Limit, Measurement, Report, Stored, asked, chosen, cpu_seconds
from benchmarks.shards import filled

SECONDS, REQUESTS, READ = "seconds", "requests", "bytes of samples read"
INDEXED, LISTED = (
    "aisdatapipes len(AISShardReader), by the server's index",
    "aisdatapipes len(AISShardReader(index='off'))",
)


def ours(stored: Stored, *, index: Any) -> Any:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), index=index)


def length(contender: Any, stored: Stored) -> Measurement:
    """One `len`."""
    dataset = contender(stored)
    cpu, began = cpu_seconds(), time.perf_counter()
    count = len(dataset)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    stats = dataset.stats()
    more = {SECONDS: seconds, REQUESTS: float(stats["requests"]), READ: float(stats["bytes"])}
    return Measurement(Content(count, 0, 0), seconds, cpu, 0, more)


def main() -> int:
    options = asked(__doc__ or "")
    shards, count = (2, 50) if options.quick else (8, 500)
    with filled(shards, count) as (stored, server):
        there = Stored(stored.endpoint, stored.bucket, stored.names, Content(shards * count, 0, 0))
        report = Report("length", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        contenders = {INDEXED: functools.partial(ours, index="auto"), LISTED: functools.partial(ours, index="off")}
        report.measure(chosen(contenders, options), there, length)
    report.check(Limit(INDEXED, SECONDS, 0.5), Limit(INDEXED, READ, 0))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
