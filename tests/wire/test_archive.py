"""Shards of any kind give the members of the plain tar, in bounded memory, or an error that names the shard."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import itertools
import lzma
import re
import sys
import tracemalloc
import zipfile
from itertools import repeat

import pytest
import tars
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError, CorruptShard, Unavailable
from aisdatapipes.wire.archive import kind, opened, zip_members
from aisdatapipes.wire.compression import PIECE_BYTES, decompressed
from aisdatapipes.wire.tar import entry

URL = "ais://b/s"
FILES = [(f"{size}.bin", tars.content(size, size)) for size in (0, 1, 513, 70_000)]
PLAIN = tars.by_tarfile(FILES, tars.tarfile.USTAR_FORMAT)
PACK = {
    "gzip": functools.partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
# What a hundred MiB of zeros may take at a time: one piece of output and what a library keeps for its window.
BOMB_BYTES = 100 << 20
BOMB_PEAK = 24 << 20


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def files(members: object) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in members]


def zipped(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.mkdir("folder")
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return made.getvalue()


@pytest.mark.parametrize("size", [1, 600, 1 << 20])
@pytest.mark.parametrize("packed", PACK)
def test_compressed_tars(packed: str, size: int) -> None:
    """A compressed tar has the members of the plain one, whatever the pieces and whatever it is called."""
    assert FILES == files(opened(cut(PACK[packed](PLAIN), size), URL))


@pytest.mark.parametrize("packed", PACK)
def test_many_streams(packed: str) -> None:
    """A file of several compressed streams is their contents one after another, with zeros behind allowed."""
    streams = b"".join(PACK[packed](part) for part in cut(PLAIN, 10_000))
    for size in (1, 1000, 1 << 20):
        assert PLAIN == b"".join(decompressed(cut(streams + bytes(8), size), packed, URL))


def test_zstd_frames_to_skip() -> None:
    """Frames that carry no data, as parallel compressors write them, are passed over."""
    skip = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    assert FILES == files(opened([skip + PACK["zstd"](PLAIN) + skip], URL))


@pytest.mark.parametrize("packed", PACK)
def test_truncated_streams(packed: str) -> None:
    """A compressed shard cut anywhere is an error that names it, also where the tar in it is whole."""
    small = PACK[packed](entry("a", tars.content(2000)))
    for length in range(len(small)):
        with pytest.raises(CorruptShard, match=URL):
            list(opened([small[:length]], f"{URL}.{packed}"))


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([*PACK, "zip"]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_noise_is_no_other_error(packed: str, flips: list[tuple[int, int]]) -> None:
    """Whatever bytes change, nothing but CorruptShard is raised."""
    broken = bytearray(zipped(FILES[:3]) if packed == "zip" else PACK[packed](PLAIN))
    for at, flip in flips:
        broken[at % len(broken)] ^= flip
    with contextlib.suppress(CorruptShard):
        list(opened(cut(bytes(broken), 5000), URL))


@pytest.mark.parametrize("packed", PACK)
def test_garbage_behind_a_stream(packed: str) -> None:
    """Bytes behind a compressed stream that are neither zeros nor another stream are an error."""
    with pytest.raises(CorruptShard):
        list(opened([PACK[packed](PLAIN) + b"garbage garbage"], URL))


@pytest.mark.parametrize("packed", PACK)
def test_a_bomb_takes_little_memory(packed: str) -> None:
    """A shard that expands a thousandfold is unpacked piece by piece."""
    bomb = PACK[packed](bytes(BOMB_BYTES))
    tracemalloc.start()
    try:
        total = largest = 0
        for piece in decompressed([bomb], packed, URL):
            total += len(piece)
            largest = max(largest, len(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert BOMB_BYTES == total
    assert largest <= (8 << 20 if packed == "zstd" else PIECE_BYTES)
    assert peak < BOMB_PEAK


def test_an_xz_that_asks_for_too_much_memory() -> None:
    """A file whose dictionary needs more memory than any preset is refused before it is allocated."""
    greedy = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    assert b"x" == b"".join(decompressed([greedy], "xz", URL))
    hostile = bytearray(greedy)
    at = hostile.index(b"\x21\x01", 12)  # the filter's id and the length of its one property, the dictionary's size
    hostile[at + 2] = 40  # 4 GiB
    header = bytes(hostile[12:20])
    hostile[20:24] = lzma_crc32(header)
    with pytest.raises(CorruptShard, match=r"(?i)memory"):
        list(decompressed([bytes(hostile)], "xz", URL))


def lzma_crc32(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")


def test_zstd_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without zstandard a zstd shard says how to install it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"pip install aisdatapipes\[zstd\]"):
        list(opened([PACK["zstd"](PLAIN)], URL))


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        ("s.tar", PLAIN, "tar"),
        ("s.tar.gz", PLAIN, "tar"),  # what something on the way has unpacked already
        ("s", entry("BZh91AY&SY.jpg", b""), "tar"),
        ("s", entry("PK\3\4.jpg", b""), "tar"),
        ("s.tar", PACK["gzip"](b""), "gzip"),
        ("s.tar", PACK["bz2"](b""), "bz2"),
        ("s.tar", PACK["bz2"](b"x"), "bz2"),
        ("s.tar", PACK["xz"](b""), "xz"),
        ("s.tar", PACK["zstd"](b""), "zstd"),
        ("s.tar", zipped([]), "zip"),
        ("s.tar", zipped(FILES), "zip"),
        ("s.TGZ", b"?", "gzip"),
        ("s.tar.bz2", b"?", "bz2"),
        ("s.txz", b"?", "xz"),
        ("s.tar.zst", b"?", "zstd"),
        ("s.zip", b"?", "zip"),
        ("http://h/v1/objects/b/s.tgz?provider=ais", b"?", "gzip"),
        ("ais://b/what?.gz", b"?", "gzip"),
        ("s", b"?", "tar"),
    ],
    ids=itertools.count(),  # not the bytes
)
def test_kinds(name: str, first: bytes, expected: str) -> None:
    """The first bytes say what a shard is; where they do not, its name does."""
    assert expected == kind(name, first[:512])


@pytest.mark.parametrize("name", ["s.tar", "s.tgz", "s.zip", "s.tar.zst"])
@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_empty_shards(name: str, chunks: list[bytes]) -> None:
    """A shard of no bytes is an error, whatever it is called."""
    with pytest.raises(CorruptShard, match=f"{re.escape(name)}: empty file"):
        list(opened(chunks, name))


@pytest.mark.parametrize("packed", PACK)
def test_no_bytes_are_no_stream(packed: str) -> None:
    """No bytes at all are no compressed file."""
    with pytest.raises(CorruptShard, match="empty file"):
        list(decompressed([], packed, URL))


def test_lz4_is_named() -> None:
    """What AIStore can write and nothing here reads is named."""
    with pytest.raises(CorruptShard, match="lz4"):
        list(opened([b"\x04\x22\x4d\x18" + bytes(600)], "s.tar.lz4"))


def test_an_unmarked_end_inside_a_stream() -> None:
    """A compressed tar without end blocks is read and reported like a plain one."""
    told: list[str] = []
    assert [("a", b"A")] == files(opened([gzip.compress(entry("a", b"A"))], URL, on_unterminated=told.append))
    assert [URL] == told


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_shards(compression: int) -> None:
    """A zip gives its files as they lie in it, from a file or from pieces."""
    archive = zipped(FILES, compression)
    assert FILES == files(zip_members(io.BytesIO(archive), URL))
    assert FILES == files(opened(cut(archive, 1000), URL))


def test_zip_from_a_seekable_file() -> None:
    """With a file for random access a zip is read from that, and no further piece is asked for."""
    archive = zipped(FILES)
    assert FILES == files(opened(repeat(archive[:600]), URL, seekable=lambda: io.BytesIO(archive)))


def test_zip_truncated() -> None:
    """A zip cut anywhere is an error."""
    archive = zipped(FILES[:3])
    for length in range(4, len(archive)):
        with pytest.raises(CorruptShard, match=URL):
            list(opened([archive[:length]], URL))


def test_zip_encrypted() -> None:
    """An encrypted member is named."""
    archive = bytearray(zipped([("a.jpg", b"A")]))
    archive[archive.rindex(b"PK\1\2") + 8] |= 1  # the flags in the last entry of the directory
    with pytest.raises(CorruptShard, match=r"'a.jpg' at offset \d+: it is encrypted"):
        list(zip_members(io.BytesIO(archive), URL))


def test_zip_with_an_empty_name() -> None:
    """A member that is called nothing makes zipfile stumble; it is a broken archive."""
    archive = bytearray(zipped([("a", b"A")]))
    at = archive.rindex(b"PK\1\2")
    archive[at + 28 : at + 30] = b"\0\0"  # the length of the name in the directory
    del archive[at + 46]
    archive[-10:-6] = (len(archive) - 22 - at).to_bytes(4, "little")
    with pytest.raises(CorruptShard, match=URL):
        list(zip_members(io.BytesIO(bytes(archive)), URL))


@pytest.mark.parametrize("error", [Unavailable("gone", url=URL), ConnectionResetError("reset"), OSError(5, "I/O")])
def test_the_files_own_errors(error: Exception) -> None:
    """What the file under a zip raises comes through as it is."""

    class Broken(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            raise error

    with pytest.raises(type(error)) as caught:
        list(zip_members(Broken(zipped(FILES)), URL))
    assert error is caught.value


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), OSError("no errno"), ValueError("x"), EOFError()])
@pytest.mark.parametrize("packed", PACK)
def test_the_sources_own_errors(packed: str, error: Exception) -> None:
    """What the pieces' source raises comes through as it is, and is no damage of the shard."""

    def source() -> object:
        yield PACK[packed](PLAIN)[:100]
        raise error

    with pytest.raises(type(error)) as caught:
        list(opened(source(), f"{URL}.{packed}"))
    assert error is caught.value
