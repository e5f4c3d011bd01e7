"""How fast is one large object read?

One object of 1 GiB into memory, against curl, which forgets the bytes, and pycurl, which keeps them; beside them the
time that it takes to fill as much fresh memory, with nothing read. And an object of 256 MiB where each connection is
held to 100 MB/s (`benchmarks.slow_network`), against a single one.

    python -m benchmarks.large [--quick]
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pycurl

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, put_all
from benchmarks.measure import Measurement, Report, Stored, Target, asked, chosen, content_of, cpu_seconds
from benchmarks.slow_network import slow_network

RATE = 100e6  # bytes a second of one connection


def ours_parallel(stored: Stored) -> Iterator[tuple[str, Any]]:
    from aisdatapipes import AISParallelMapDataset

    dataset = AISParallelMapDataset(bucket_of(stored.endpoint, stored.bucket))
    return ((name, buffer.buf) for name, buffer in (dataset[i] for i in range(len(dataset))))


def ours_iter(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def theirs_parallel(stored: Stored) -> Iterator[tuple[str, Any]]:
    from aistore.pytorch.parallel_map_dataset import AISParallelMapDataset

    dataset = AISParallelMapDataset(bucket_of(stored.endpoint, stored.bucket))
    for i in range(len(dataset)):
        name, buffer = dataset[i]
        yield name, bytes(buffer.buf)
        buffer.close()


def one_connection(stored: Stored) -> Iterator[tuple[str, bytes]]:
    for name in stored.names:
        kept = io.BytesIO()
        curl = pycurl.Curl()
        curl.setopt(pycurl.FOLLOWLOCATION, 1)
        curl.setopt(pycurl.URL, f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais")
        curl.setopt(pycurl.WRITEFUNCTION, kept.write)
        curl.perform()
        yield name, kept.getvalue()


def curl(stored: Stored) -> Iterable[Any]:
    return stored.names


def curled(_contender: Any, stored: Stored) -> Measurement:
    """The program curl, which writes to /dev/null; it counts the bytes."""
    (name,) = stored.names
    url = f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais"
    command = ["curl", "-sfL", "-o", "/dev/null", "-w", "%{size_download}", url]
    cpu, began = cpu_seconds(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if int(done.stdout) != stored.content.bytes:
        raise OSError(f"{done.stdout} bytes came")
    return Measurement(stored.content, seconds, cpu, 0)


curl.measure = curled  # type: ignore[attr-defined]


def filled(stored: Stored) -> Iterable[Any]:
    return stored.names


def fill(_contender: Any, stored: Stored) -> Measurement:
    """No less can whoever keeps the bytes do: each page of the memory is new to the process."""
    piece, size = bytes(1 << 20), stored.content.bytes
    memory = io.BytesIO(bytes(size)).getbuffer()
    cpu, began = cpu_seconds(), time.perf_counter()
    for at in range(0, size, len(piece)):
        memory[at : at + len(piece)] = piece
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    return Measurement(stored.content, seconds, cpu, 0)


filled.measure = fill  # type: ignore[attr-defined]
FILLED = "as much memory filled, nothing read"
OURS, CURL, ONE, THEIRS = (
    "aisdatapipes AISParallelMapDataset",
    "curl -o /dev/null",
    "pycurl, kept",
    "aistore.pytorch AISParallelMapDataset",
)
CONTENDERS = {
    OURS: ours_parallel,
    "aisdatapipes AISIterDataset": ours_iter,
    THEIRS: theirs_parallel,
    ONE: one_connection,
    CURL: curl,
    FILLED: filled,
}
HELD = {f"100 MB/s a connection: {name}": CONTENDERS[name] for name in (OURS, THEIRS, ONE)}


def main() -> int:
    options = asked(__doc__ or "")
    report = None
    with cluster() as (endpoint, server):
        report = Report("large", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        for size, contenders, rate in ((1 << 30, CONTENDERS, 0.0), (256 << 20, HELD, RATE)):
            data = np.random.default_rng(0).bytes(10 << 20 if options.quick else size)
            network = slow_network(endpoint, rate=rate) if rate else contextlib.nullcontext(endpoint)
            with AISBucket.new(endpoint, "bench") as made, network as way:
                put_all(endpoint, made.name, [("one.bin", data)])
                stored = Stored(way, made.name, ("one.bin",), content_of([("one.bin", data)]))
                del data
                report.measure(chosen(contenders, options), stored)
    report.check(Target(OURS, CURL, 0.9), Target(OURS, ONE, 0.9))
    report.check(Target(f"100 MB/s a connection: {OURS}", f"100 MB/s a connection: {ONE}", 6))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
