"""A saved listing as bytes: a zip archive of plain arrays, which ``numpy.load`` opens and any unzip takes apart.

Members, version 1 (`.npz`, numpy's documented format; integers are little-endian, of any width)::

    manifest.json   what the arrays mean: see `Saved`, whose fields it has, and "format", "version", "objects"
    names.npy       all names one after the other, in UTF-8, as uint8
    lengths.npy     bytes of each name: shape (N,)
    sizes.npy       bytes of each object, -1 where unknown: shape (N,)

Columns that come later are further arrays, which this version does not read. The same listing gives the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from aisdatapipes.wire.malformed import Malformed

FORMAT, VERSION = "aisdatapipes manifest", 1
ABOUT, NAMES, LENGTHS, SIZES = "manifest.json", "names.npy", "lengths.npy", "sizes.npy"

_RATIO = 1032  # bytes that one byte of deflate can stand for, at most (zlib's technical details)
_SLACK = 64  # bytes; the ratio of a very short member can be a little higher
_WIDTHS = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.int64)
_LARGEST = np.iinfo(np.int64).max
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip archive: a clock would make equal listings differ


@dataclass(frozen=True, slots=True)
class SavedSource:
    """Where a run of the names came from.

    Args:
        bucket: URL of the bucket; no endpoint, for a job tells that itself.
        objects: How many of the names it gave.
        prefixes: What was listed of the bucket.
        named: True where these names were given one by one (an ``ObjectGroup``), and nothing was listed.
        etl_name: ETL that the cluster applies.
    """

    bucket: str
    objects: int
    prefixes: tuple[str, ...] = ("",)
    named: bool = False
    etl_name: str | None = None


@dataclass(frozen=True, slots=True)
class SavedFilter:
    """Which names stayed: those in which ``pattern`` is found, with the flags of Python's `re`; None for a function."""

    pattern: str | None
    flags: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a manifest's bytes say.

    Args:
        sources: Where the names came from, in order.
        fingerprint: Of the listing: 16 hex digits.
        name_filter: Which names stayed; None for all.
        blob: All names, one after the other, in UTF-8.
        ends: Where each name ends in ``blob``: shape (N,).
        sizes: Bytes of each object, -1 where unknown: shape (N,).
    """

    sources: tuple[SavedSource, ...]
    fingerprint: str
    name_filter: SavedFilter | None
    blob: bytes | bytearray
    ends: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


class _About(msgspec.Struct):
    format: str
    version: int
    objects: int
    fingerprint: str
    sources: list[SavedSource]
    name_filter: SavedFilter | None = None


def encoded_manifest(saved: Saved) -> bytes:
    """The bytes of a manifest."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "objects": len(saved.ends),
        "fingerprint": saved.fingerprint,
        "sources": [asdict(source) for source in saved.sources],
        "name_filter": asdict(saved.name_filter) if saved.name_filter else None,
    }
    arrays = {
        NAMES: np.frombuffer(saved.blob, np.uint8),
        LENGTHS: _narrow(np.diff(saved.ends, prepend=0)),
        SIZES: _narrow(saved.sizes),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        # The standard library's JSON: msgspec refuses the half characters that stand for bytes that are no UTF-8.
        archive.writestr(_member(ABOUT), json.dumps(about, indent=1))
        for name, array in arrays.items():
            with archive.open(_member(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return file.getvalue()


def decoded_manifest(data: bytes) -> Saved:
    """What the bytes of a manifest say; raises `Malformed`. Memory: the arrays, at most 1032 times ``data``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            about = _about(_content(archive, members, ABOUT, len(data)))
            blob = _array(_content(archive, members, NAMES, len(data)), NAMES)
            lengths = _array(_content(archive, members, LENGTHS, len(data)), LENGTHS)
            sizes = _array(_content(archive, members, SIZES, len(data)), SIZES)
    except Malformed:
        raise
    except Exception as error:  # noqa: BLE001 - see below
        # zipfile, zlib and json document little of what they raise for such bytes: a dozen classes were seen.
        raise Malformed(f"it is no complete archive ({type(error).__name__}: {error})") from None
    if blob.dtype != np.uint8:
        raise Malformed(f"{NAMES} holds {blob.dtype} instead of bytes")
    ends = _checked_ends(about, lengths, sizes, len(blob))
    sources, name_filter = tuple(about.sources), about.name_filter
    return Saved(sources, about.fingerprint, name_filter, blob.tobytes(), ends, sizes.astype(np.int64))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16  # else unzip makes files that nobody may read
    return info


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The same numbers in the fewest bytes each."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    fitting = (width for width in _WIDTHS if np.iinfo(width).min <= low and high <= np.iinfo(width).max)
    return values.astype(np.dtype(next(fitting)).newbyteorder("<"))


def _content(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, available: int) -> bytes:
    """A member, whose claims are looked at before memory is given to it."""
    info = members.get(name)
    if info is None:
        raise Malformed(f"it has no member {name}")
    if info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) or info.flag_bits & 1:
        raise Malformed(f"{name} is packed by another method than deflate")
    if info.compress_size > available or info.file_size > info.compress_size * _RATIO + _SLACK:
        raise Malformed(f"{name} claims {info.file_size} bytes, which cannot be in {info.compress_size}")
    return archive.read(info)


def _about(data: bytes) -> _About:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{ABOUT} is no JSON: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise Malformed(f"{ABOUT} does not say that it is of an {FORMAT}")
    # Before anything else is looked at, for a later version may have other fields.
    if raw.get("version") != VERSION:
        raise Malformed(f"it has version {raw.get('version')!r}, and this aisdatapipes reads version {VERSION}")
    try:
        about = msgspec.convert(raw, _About)
    except msgspec.ValidationError as error:
        raise Malformed(f"{ABOUT} is not as it should be: {error}") from None
    if not about.sources:
        raise Malformed(f"{ABOUT} has no sources")
    return about


def _array(data: bytes, name: str) -> npt.NDArray[Any]:
    """A row of integers; a view of ``data``."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise Malformed(f"{name} is no array of numpy's format 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 1 or dtype.kind not in "iu":
        raise Malformed(f"{name} holds {dtype} in the shape {shape} instead of a row of integers")
    if shape[0] * dtype.itemsize != len(data) - file.tell():
        raise Malformed(f"{name} claims {shape[0]} numbers, and has {len(data) - file.tell()} bytes")
    return np.frombuffer(data, dtype, offset=file.tell())


def _checked_ends(
    about: _About, lengths: npt.NDArray[Any], sizes: npt.NDArray[Any], length: int
) -> npt.NDArray[np.int64]:
    """Where each name ends, if all counts agree: shape (N,)."""
    of_sources = [source.objects for source in about.sources]
    counts = {"objects": about.objects, "its sources": sum(of_sources), LENGTHS: len(lengths), SIZES: len(sizes)}
    if len(set(counts.values())) > 1 or min(of_sources, default=0) < 0:
        raise Malformed(f"its counts do not agree: {', '.join(f'{what} {count}' for what, count in counts.items())}")
    # Each by itself first: a sum of large ones could come around to the right number.
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= length:
        raise Malformed(f"{LENGTHS} has {lengths.min()} to {lengths.max()}, and there are {length} bytes of names")
    if len(sizes) and not -1 <= int(sizes.min()) <= int(sizes.max()) <= _LARGEST:
        raise Malformed(f"{SIZES} has {sizes.min()} to {sizes.max()}, which are no sizes of objects")
    ends = np.cumsum(lengths, dtype=np.int64)
    if (int(ends[-1]) if len(ends) else 0) != length:
        raise Malformed(f"{LENGTHS} adds up to {ends[-1] if len(ends) else 0}, and there are {length} bytes of names")
    return ends
