"""What is left of the rate when the network has latency?

Objects of 4 KiB, with 0, 1, 5 and 20 ms added to every round trip by a proxy of our own (`benchmarks.slow_network`),
which takes its CPU from the same cores. "get" reads object by object.

    python -m benchmarks.latency [--quick]
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import Limit, Report, Stored, asked, chosen, content_of, named
from benchmarks.slow_network import slow_network

SIZE, DELAYS_MS = 4 << 10, (0, 1, 5, 20)
RATE = "samples/s"


def ours(stored: Stored, *, plan: dict[str, Any]) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset, FetchPlan

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket), fetch=FetchPlan(**plan))


def theirs(stored: Stored) -> Iterable[Any]:
    from aistore.pytorch import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


CONTENDERS = {
    "aisdatapipes": functools.partial(ours, plan={}),
    "aisdatapipes, get, width 64": functools.partial(ours, plan={"strategy": "get"}),
    "aisdatapipes, get, width 256": functools.partial(ours, plan={"strategy": "get", "width": 256}),
}
RIVALS = {"aistore.pytorch": theirs}


def main() -> int:
    options = asked(__doc__ or "")
    count, few = (100, 20) if options.quick else (5000, 500)
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    delays = DELAYS_MS[2:3] if options.quick else DELAYS_MS
    with (
        cluster() as (endpoint, server),
        AISBucket.new(endpoint, "bench") as made,
        AISBucket.new(endpoint, "few") as fewer,
    ):
        put_all(endpoint, made.name, objects)
        put_all(endpoint, fewer.name, objects[:few])  # one by one, the rival takes a minute for all of them
        report = Report("latency", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        for delay in delays:
            with slow_network(endpoint, delay=delay / 1e3) as slow:
                stored = Stored(slow, made.name, (), content_of(objects))
                some = dataclasses.replace(stored, bucket=fewer.name, content=content_of(objects[:few]))
                ours_here = {f"{delay} ms, {name}": contender for name, contender in CONTENDERS.items()}
                theirs_here = {f"{delay} ms, {name}": contender for name, contender in RIVALS.items()}
                report.measure(chosen(ours_here, options), stored)
                report.measure(chosen(theirs_here, options), some)
    report.check(Limit("5 ms, aisdatapipes", RATE, 8000, least=True))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
