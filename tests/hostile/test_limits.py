"""However much a cluster sends or claims, memory stays within the window and 64 MiB, and reading ends."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

from aisdatapipes.wire.listing import Entry, Page, decoded_list, encoded_page
from tests.conformance.conftest import tar_of
from tests.hostile import honest
from tests.hostile.server import Asked, HostileServer, whole

CEILING = (64 + 64) << 20  # bytes: the window, and 64 MiB
# Where a listing has no end, it is a listing: it may take half of the memory that the reading process believes in.
LISTING_CEILING = CEILING + (512 << 20)
FOR_EVER = b"x" * (1 << 20)
LOTS = 1 << 40  # bytes that an answer promises

Answer = Callable[[Asked, str], Iterable[bytes]]


def instead(kinds: str, answer: Answer) -> Answer:
    """An honest cluster, but for these kinds of requests."""
    return lambda asked, url: answer(asked, url) if asked.kind in kinds.split() else honest.answer(asked, url)


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def endless(status: str = "200 OK", *lines: str) -> Answer:
    """A body that promises a terabyte, and means it."""
    return lambda _asked, _url: itertools.chain(
        [head(f"Content-Length: {LOTS}", *lines, status=status)], itertools.repeat(FOR_EVER)
    )


def endless_chunks(status: str = "200 OK") -> Answer:
    """A body without a promise."""
    chunk = b"%x\r\n%b\r\n" % (len(FOR_EVER), FOR_EVER)
    return lambda _asked, _url: itertools.chain(
        [head("Transfer-Encoding: chunked", status=status)], itertools.repeat(chunk)
    )


def endless_headers(_asked: Asked, _url: str) -> Iterable[bytes]:
    return itertools.chain([b"HTTP/1.1 200 OK\r\n"], (b"X-%d: %b\r\n" % (n, b"y" * 900) for n in itertools.count()))


def endless_interim(_asked: Asked, _url: str) -> Iterable[bytes]:
    return itertools.repeat(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 100)


def endless_trailers(asked: Asked, url: str) -> Iterable[bytes]:
    _, _, body = honest.content(asked, url)
    start = head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    return itertools.chain([start], itertools.repeat(b"T: trailer\r\n" * 100))


def listing(entry: Callable[[int], list[Entry]], token: Callable[[int], str]) -> Answer:
    """Pages without end."""
    pages = itertools.count(1)

    def answer(_asked: Asked, _url: str) -> Iterable[bytes]:
        number = next(pages)
        return whole(encoded_page(Page(entry(number), token(number), "x")), "Content-Type: application/msgpack")

    return instead("list", answer)


def claimed(size: int) -> Answer:
    """A listing in which every object has this size."""

    def answer(asked: Asked, _url: str) -> Iterable[bytes]:
        prefix = decoded_list(asked.body).prefix
        entries = [Entry(name, size=size) for name in honest.STORED if name.startswith(prefix)]
        return whole(encoded_page(Page(entries)))

    return instead("list", answer)


def total(size: int) -> Answer:
    """Ranges of objects that are said to be so large."""

    def answer(asked: Asked, url: str) -> Iterable[bytes]:
        status, headers, body = honest.content(asked, url)
        return whole(
            body, *(f"{line.rpartition('/')[0]}/{size}" if "Range" in line else line for line in headers), status=status
        )

    return instead("range", answer)


def bomb(asked: Asked, _url: str) -> Iterable[bytes]:
    """A tar that is small as it travels: its one member has a gigabyte."""
    del asked
    return whole(_bomb())


@cache
def _bomb() -> bytes:
    """Made once: on a busy machine that takes longer than a client waits for an answer."""
    header = bytearray(tar_of({"b/objects/000": b""})[:512])
    header[124:136] = b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(header) + gzip.compress(bytes(64 << 20)) * 16


CASES: dict[str, tuple[str, Answer, str]] = {
    "map": ("get", instead("map", endless()), "CorruptBody"),
    "map in chunks": ("get", instead("map", endless_chunks()), "CorruptBody"),
    "map of headers": ("get", instead("map", endless_headers), "Truncated"),
    "map of hints": ("get", instead("map", endless_interim), "Unavailable"),
    "map with trailers": ("get", instead("map", endless_trailers), "Unavailable"),
    "map of brackets": ("get", instead("map", lambda *_: whole(b"[" * (15 << 20))), "StoreError"),
    "page": ("get", instead("list", endless()), "CorruptBody"),
    "page in chunks": ("map", instead("list", endless_chunks()), "CorruptBody"),
    "page of bytes": ("get", instead("list", lambda *_: whole(b"\x81\xa7Entries\xdd\0\xff\xff\xff" + b"\x80" * (15 << 20))), "CorruptBody"),
    "refusal": ("get", instead("list", endless("404 Not Found")), "CorruptBody"),
    "busy": ("get", instead("get", endless_chunks("503 Busy")), "CorruptBody"),
    "object": ("get", instead("get", endless()), "CorruptBody"),
    "object in chunks": ("get", instead("get", endless_chunks()), "CorruptBody"),
    "object of unknown size": ("named", instead("get", endless_chunks()), "CorruptBody"),
    "map dataset": ("map", instead("get", endless_chunks()), "CorruptBody"),
    "part": ("ranges", instead("range", endless("206 Partial Content", "Content-Range: bytes 0-9/10")), "Truncated"),
    "all for a part": ("ranges", instead("range", endless_chunks()), "Truncated"),
    "batch": ("batch .tar", instead("batch", endless()), "data"),
    "batch in one piece": ("batch multipart", instead("batch", endless_chunks()), "data"),
    "bomb of a batch": ("batch .zip", instead("batch", bomb), "data"),
    "index": ("shards", instead("index", endless_chunks()), "data"),
    "shard": ("shards off", instead("range", endless_chunks()), "Truncated"),
    "bomb of a shard": ("shard pipes", instead("get", bomb), "CorruptShard"),
    "pages without objects": ("get", listing(lambda _: [], lambda n: f"{n:09}"), "CorruptBody"),
    "pages in a circle": ("get", listing(lambda n: [Entry(f"{n % 7}")], lambda n: f"{n % 7}"), "CorruptBody"),
    "pages with new names": ("get", listing(lambda n: [Entry(f"{n:09}{i}" + "y" * 900) for i in range(9000)], lambda n: f"{n:09}"), "StoreError"),
    "size of a petabyte": ("ranges", claimed(1 << 50), "StoreError"),
    "size of 2^63-1": ("auto", claimed((1 << 63) - 1), "StoreError"),
    "shard of 2^63-1": ("shards off", claimed((1 << 63) - 1), "data"),
    "total of a petabyte": ("ranges", total(1 << 50), "CorruptBody"),
    "total of many digits": ("ranges", total(10**4000), "Truncated"),
    "total of a shard": ("shards off", total(1 << 50), "Truncated"),
}  # fmt: skip


@pytest.fixture(scope="module")
def reader():
    """A process that reads, of which memory is measured."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.hostile.measured"]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def read(name: str, endpoint: str) -> tuple[str, str, int]:
            process.stdin.write(f"{name}\t{endpoint}\n")
            return tuple(json.loads(process.stdout.readline()))

        with HostileServer(lambda asked: honest.answer(asked, server.url)) as server:
            assert read("get", server.url)[:2] == ("data", "41")
        yield read
        process.stdin.close()


@pytest.mark.parametrize("case", CASES)
def test_memory_is_bounded(case, reader):
    """Each answer that never ends, or claims too much, is given up within the ceiling, and has its own error."""
    name, answer, expected = CASES[case]
    with HostileServer(lambda asked: answer(asked, server.url)) as server:
        outcome, words, rose = reader(name, server.url)
    ceiling = LISTING_CEILING if case == "pages with new names" else CEILING
    assert (outcome, rose <= ceiling) == (expected, True), (words, rose >> 20)
    assert "defect" not in words
