"""How fast are samples read from shards?

Tar shards of samples, each an image of 64 KiB and a label, in the order of the shards. webdataset reads them the way
its documentation shows for HTTP, through curl; the CPU of those curl processes is counted. The datasets list the
bucket, and read the indexes that the cluster made before, as part of the measurement; webdataset is given the URLs.

    python -m benchmarks.shards [--quick]
"""

from __future__ import annotations

import contextlib
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import Report, Stored, Target, asked, chosen, content_of, named
from benchmarks.rivals import one_stream

SIZE = 64 << 10
SHARDS, SAMPLES = 32, 500  # 1 GiB: so that what a process takes to begin, a column of its own, does not decide


def ours(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), index="off")


def indexed(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket))


def second_epoch(stored: Stored) -> Iterable[Any]:
    """The same in a process that has read them all before: its memory is not new."""
    dataset = ours(stored)
    for _ in dataset:
        pass
    return iter(dataset)  # without its counters, which are of both


def our_chain(stored: Stored) -> Iterable[Any]:
    from torch.utils.data.datapipes.iter import IterableWrapper

    import aisdatapipes  # noqa: F401 - gives the functional names

    shards = IterableWrapper([f"ais://{stored.bucket}/"]).ais_list_files(stored.endpoint)
    return shards.ais_load_files(stored.endpoint).ais_read_shards()


def theirs(stored: Stored) -> Iterable[Any]:
    from aistore.pytorch import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket))


def webdataset(stored: Stored) -> Iterable[Any]:
    import webdataset as wds

    urls = [f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais" for name in stored.names]
    found = wds.WebDataset([f"pipe:curl -s -f -L '{url}'" for url in urls], shardshuffle=False)
    return ((one["__key__"], {"jpg": one["jpg"], "cls": one["cls"]}) for one in found)


CURL = "one curl stream, nothing unpacked"
INDEXED = "aisdatapipes AISShardReader, by the server's index"
AGAIN = "aisdatapipes AISShardReader, second epoch"
OURS, THEIRS, WEBDATASET = "aisdatapipes AISShardReader", "aistore.pytorch AISShardReader", "webdataset, pipe:curl"
CONTENDERS = {
    OURS: ours,
    INDEXED: indexed,
    AGAIN: second_epoch,
    THEIRS: theirs,
    WEBDATASET: webdataset,
    "aisdatapipes ais_load_files().ais_read_shards()": our_chain,
    CURL: one_stream,
}
TARGETS = (
    Target(OURS, THEIRS, 5),
    Target(OURS, WEBDATASET, 2.5),
    Target(INDEXED, WEBDATASET, 2.5),
    Target(AGAIN, WEBDATASET, 2.5),
    Target(OURS, CURL, 0.85),
    Target(INDEXED, CURL, 0.85),
)

Sample = tuple[str, dict[str, bytes]]


def samples(shard: int, count: int, size: int = SIZE) -> Iterator[Sample]:
    """The samples of a shard; keys have no folder, because the reference drops it."""
    for number in range(shard * count, (shard + 1) * count):
        yield f"{number:06d}", {"jpg": filler(number, size), "cls": str(number % 1000).encode()}


def packed(some: Iterable[Sample]) -> bytes:
    """A tar of samples."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for key, sample in some:
            for extension, data in sample.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def have_indexed(stored: Stored) -> None:
    """Let the cluster index the bucket."""
    from aisdatapipes import AISShardReader

    len(AISShardReader(bucket_of(stored.endpoint, stored.bucket), index="server"))


@contextlib.contextmanager
def filled(shards: int, count: int, size: int = SIZE) -> Iterator[tuple[Stored, str]]:
    """A bucket of indexed shards on the cluster that is measured, and what that cluster is."""
    names = tuple(named("train", shards, "tar"))
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        yield stored_in(endpoint, made.name, names, count, size), server


def stored_in(endpoint: str, bucket: str, names: Sequence[str], count: int, size: int = SIZE) -> Stored:
    """Put shards of so many samples each into a bucket, and have them indexed."""
    put_all(endpoint, bucket, ((name, packed(samples(i, count, size))) for i, name in enumerate(names)))
    expected = content_of(sample for i in range(len(names)) for sample in samples(i, count, size))
    stored = Stored(endpoint, bucket, tuple(names), expected)
    have_indexed(stored)
    return stored


def main() -> int:
    options = asked(__doc__ or "")
    shards, count = (2, 50) if options.quick else (SHARDS, SAMPLES)
    with filled(shards, count) as (stored, server):
        report = Report("shards", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen(CONTENDERS, options), stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
