"""What does it cost to read only the labels?

The shards of `benchmarks.shards`: 64 KiB and a label each, which the cluster has indexed. Counts and sums are those of
what each contender is to give: full samples, or labels alone.

    python -m benchmarks.labels [--quick]
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks.cluster import bucket_of
from benchmarks.measure import Report, Stored, Target, asked, chosen, content_of
from benchmarks.shards import WEBDATASET, filled, indexed, samples, webdataset

FULL, LABELS = "aisdatapipes AISShardReader, full samples", "aisdatapipes AISShardReader, fields=('cls',)"
SHUFFLED = "aisdatapipes AISShardReader, fields=('cls',), shuffled"
THEIRS = f"{WEBDATASET}, labels"


def labels(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), fields=("cls",))


def shuffled_labels(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), fields=("cls",), shuffle=True)


def their_labels(stored: Stored) -> Iterable[Any]:
    return ((key, {"cls": sample["cls"]}) for key, sample in webdataset(stored))


def main() -> int:
    options = asked(__doc__ or "")
    shards, count = (2, 50) if options.quick else (8, 500)
    every = (sample for shard in range(shards) for sample in samples(shard, count))
    expected = content_of((key, {"cls": sample["cls"]}) for key, sample in every)
    with filled(shards, count) as (stored, server):
        report = Report("labels", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        only = dataclasses.replace(stored, content=expected)
        contenders = {LABELS: labels, SHUFFLED: shuffled_labels, THEIRS: their_labels}
        for _ in range(report.rounds):  # in turn, though what must come out differs
            once = Report(report.name, report.question, 1, report.server, report.quick, report.rows, report.wrong)
            once.measure(chosen({FULL: indexed}, options), stored)
            once.measure(chosen(contenders, options), only)
    report.check(Target(LABELS, FULL, 5), Target(SHUFFLED, FULL, 5))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
