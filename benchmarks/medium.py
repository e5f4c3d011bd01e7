"""How fast are objects of 128 KiB read?

As `benchmarks.objects`, where the time goes into bytes as much as into requests.

    python -m benchmarks.medium [--quick]
"""

from __future__ import annotations

import sys

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import cluster, filler, put_all
from benchmarks.measure import CPU, Limit, Report, Stored, Target, asked, chosen, content_of, named
from benchmarks.objects import OURS, THEIRS, our_iter, their_iter
from benchmarks.rivals import ceiling, curl_direct, has_ceiling

SIZE = 128 << 10
COUNT = 4000  # as many bytes as it takes for a second or so
CONTENDERS = {
    OURS: our_iter,
    THEIRS: their_iter,
    "pycurl, 64 in flight straight to the owners": curl_direct,
    **({"C and epoll, 64 in flight straight to the owners": ceiling} if has_ceiling() else {}),
}
TARGETS = (Target(OURS, THEIRS, 12), Limit(OURS, CPU, 140))


def main() -> int:
    options = asked(__doc__ or "")
    count = 50 if options.quick else COUNT
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, objects)
        stored = Stored(endpoint, made.name, tuple(name for name, _ in objects), content_of(objects))
        report = Report("medium", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen(CONTENDERS, options), stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
