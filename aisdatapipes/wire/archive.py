"""The members of a shard, whichever archive it is: tar, compressed tar, zip."""

from __future__ import annotations

import io
import itertools
import lzma
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, Literal

from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire.compression import decompressed
from aisdatapipes.wire.tar import Member, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Kind = Literal["tar", "gzip", "bz2", "xz", "zstd", "zip"]

SNIFF_BYTES = 512  # what `kind` wants to see
_ENCRYPTED = 1  # flag bit 0 of a zip member
# What zipfile and the decompressors below it raise for damaged files.
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, OSError, LookupError,
)  # fmt: skip

_EXTENSIONS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    ((".gz", ".tgz"), "gzip"),
    ((".bz2", ".tbz", ".tbz2"), "bz2"),
    ((".xz", ".txz"), "xz"),
    ((".zst", ".zstd", ".tzst"), "zstd"),
    ((".zip",), "zip"),
)


def kind(name: str, first_bytes: bytes) -> Kind:
    r"""What a shard is: by its first bytes, and where they say nothing by the extension of its name.

    Args:
        name: Name or URL of the shard.
        first_bytes: `SNIFF_BYTES` of it; fewer when it is shorter.

    Raises: ``CorruptShard`` for an empty shard, and for lz4, which nothing here reads.

    >>> kind("a.tar", b"PK\3\4"), kind("a.tgz", b"?"), kind("a", b"?")
    ('zip', 'gzip', 'tar')
    """
    if not first_bytes:
        raise CorruptShard("empty file", url=name)
    # First of all, because a tar begins with a name, and that can be anything.
    if first_bytes[257:262] == b"ustar":
        return "tar"
    if first_bytes.startswith(b"\x04\x22\x4d\x18"):
        raise CorruptShard("it is compressed with lz4, which is not supported; use zstd or gzip", url=name)
    return _by_magic(first_bytes) or _by_extension(name)


def opened(
    chunks: Iterable[bytes],
    shard: str,
    *,
    seekable: Callable[[], BinaryIO] | None = None,
    on_unterminated: Callable[[str], None] | None = None,
) -> Iterator[Member]:
    """The members of a shard, each as soon as its last byte is there.

    Args:
        chunks: The shard in pieces of any size.
        shard: Name or URL; its extension counts where the first bytes say nothing.
        seekable: Makes a file of the same shard for random access, which zip needs; without it a zip shard is
            collected in memory.
        on_unterminated: Called with ``shard`` at the end of a tar whose members are whole, but whose end is
            not marked by two zero blocks.

    Raises: ``CorruptShard`` behind the last complete member; ``ConfigError`` for zstd without its package.
    """
    pieces = iter(chunks)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= SNIFF_BYTES:
            break
    what = kind(shard, head)
    whole = itertools.chain([head], pieces)
    if what == "zip":
        yield from zip_members(seekable() if seekable else io.BytesIO(b"".join(whole)), shard)
        return
    plain = whole if what == "tar" else decompressed(whole, what, shard)
    yield from members(plain, shard, on_unterminated=on_unterminated, tied=what != "tar")


def zip_members(file: BinaryIO, shard: str) -> Iterator[Member]:
    """The members of a zip archive as they lie in it; folders and symbolic links are passed over.

    Args:
        file: Seekable; it is not closed here, and its own errors come through as they are.
        shard: Name or URL for messages.

    Yields: Members whose ``offset`` is that of the local header in the zip.
    Raises: ``CorruptShard``, also for encrypted members and unknown compressions.
    """
    where = "the directory at its end"
    reads = _Reads(file)
    try:
        with zipfile.ZipFile(reads) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
                if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                    continue
                where = f"member {info.filename!r} at offset {info.header_offset}"
                _check_open(info, where, shard)
                yield Member(info.filename, archive.read(info), info.header_offset)
    except CorruptShard:
        raise
    except _ZIP_ERRORS as cause:
        if reads.error is not None:
            raise reads.error from None
        raise CorruptShard(f"{where}: no zip archive, or a broken one: {cause}", url=shard) from None


def _check_open(info: zipfile.ZipInfo, where: str, shard: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise CorruptShard(f"{where}: it is encrypted; store it without a password", url=shard)


class _Reads:
    """A file that remembers what its ``read`` raised: zipfile calls any OSError a bad zip."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.error: Exception | None = None
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        try:
            return self._read(size)
        except Exception as error:
            self.error = error
            raise


def _by_extension(name: str) -> Kind:
    path = name.partition("?")[0] if name.startswith(("http://", "https://")) else name
    for extensions, found in _EXTENSIONS:
        if path.lower().endswith(extensions):
            return found
    return "tar"


def _by_magic(first: bytes) -> Kind | None:
    if first.startswith(b"\x1f\x8b"):
        return "gzip"
    # a bz2 block, or the end of an empty file
    if first.startswith(b"BZh") and first[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bz2"
    if first.startswith(b"\xfd7zXZ\0"):
        return "xz"
    # a frame, or one that readers skip, with which parallel compressors begin
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5):
        return "zstd"
    if first.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    return None
