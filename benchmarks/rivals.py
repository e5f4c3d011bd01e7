"""Rivals that several benchmarks share: loops over pycurl, and the ceiling, a client in C that does nothing else."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pycurl

from benchmarks.measure import Content, Measurement, Stored, cpu_seconds

WIDTH = 64  # as FetchPlan's
TOGETHER = 8  # GETs that go out together on a connection: as in `aisdatapipes.store.pace`
SOURCE = Path(__file__).with_name("ceiling.c")

T = TypeVar("T")


def curl_loop(stored: Stored) -> Iterator[tuple[str, bytes]]:
    """What anybody would write: one GET after the other, through the proxy."""
    curl = _reader()
    curl.setopt(pycurl.FOLLOWLOCATION, 1)
    for name in stored.names:
        curl.setopt(pycurl.URL, f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais")
        yield name, curl.perform_rb()


def curl_direct(stored: Stored) -> Iterator[tuple[str, bytes]]:
    """What an expert would write: many GETs in flight, straight to the owners, in no order."""
    return many((name, url, None) for name, url in zip(stored.names, owner_urls(stored), strict=True))


def owner_urls(stored: Stored) -> list[str]:
    """For each name the URL at the target that has it."""
    from aisdatapipes.model.config import ClientConfig
    from aisdatapipes.model.url import AISURL
    from aisdatapipes.store.pool import cluster_of

    known = cluster_of(ClientConfig(stored.endpoint))
    known.open()
    urls = [AISURL.make("", "ais", stored.bucket, name) for name in stored.names]
    return [
        f"{origin or stored.endpoint}/v1/objects/{stored.bucket}/{url.name}?provider=ais"
        for url, origin in zip(urls, known.owners_of(urls), strict=True)
    ]


def has_ceiling() -> bool:
    """Whether there is a C compiler."""
    return shutil.which("cc") is not None


def ceiled(_contender: Any, stored: Stored) -> Measurement:
    """`ceiling.c` over all names: number and bytes are compared, contents are not."""
    return _ceiled(stored, 1)


def ceiled_together(_contender: Any, stored: Stored) -> Measurement:
    """The same with several GETs on each of fewer connections."""
    return _ceiled(stored, TOGETHER)


def _ceiled(stored: Stored, depth: int) -> Measurement:
    count, size, seconds, cpu = ceiled_reads([(url, "-") for url in owner_urls(stored)], depth)
    return Measurement(Content(count, size, stored.content.sum), seconds, cpu, 0)


def ceiled_reads(reads: list[tuple[str, str]], depth: int = 1) -> tuple[int, int, float, float]:
    """`ceiling.c` over URLs with a range each (``first-last``, or ``-``): answers, bytes, seconds, seconds of CPU."""
    parts = [(urlsplit(url), part) for url, part in reads]
    lines = [f"{one.hostname} {one.port} {one.path}?{one.query} {part}\n" for one, part in parts]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ceiling"
        subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
        command = [program, str(WIDTH // depth), str(depth)]
        done = subprocess.run(command, input="".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())
    count, size, seconds, cpu = done.stdout.split()
    return int(count), int(size), float(seconds), float(cpu)


def ceiling(stored: Stored) -> Iterable[Any]:
    """The ceiling, as a contender."""
    return stored.names


def ceiling_together(stored: Stored) -> Iterable[Any]:
    """The ceiling with several GETs on a connection, as a contender."""
    return stored.names


def one_stream(stored: Stored) -> Iterable[Any]:
    """One curl stream over all objects, one after the other, as a contender: bytes are counted and forgotten."""
    return stored.names


def streamed(_contender: Any, stored: Stored) -> Measurement:
    """How `one_stream` is measured; its bytes are those of the objects, not of the samples in them."""
    curl, size = _reader(), 0

    def count(data: bytes) -> None:
        nonlocal size
        size += len(data)

    curl.setopt(pycurl.FOLLOWLOCATION, 1)
    curl.setopt(pycurl.WRITEFUNCTION, count)
    cpu, began = cpu_seconds(), time.perf_counter()
    for name in stored.names:
        curl.setopt(pycurl.URL, f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais")
        curl.perform()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if size < stored.content.bytes:
        raise OSError(f"{size} bytes came of {stored.content.bytes} and more")
    return Measurement(stored.content, seconds, cpu, 0)


# A contender that is measured in its own way says how.
ceiling.measure = ceiled  # type: ignore[attr-defined]
ceiling_together.measure = ceiled_together  # type: ignore[attr-defined]
one_stream.measure = streamed  # type: ignore[attr-defined]


def many(asked_for: Iterable[tuple[T, str, str | bytes | None]], width: int = WIDTH) -> Iterator[tuple[T, bytes]]:
    """Contents as they come, ``width`` requests in flight: of (what it is, URL, range ``first-last`` or a body)."""
    multi, free, left = pycurl.CurlMulti(), [_reader() for _ in range(width)], iter(asked_for)
    under_way: dict[Any, tuple[T, list[bytes]]] = {}
    while True:
        while free and (one := next(left, None)) is not None:
            curl = free.pop()
            chunks: list[bytes] = []
            curl.setopt(pycurl.URL, one[1])
            curl.setopt(pycurl.WRITEFUNCTION, chunks.append)
            if isinstance(one[2], bytes):
                curl.setopt(pycurl.FOLLOWLOCATION, 1)  # the endpoint says which target makes it
                curl.setopt(pycurl.POSTFIELDS, one[2])
                curl.setopt(pycurl.CUSTOMREQUEST, "GET")
            elif one[2] is not None:
                curl.setopt(pycurl.RANGE, one[2])
            under_way[curl] = one[0], chunks
            multi.add_handle(curl)
        if not under_way:
            return
        multi.perform()
        _, good, bad = multi.info_read()
        if bad:
            raise OSError(bad[0][2])
        for curl in good:
            multi.remove_handle(curl)
            free.append(curl)
            name, chunks = under_way.pop(curl)
            yield name, b"".join(chunks)
        if not good:
            multi.select(0.05)


def _reader() -> Any:
    curl = pycurl.Curl()
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.FAILONERROR, 1)
    return curl
