"""How many small GETs a second does the embedded cluster serve?

The embedded cluster in a process of its own, as the demo and the tests of users have it; objects of 1 KiB, read with
64 requests in flight. No real cluster is used.

    python -m benchmarks.embedded [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, described, filler, put_all
from benchmarks.measure import Limit, Report, Stored, asked, chosen, content_of, named
from benchmarks.objects import curl_direct, curl_loop

SIZE = 1 << 10


def ours(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset, FetchPlan

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket), fetch=FetchPlan(strategy="get"))


RAW = "pycurl, 64 in flight straight to the owners"
CONTENDERS = {
    "aisdatapipes AISIterDataset": ours,
    RAW: curl_direct,
    "pycurl, one by one through the proxy": curl_loop,
}
TARGETS = (Limit(RAW, "samples/s", 1500, least=True),)


def main() -> int:
    from aisdatapipes.devserver import DevProcess

    options = asked(__doc__ or "")
    count = 200 if options.quick else 5000
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    with DevProcess(targets=3) as embedded, AISBucket.new(embedded.endpoint, "bench") as made:
        put_all(embedded.endpoint, made.name, objects)
        server = described(embedded.endpoint)
        report = Report("embedded", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        stored = Stored(embedded.endpoint, made.name, tuple(name for name, _ in objects), content_of(objects))
        report.measure(chosen(CONTENDERS, options), stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
