"""What does one member cost?

CPU microseconds to take one member out of a tar that lies in memory: nothing but reading is measured.
The rivals run in turn, round after round, each in a process of its own. Before a row is timed its members
are compared with those that were packed: a wrong count, name or byte fails the run.

    python -m benchmarks.tar_reader [--quick]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import platform
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import NamedTuple

from aisdatapipes.wire.samples import samples
from aisdatapipes.wire.tar import members

NAMED = "bench.tar"


class Shape(NamedTuple):
    """The members of one archive; every two of them are a sample."""

    size: int
    form: int
    count: int
    label: str


SHAPES = (
    Shape(4 << 10, tarfile.GNU_FORMAT, 3000, "4 KiB"),
    Shape(4 << 10, tarfile.PAX_FORMAT, 3000, "4 KiB, pax header each"),
    Shape(128 << 10, tarfile.GNU_FORMAT, 400, "128 KiB"),
)

Files = Iterable[tuple[str, bytes]]


def packed(shape: Shape) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The archive and its files, which differ from one another."""
    base = bytes(range(256)) * (shape.size // 256 + 1)
    files = [
        (f"train/{i // 2:06d}.{('jpg', 'cls')[i % 2]}", base[i % 256 : i % 256 + shape.size])
        for i in range(shape.count)
    ]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=shape.form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if shape.form == tarfile.PAX_FORMAT:
                info.mtime = 1700000000.5  # a fraction of a second takes a pax header
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue(), files


def pieces(archive: bytes, size: int) -> list[bytes]:
    return [archive[at : at + size] for at in range(0, len(archive), size)]


def ours(size: int) -> Callable[[bytes], Callable[[], Files]]:
    def prepared(archive: bytes) -> Callable[[], Files]:
        chunks = pieces(archive, size)
        return lambda: ((member.name, member.data) for member in members(chunks, NAMED))

    return prepared


def our_samples(archive: bytes) -> Callable[[], Files]:
    chunks = pieces(archive, 256 << 10)

    def read() -> Iterator[tuple[str, bytes]]:
        for key, sample in samples(members(chunks, NAMED), NAMED):
            for extension, data in sample.items():
                yield f"{key}.{extension}", data

    return read


def streamed_tarfile(archive: bytes) -> Callable[[], Files]:
    def read() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|") as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is not None:
                    yield info.name, file.read()

    return read


def webdataset_files(archive: bytes) -> Callable[[], Files]:
    from webdataset.tariterators import tar_file_iterator

    return lambda: ((file["fname"], file["data"]) for file in tar_file_iterator(io.BytesIO(archive)))


def webdataset_samples(archive: bytes) -> Callable[[], Files]:
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    def read() -> Iterator[tuple[str, bytes]]:
        files = ({**file, "__url__": NAMED} for file in tar_file_iterator(io.BytesIO(archive)))
        for sample in group_by_keys(files):
            for extension, data in sample.items():
                if not extension.startswith("__"):
                    yield f"{sample['__key__']}.{extension}", data

    return read


READERS: dict[str, Callable[[bytes], Callable[[], Files]]] = {
    "aisdatapipes, pieces of 16 KiB": ours(16 << 10),
    "aisdatapipes, pieces of 1 MiB": ours(1 << 20),
    "aisdatapipes, samples": our_samples,
    "tarfile r|": streamed_tarfile,
    "webdataset": webdataset_files,
    "webdataset, samples": webdataset_samples,
}


def measured(reader: str, shape: Shape, passes: int) -> list[float]:
    """CPU microseconds a member, one number for each pass."""
    archive, files = packed(shape)
    read = READERS[reader](archive)
    if list(read()) != files:
        raise SystemExit(f"{reader}, {shape.label}: other members than were packed")
    costs = []
    for _ in range(passes):
        start = time.process_time()
        count = sum(1 for _ in read())
        costs.append((time.process_time() - start) / shape.count * 1e6)
        if count != shape.count:
            raise SystemExit(f"{reader}, {shape.label}: {count} members instead of {shape.count}")
    return costs


def one_round(task: tuple[str, list[Shape], int]) -> list[list[float]]:
    """The costs of one reader for each shape."""
    reader, shapes, passes = task
    return [measured(reader, shape, passes) for shape in shapes]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="one round of few members, to see that it works")
    quick = arguments.parse_args().quick
    rounds, passes, share = (1, 3, 4) if quick else (5, 5, 1)
    shapes = [shape._replace(count=shape.count // share) for shape in SHAPES]
    costs: dict[tuple[str, str], list[float]] = {}
    # maxtasksperchild: a process of its own for every reader in every round
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(rounds):
            for reader in READERS:
                for shape, got in zip(shapes, pool.apply(one_round, ((reader, shapes, passes),)), strict=True):
                    costs.setdefault((reader, shape.label), []).extend(got)
    print(f"CPU us a member: median (lowest-highest) of {rounds * passes} passes in {rounds} processes")
    versions = f"webdataset {version('webdataset')}, {platform.machine()}, {platform.system()}"
    print(f"Python {platform.python_version()}, {versions}\n")
    print(f"| reader | {' | '.join(shape.label for shape in shapes)} |")
    print(f"|---|{'--:|' * len(shapes)}")
    for reader in READERS:
        cells = (told(costs[reader, shape.label]) for shape in shapes)
        print(f"| {reader.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")


def told(costs: list[float]) -> str:
    return f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"


if __name__ == "__main__":
    sys.exit(main())
