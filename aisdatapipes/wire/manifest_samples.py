"""Where the samples of shards are, as further members of a saved listing, one row a shard, a sample or a field.

Members, version 1 (integers are little-endian, of any width)::

    samples.json       "version", "fingerprint" of the table, "index" (how it was made), "extensions" in order of
                       appearance, "checksums" of the shards as the cluster keeps them
    shard_sizes.npy    bytes of each shard: shape (S,)
    shard_kinds.npy    how many extensions there are up to the end of each: shape (S,)
    shard_samples.npy  samples in each: shape (S,)
    keys.npy           the keys of all samples, one after the other, in UTF-8, as uint8
    key_lengths.npy    bytes of each key: shape (N,)
    sample_fields.npy  fields of each sample: shape (N,)
    field_kinds.npy    extension of each field, as a number: shape (F,)
    field_blocks.npy   where its data begin, in units of 512 bytes: shape (F,)
    field_sizes.npy    bytes of it: shape (F,)

A listing without them is one whose samples nobody has looked for; a reader that does not know them passes over them.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from aisdatapipes.wire.archived_arrays import Members, member, narrow, write_arrays
from aisdatapipes.wire.malformed import Malformed

VERSION = 1
ABOUT, KEYS = "samples.json", "keys.npy"
# Of each array the field of `SavedSamples`.
ARRAYS = {
    "shard_sizes.npy": "shard_sizes",
    "shard_kinds.npy": "shard_kinds",
    "shard_samples.npy": "shard_samples",
    "key_lengths.npy": "key_lengths",
    "sample_fields.npy": "sample_fields",
    "field_kinds.npy": "field_kinds",
    "field_blocks.npy": "field_blocks",
    "field_sizes.npy": "field_sizes",
}
_BLOCK = 512

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SavedSamples:
    """What is saved of the samples: see the head of this module.

    Args:
        fingerprint: Of the table: 16 hex digits.
        index: How the indexes were come by: ``"server"`` and the like.
    """

    fingerprint: str
    index: str
    extensions: tuple[str, ...]
    checksums: tuple[str, ...]
    shard_sizes: Numbers
    shard_kinds: Numbers
    shard_samples: Numbers
    keys: bytes | bytearray
    key_lengths: Numbers
    sample_fields: Numbers
    field_kinds: Numbers
    field_blocks: Numbers
    field_sizes: Numbers


class _About(msgspec.Struct):
    version: int
    fingerprint: str
    index: str
    extensions: list[str]
    checksums: list[str]


def write_samples(archive: zipfile.ZipFile, saved: SavedSamples) -> None:
    """Append the members."""
    about = {
        "version": VERSION,
        "fingerprint": saved.fingerprint,
        "index": saved.index,
        "extensions": saved.extensions,
        "checksums": saved.checksums,
    }
    archive.writestr(member(ABOUT), json.dumps(about, indent=1))
    arrays = {name: narrow(getattr(saved, column)) for name, column in ARRAYS.items()}
    write_arrays(archive, {KEYS: np.frombuffer(saved.keys, np.uint8), **arrays})


def read_samples(members: Members, shards: int) -> SavedSamples | None:
    """What `write_samples` wrote of so many shards, None where it did not; raises `Malformed`."""
    if ABOUT not in members:
        return None
    about = _about(members.content(ABOUT))
    arrays = {column: members.array(name) for name, column in ARRAYS.items()}
    saved = SavedSamples(
        about.fingerprint,
        about.index,
        tuple(about.extensions),
        tuple(about.checksums),
        keys=members.blob(KEYS),
        **arrays,
    )
    _check_counts(saved, shards)
    _check_places(saved)
    return saved


def _about(data: bytes) -> _About:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{ABOUT} is no JSON: {error}") from None
    version = raw.get("version") if isinstance(raw, dict) else None
    if version != VERSION:
        raise Malformed(f"its samples have version {version!r}, and this aisdatapipes reads version {VERSION}")
    try:
        return msgspec.convert(raw, _About)
    except msgspec.ValidationError as error:
        raise Malformed(f"{ABOUT} is not as it should be: {error}") from None


def _check_counts(saved: SavedSamples, shards: int) -> None:
    """As many rows everywhere as there are shards, samples and fields."""
    samples, fields = len(saved.key_lengths), len(saved.field_kinds)
    # A sample has a field, and a name ends where the keys do: a sum of large numbers could come around, so first each.
    _within(saved.shard_samples, 0, samples, "shard_samples.npy")
    _within(saved.sample_fields, 1, max(1, fields), "sample_fields.npy")
    _within(saved.key_lengths, 0, len(saved.keys), "key_lengths.npy")
    agree = (
        (shards, len(saved.checksums)), (shards, len(saved.shard_sizes)), (shards, len(saved.shard_kinds)),
        (shards, len(saved.shard_samples)), (samples, _sum(saved.shard_samples)), (samples, len(saved.sample_fields)),
        (fields, _sum(saved.sample_fields)), (fields, len(saved.field_blocks)), (fields, len(saved.field_sizes)),
        (len(saved.keys), _sum(saved.key_lengths)),
    )  # fmt: skip
    if any(one != other for one, other in agree):
        raise Malformed(f"its counts of {shards} shards, {samples} samples and {fields} fields do not agree")


def _check_places(saved: SavedSamples) -> None:
    """Fields lie in their shards, and have extensions that are there."""
    kinds = len(saved.extensions)
    _within(saved.shard_sizes, 0, np.iinfo(np.int64).max, "shard_sizes.npy")
    _within(saved.shard_kinds, 0, kinds, "shard_kinds.npy")
    _within(saved.field_kinds, 0, kinds - 1, "field_kinds.npy")
    _within(saved.field_blocks, 0, np.iinfo(np.uint32).max, "field_blocks.npy")
    _within(saved.field_sizes, 0, np.iinfo(np.int64).max, "field_sizes.npy")
    if len(saved.shard_kinds) and (np.diff(saved.shard_kinds.astype(np.int64)) < 0).any():
        raise Malformed("shard_kinds.npy counts downwards")
    of_fields = np.repeat(np.repeat(saved.shard_sizes.astype(np.int64), saved.shard_samples), saved.sample_fields)
    starts = saved.field_blocks.astype(np.int64) * _BLOCK
    if (saved.field_sizes.astype(np.int64) > of_fields - starts).any():
        raise Malformed("a field ends behind the end of its shard")


def _within(values: Numbers, least: int, most: int, name: str) -> None:
    if len(values) and not least <= int(values.min()) <= int(values.max()) <= most:
        raise Malformed(f"{name} has {values.min()} to {values.max()}, and there can be {least} to {most}")


def _sum(values: Numbers) -> int:
    return int(values.sum(dtype=np.int64)) if len(values) else 0
