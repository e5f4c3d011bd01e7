"""How long until the first sample?

Of a dataset of 5,000 objects of 10 KiB, in a process that has not talked to the cluster before. Beside it, from the
same process, the time of one page of the listing and of one GET by the SDK's reader; the column that counts is how many
GETs the first sample came after the page.

    python -m benchmarks.first [--quick]
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import FIRST, Limit, Measurement, Report, Stored, asked, chosen, content_of, named

SIZE, GETS = 10 << 10, 20
AFTER = "GETs after the first page"


def ours(stored: Stored) -> Any:
    from aisdatapipes import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def first(contender: Any, stored: Stored) -> Measurement:
    """The listing, which is one page; the first sample after it; then some GETs, for comparison."""
    dataset = contender(stored)
    began = time.perf_counter()
    len(dataset)
    listed = time.perf_counter()
    samples = iter(dataset)
    sample = next(samples)
    seconds, page = time.perf_counter() - began, listed - began
    samples.close()
    get = _get_seconds(stored)
    more = {FIRST: seconds * 1e3, "page ms": page * 1e3, "GET ms": get * 1e3, AFTER: (seconds - page) / get}
    return Measurement(content_of([sample]), seconds, 0.0, 0, more)


def _get_seconds(stored: Stored) -> float:
    thing = bucket_of(stored.endpoint, stored.bucket).object(stored.names[0])

    def one() -> float:
        began = time.perf_counter()
        thing.get_reader().read_all()
        return time.perf_counter() - began

    return statistics.median(one() for _ in range(GETS))


OURS = "aisdatapipes AISIterDataset"


def main() -> int:
    options = asked(__doc__ or "")
    count = 200 if options.quick else 5000
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, objects)
        stored = Stored(endpoint, made.name, tuple(name for name, _ in objects), content_of(objects[:1]))
        report = Report("first", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen({OURS: ours}, options), stored, first)
    report.check(Limit(OURS, AFTER, 3))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
