"""How fast are single samples read, in random order, out of plain tar shards that the cluster has indexed?

The shards of `benchmarks.shards`: 64 KiB and a label. Beside random order by this package: webdataset in the order of
the shards, which is all that it can do; get-batch of archive members, as a loop over pycurl that keeps several batches
in flight; and the same ranges by a loop over pycurl and by a client in C, which are told where each sample is. The
datasets list the bucket and read the indexes as part of the measurement.

    python -m benchmarks.samples [--quick]
"""

from __future__ import annotations

import functools
import io
import itertools
import random
import sys
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks.cluster import bucket_of
from benchmarks.measure import Content, Loaded, Measurement, Report, Stored, Target, asked, chosen
from benchmarks.rivals import ceiled_reads, has_ceiling, many, owner_urls
from benchmarks.shards import INDEXED, SAMPLES, SHARDS, WEBDATASET, filled, indexed, packed, samples, webdataset

BATCHES, BATCH = 8, 128  # get-batches in flight, samples in each: the best of those that were tried


class Place(NamedTuple):
    """Where a sample is: index of its shard, and (extension, first byte, size) of its members, in archive order."""

    key: str
    shard: int
    members: tuple[tuple[str, int, int], ...]

    @property
    def range(self) -> str:
        """From the first byte to the last one."""
        (_, first, _), (_, last, size) = self.members[0], self.members[-1]
        return f"{first}-{last + size - 1}"

    @property
    def between(self) -> int:
        """Bytes of the range that are no member's."""
        first, last = self.members[0][1], self.members[-1][1]
        return last - first - sum(size for _, _, size in self.members[:-1])


def shuffled(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), shuffle=True)


def by_batch(stored: Stored) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    from aisdatapipes import AISShardMapDataset

    data = AISShardMapDataset(bucket_of(stored.endpoint, stored.bucket))
    return Loaded(DataLoader(data, batch_size=64, shuffle=True, collate_fn=list), data)


def get_batch(stored: Stored, *, places: list[Place]) -> Iterator[Any]:
    """Archive members by get-batch, `BATCHES` in flight, in no order."""
    from aisdatapipes.wire.batch import BatchEntry, BatchRequest, encoded_request
    from aisdatapipes.wire.tar import members

    def asked_for() -> Iterator[tuple[int, str, bytes]]:
        rest = iter(places)
        while some := list(itertools.islice(rest, BATCH)):
            entries = tuple(
                BatchEntry(stored.bucket, "ais", stored.names[one.shard], archpath=f"{one.key}.{extension}")
                for one in some
                for extension, _, _ in one.members
            )
            yield len(entries), f"{stored.endpoint}/v1/ml/moss?provider=ais", encoded_request(BatchRequest(entries))

    for _, archive in many(asked_for(), BATCHES):
        found = [(member.name.rpartition("/")[2], member.data) for member in members([archive], "get-batch")]
        for name, group in itertools.groupby(found, lambda one: one[0].partition(".")[0]):
            yield name, {member.partition(".")[2]: data for member, data in group}


def same_ranges(stored: Stored, *, places: list[Place]) -> Iterator[Any]:
    """The range of each sample, `rivals.WIDTH` in flight, straight to the owners, in no order."""
    urls = owner_urls(stored)
    for place, data in many((place, urls[place.shard], place.range) for place in places):
        first = place.members[0][1]
        yield place.key, {extension: data[at - first : at - first + size] for extension, at, size in place.members}


class InC:
    """`ceiling.c` over the range of each sample, as a contender: number and bytes are compared, contents are not."""

    def __init__(self, places: list[Place]) -> None:
        self.places = places

    def measure(self, _contender: Any, stored: Stored) -> Measurement:
        """How it is measured."""
        urls = owner_urls(stored)
        count, size, seconds, cpu = ceiled_reads([(urls[place.shard], place.range) for place in self.places])
        between = sum(place.between for place in self.places)
        return Measurement(Content(count, size - between, stored.content.sum), seconds, cpu, 0)


SHUFFLED, MAPPED = "aisdatapipes AISShardReader, shuffled", "aisdatapipes AISShardMapDataset, DataLoader(64, shuffle)"
ARCHPATH, CURL, C = (
    "get-batch with archpath, 8 of 128 in flight",
    "pycurl, the same ranges",
    "C and epoll, the same ranges",
)
TARGETS = (
    Target(SHUFFLED, f"{WEBDATASET}, in order", 1),
    Target(SHUFFLED, f"{WEBDATASET}, in order", 1.5),
    Target(SHUFFLED, ARCHPATH, 2.5),
    Target(SHUFFLED, ARCHPATH, 3.4),
)


def places_in(archives: Iterable[bytes]) -> list[Place]:
    """Where the samples of some tars are, by Python's own reader."""
    found = []
    for shard, archive in enumerate(archives):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            infos = [(*info.name.split(".", 1), info.offset_data, info.size) for info in tar]
        for key, group in itertools.groupby(infos, lambda one: one[0]):
            found.append(Place(key, shard, tuple(one[1:] for one in group)))
    return found


def main() -> int:
    options = asked(__doc__ or "")
    shards, count = (2, 50) if options.quick else (SHARDS, SAMPLES)
    places = random.Random(0).sample(places_in(packed(samples(i, count)) for i in range(shards)), shards * count)
    with filled(shards, count) as (stored, server):
        contenders: dict[str, Any] = {
            SHUFFLED: shuffled,
            MAPPED: by_batch,
            f"{INDEXED}, in order": indexed,
            f"{WEBDATASET}, in order": webdataset,
            ARCHPATH: functools.partial(get_batch, places=places),
            CURL: functools.partial(same_ranges, places=places),
        }
        if has_ceiling():
            contenders[C] = InC(places)
        report = Report("samples", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen(contenders, options), stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
