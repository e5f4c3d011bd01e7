"""A saved listing as bytes: a zip archive of plain arrays, which ``numpy.load`` opens and any unzip takes apart.

Members, version 1 (`.npz`, numpy's documented format; integers are little-endian, of any width)::

    manifest.json   what the arrays mean: see `Saved`, whose fields it has, and "format", "version", "objects"
    names.npy       all names one after the other, in UTF-8, as uint8
    lengths.npy     bytes of each name: shape (N,)
    sizes.npy       bytes of each object, -1 where unknown: shape (N,)

Of shards also where their samples are: `aisdatapipes.wire.manifest_samples`. Columns that come later are further
arrays, which this version does not read. The same listing gives the same bytes.
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

from aisdatapipes.wire.archived_arrays import Members, member, narrow, write_arrays
from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.manifest_samples import SavedSamples, read_samples, write_samples

FORMAT, VERSION = "aisdatapipes manifest", 1
ABOUT, NAMES, LENGTHS, SIZES = "manifest.json", "names.npy", "lengths.npy", "sizes.npy"

_LARGEST = np.iinfo(np.int64).max


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
        samples: Where the samples in the objects are, which are shards; None where that is not saved.
    """

    sources: tuple[SavedSource, ...]
    fingerprint: str
    name_filter: SavedFilter | None
    blob: bytes | bytearray
    ends: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    samples: SavedSamples | None = None


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
        LENGTHS: narrow(np.diff(saved.ends, prepend=0)),
        SIZES: narrow(saved.sizes),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        # The standard library's JSON: msgspec refuses the half characters that stand for bytes that are no UTF-8.
        archive.writestr(member(ABOUT), json.dumps(about, indent=1))
        write_arrays(archive, arrays)
        if saved.samples is not None:
            write_samples(archive, saved.samples)
    return file.getvalue()


def decoded_manifest(data: bytes) -> Saved:
    """What the bytes of a manifest say; raises `Malformed`. Memory: the arrays, at most 1032 times ``data``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = Members(archive, len(data))
            about = _about(members.content(ABOUT))
            blob, lengths, sizes = members.blob(NAMES), members.array(LENGTHS), members.array(SIZES)
            samples = read_samples(members, about.objects)
    except Malformed:
        raise
    except Exception as error:  # noqa: BLE001 - see below
        # zipfile, zlib and json document little of what they raise for such bytes: a dozen classes were seen.
        raise Malformed(f"it is no complete archive ({type(error).__name__}: {error})") from None
    ends = _checked_ends(about, lengths, sizes, len(blob))
    sources, name_filter = tuple(about.sources), about.name_filter
    return Saved(sources, about.fingerprint, name_filter, blob, ends, sizes.astype(np.int64), samples)


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
