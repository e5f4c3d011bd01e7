"""What does one large shard cost in memory?

One tar of 1 GiB, samples of 100 KiB. The memory is the highest resident size while it is read, over the size after
the imports. The reference takes the whole shard, and then all its members, before it hands out the first sample; it
runs only where twice the shard, and some more, is free.

    python -m benchmarks.shard_memory [--quick]
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import cluster, filler
from benchmarks.measure import Limit, Report, Stored, asked, chosen, content_of
from benchmarks.shards import OURS, THEIRS, WEBDATASET, ours, theirs, webdataset

SIZE = 100 << 10
NAME = "large.tar"
CONTENDERS = {OURS: ours, WEBDATASET: webdataset, THEIRS: theirs}
TARGETS = (Limit(OURS, "peak memory MB", 200),)
THEIR_SHARE = 2.5  # of the shard's size, in free memory


def samples(count: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    for number in range(count):
        yield f"{number:06d}", {"jpg": filler(number, SIZE), "cls": str(number % 1000).encode()}


def write(path: Path, count: int) -> None:
    """The shard, member by member."""
    with tarfile.open(path, "w") as tar:
        for key, sample in samples(count):
            for extension, data in sample.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def main() -> int:
    options = asked(__doc__ or "")
    count = 300 if options.quick else 10_400
    contenders = chosen(CONTENDERS, options)
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / NAME
            write(path, count)
            size = path.stat().st_size
            made.sdk.object(NAME).get_writer().put_file(path)
        if free_bytes() < THEIR_SHARE * size:
            print(f"*** {THEIRS} is left out: less than {THEIR_SHARE} times the shard is free")
            contenders.pop(THEIRS, None)
        report = Report("shard_memory", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        stored = Stored(endpoint, made.name, (NAME,), content_of(samples(count)))
        report.measure(contenders, stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
