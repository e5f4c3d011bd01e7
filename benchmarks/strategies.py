"""Which request is fastest for which size of object?

The strategies of `FetchPlan` for objects of 1 KiB to 1 MiB, and for some of them with 20 ms added to every round trip
by a proxy of our own (`benchmarks.slow_network`): the thresholds of ``strategy="auto"`` in
`aisdatapipes.flow.requests` come from here. The listing is made before the clock starts.

    python -m benchmarks.strategies [--quick]
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import Report, Stored, asked, chosen, content_of, named
from benchmarks.slow_network import slow_network

KIB = (1, 4, 16, 32, 64, 128, 1024)
FAR_MS, FAR_KIB = 20, (32, 64, 128)
PLANS: dict[str, dict[str, Any]] = {
    "GET": {"strategy": "get"},
    "get-batch of 128": {"strategy": "batch", "batch_objects": 128},
    "get-batch of 512": {"strategy": "batch", "batch_objects": 512},
    "auto": {"strategy": "auto"},
}


def ours(stored: Stored, *, plan: dict[str, Any]) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset, FetchPlan

    dataset = AISIterDataset(bucket_of(stored.endpoint, stored.bucket), fetch=FetchPlan(**plan))
    len(dataset)
    return dataset


def main() -> int:
    options = asked(__doc__ or "")
    with cluster() as (endpoint, server):
        report = Report("strategies", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        for kib in KIB[::3] if options.quick else KIB:
            count = 40 if options.quick else max(200, min(5000, (100 << 10) // kib))
            with AISBucket.new(endpoint, "bench") as made:
                objects = [(name, filler(number, kib << 10)) for number, name in enumerate(named("train", count))]
                put_all(endpoint, made.name, objects)
                stored = Stored(endpoint, made.name, (), content_of(objects))
                report.measure(chosen(_contenders(f"{kib} KiB"), options), stored)
                if kib in FAR_KIB:
                    with slow_network(endpoint, delay=FAR_MS / 1e3) as far:
                        there = dataclasses.replace(stored, endpoint=far)
                        report.measure(chosen(_contenders(f"{kib} KiB, {FAR_MS} ms away"), options), there)
    return report.finish(keep=not options.only)


def _contenders(what: str) -> dict[str, Any]:
    return {f"{what}, {name}": functools.partial(ours, plan=plan) for name, plan in PLANS.items()}


if __name__ == "__main__":
    sys.exit(main())
