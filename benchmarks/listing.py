"""What does a listing of 100,000 objects cost?

Seconds to make an AISMapDataset of a bucket, and what an object then costs in the memory of the process (growth of
the resident size, divided by the objects) and in every pickle that a spawned worker gets. Names have 30 characters.
The names are compared after the clock has stopped.

    python -m benchmarks.listing [--quick]
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, put_all
from benchmarks.measure import (
    Limit,
    Measurement,
    Report,
    Stored,
    Target,
    asked,
    chosen,
    content_of,
    cpu_seconds,
    resident_bytes,
    settled_bytes,
)

HELD, PICKLED = "held bytes/object", "pickled bytes/object"


def ours() -> Any:
    from aisdatapipes import AISMapDataset

    return AISMapDataset


def theirs() -> Any:
    from aistore.pytorch import AISMapDataset

    return AISMapDataset


def listed(contender: Callable[[], Any], stored: Stored) -> Measurement:
    """One dataset, made and weighed."""
    make = contender()
    source = bucket_of(stored.endpoint, stored.bucket)
    make(
        source, {source: "no such name"}
    )  # what a first request imports and starts is no part of the cost of an object
    before = settled_bytes()
    cpu, began = cpu_seconds(), time.perf_counter()
    dataset = make(source)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    peak = resident_bytes("VmHWM")
    held = (settled_bytes() - before) / len(dataset)
    pickled = len(pickle.dumps(dataset)) / len(dataset)
    content = content_of((one.name, b"") for one in dataset.get_obj_list())
    return Measurement(content, seconds, cpu, peak - before, {HELD: held, PICKLED: pickled})


OURS, THEIRS = "aisdatapipes AISMapDataset", "aistore.pytorch AISMapDataset"
CONTENDERS = {OURS: ours, THEIRS: theirs}
TARGETS = (Target(OURS, THEIRS, 3), Limit(OURS, HELD, 120), Limit(OURS, PICKLED, 120))


def names(count: int) -> Iterator[str]:
    """Names of 30 characters, in the order of a listing."""
    return (f"train/n{i // 1000:08d}/{i:010d}.jpg" for i in range(count))


def main() -> int:
    options = asked(__doc__ or "")
    count = 1000 if options.quick else 100_000
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, ((name, b"x") for name in names(count)))
        report = Report("listing", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        stored = Stored(endpoint, made.name, (), content_of((name, b"") for name in names(count)))
        report.measure(chosen(CONTENDERS, options), stored, listed)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
