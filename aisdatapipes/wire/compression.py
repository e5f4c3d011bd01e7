"""Compressed bytes unpacked while they arrive, in pieces of bounded size whatever they expand to.

gzip, bz2, xz and zstd; each may be several streams one after another, as parallel compressors write them.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aisdatapipes.model.errors import ConfigError, CorruptShard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Compression = Literal["gzip", "bz2", "xz", "zstd"]

# Output of one call; some hundred KiB stay in a core's cache until the tar reader has them.
PIECE_BYTES = 256 << 10
# xz names the memory that it needs in its header: `xz -9` 65 MiB, a hostile file up to 4 GiB.
XZ_MEMORY_BYTES = 256 << 20


class _Format(NamedTuple):
    """How one format is read: the common part of four libraries that are almost alike."""

    new: Callable[[], Any]  # has eof and unused_data
    pieces: Callable[[Any, bytes], Iterator[bytes]]
    error: type[Exception]
    slice_bytes: int  # input of one call


def decompressed(chunks: Iterable[bytes], kind: Compression, shard: str) -> Iterator[bytes]:
    """The unpacked bytes, in pieces of at most `PIECE_BYTES` (zstd: 8 MiB).

    Args:
        chunks: The compressed bytes in pieces of any size.
        kind: Their format.
        shard: Name or URL for messages.

    Raises: ``CorruptShard`` when they are truncated, damaged, or followed by anything but zeros;
        ``ConfigError`` for zstd where the package ``zstandard`` is not installed.
    """
    form = _format(kind)
    stream: Any = None
    streams = taken = 0
    for chunk in chunks:
        for at in range(0, len(chunk), form.slice_bytes):
            rest = chunk[at : at + form.slice_bytes]
            taken += len(rest)
            while rest:
                if stream is None:
                    # Between streams zeros are padding (xz on purpose, tapes, block devices).
                    rest = rest.lstrip(b"\0") if streams else rest
                    if not rest:
                        break
                    stream, streams = form.new(), streams + 1
                try:
                    yield from form.pieces(stream, rest)
                except form.error as cause:
                    where = f"near byte {taken - len(rest)} of the compressed file"
                    raise CorruptShard(f"damaged, or no {kind}, {where}: {cause}", url=shard) from None
                rest = stream.unused_data if stream.eof else b""
                stream = None if stream.eof else stream
    if stream is not None:
        raise CorruptShard(f"truncated: the {kind} stream has no end after {taken} bytes", url=shard)
    if not streams:
        raise CorruptShard("empty file", url=shard)


def _inflated(stream: Any, data: bytes) -> Iterator[bytes]:
    while data and not stream.eof:
        piece = stream.decompress(data, PIECE_BYTES)
        data = stream.unconsumed_tail
        if piece:
            yield piece


def _unpacked(stream: Any, data: bytes) -> Iterator[bytes]:
    while data or not (stream.eof or stream.needs_input):
        piece = stream.decompress(data, PIECE_BYTES)
        data = b""  # the rest is kept inside
        if piece:
            yield piece


def _unpacked_whole(stream: Any, data: bytes) -> Iterator[bytes]:
    piece = stream.decompress(data)
    if piece:
        yield piece


def _format(kind: Compression) -> _Format:
    # zlib hands back input that it did not use: small slices, else the rest is copied again and again.
    if kind == "gzip":
        return _Format(lambda: zlib.decompressobj(wbits=31), _inflated, zlib.error, 16 << 10)
    if kind == "bz2":
        return _Format(bz2.BZ2Decompressor, _unpacked, OSError, 64 << 10)
    if kind == "xz":
        return _Format(_new_xz, _unpacked, lzma.LZMAError, 64 << 10)
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise ConfigError("zstd shards need a package more: pip install aisdatapipes[zstd]") from None
    # It has no limit of output; but 4 bytes are at most one block of 128 KiB (RFC 8878, 3.1.1.2): 8 MiB here.
    new = zstandard.ZstdDecompressor().decompressobj
    return _Format(new, _unpacked_whole, zstandard.ZstdError, 256)


def _new_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
