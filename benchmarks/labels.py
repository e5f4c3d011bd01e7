"""What does it cost to read only the labels?

The shards of `benchmarks.shards`: 64 KiB and a label each, which the cluster has indexed. Counts and sums are those of
what each contender is to give: full samples, or labels alone. The last rows are loops without order or checks: a tar of
labels for each shard, get-batch of ranges, and a client in C with a ranged GET each.

    python -m benchmarks.labels [--quick]
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.cluster import bucket_of
from benchmarks.measure import Report, Stored, Target, asked, chosen, content_of
from benchmarks.rivals import has_ceiling, many, owner_urls
from benchmarks.samples import InC, Place, places_in
from benchmarks.shards import SAMPLES, SHARDS, WEBDATASET, filled, indexed, packed, samples, webdataset

BATCHES, BATCH = 8, 512  # get-batches in flight, labels in each: the best of those that were tried
TARS = 8  # tars of labels in flight
FULL, LABELS = "aisdatapipes AISShardReader, full samples", "aisdatapipes AISShardReader, fields=('cls',)"
SHUFFLED = "aisdatapipes AISShardReader, fields=('cls',), shuffled"
PICKED = "pycurl, a tar of the labels of each shard, 8 in flight"
RANGES, C = "get-batch of ranges, 8 of 512 in flight", "C and epoll, a ranged GET each"
THEIRS = f"{WEBDATASET}, labels"


def labels(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), fields=("cls",))


def shuffled_labels(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), fields=("cls",), shuffle=True)


def their_labels(stored: Stored) -> Iterable[Any]:
    return ((key, {"cls": sample["cls"]}) for key, sample in webdataset(stored))


def picked(stored: Stored) -> Iterator[Any]:
    """The labels that targets pick out of their shards, in no order."""
    from aisdatapipes.wire.tar import members

    urls = zip(stored.names, owner_urls(stored), strict=True)
    asked_for = ((name, f"{url}&archmode=suffix&archregx=.cls", None) for name, url in urls)
    for name, archive in many(asked_for, TARS):
        for member in members([archive], name):
            yield member.name.removesuffix(".cls"), {"cls": member.data}


def get_batch(stored: Stored, *, places: list[Place]) -> Iterator[Any]:
    """Ranges by get-batch, `BATCHES` in flight, in no order."""
    from aisdatapipes.wire.batch import BatchEntry, BatchRequest, encoded_request
    from aisdatapipes.wire.tar import members

    url = f"{stored.endpoint}/v1/ml/moss?provider=ais"

    def asked_for() -> Iterator[tuple[list[Place], str, bytes]]:
        rest = iter(places)
        while some := list(itertools.islice(rest, BATCH)):
            parts = ((stored.names[one.shard], one.members[0]) for one in some)
            entries = (BatchEntry(stored.bucket, "ais", name, start=at, length=size) for name, (_, at, size) in parts)
            yield some, url, encoded_request(BatchRequest(tuple(entries)))

    for some, archive in many(asked_for(), BATCHES):
        for one, member in zip(some, members([archive], "get-batch"), strict=True):
            yield one.key, {"cls": member.data}


def main() -> int:
    options = asked(__doc__ or "")
    shards, count = (2, 50) if options.quick else (SHARDS, SAMPLES)
    every = (sample for shard in range(shards) for sample in samples(shard, count))
    expected = content_of((key, {"cls": sample["cls"]}) for key, sample in every)
    places = [
        one._replace(members=one.members[1:])
        for one in places_in(packed(samples(shard, count)) for shard in range(shards))
    ]
    with filled(shards, count) as (stored, server):
        report = Report("labels", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        only = dataclasses.replace(stored, content=expected)
        contenders: dict[str, Any] = {LABELS: labels, SHUFFLED: shuffled_labels, THEIRS: their_labels}
        contenders[PICKED] = picked
        contenders[RANGES] = functools.partial(get_batch, places=places)
        if has_ceiling():
            contenders[C] = InC(places)
        for _ in range(report.rounds):  # in turn, though what must come out differs
            once = Report(report.name, report.question, 1, report.server, report.quick, report.rows, report.wrong)
            once.measure(chosen({FULL: indexed}, options), stored)
            once.measure(chosen(contenders, options), only)
    report.check(Target(LABELS, FULL, 5), Target(SHUFFLED, FULL, 5))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
