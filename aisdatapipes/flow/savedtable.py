"""Tables of samples that are kept with a listing: as what is saved, back, and of some of their shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.flow.shardtable import ShardTable, sized
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.manifest_samples import SavedSamples

_Shard = tuple[ShardTable, int]  # a table, and which of its shards


def saved_table(table: ShardTable, index: str) -> SavedSamples:
    """What is saved of a table, and of how it was made."""
    known, firsts, begins, keys, key_ends, kinds, blocks, sizes = table.columns
    return SavedSamples(
        table.fingerprint,
        index,
        table.extensions,
        table.checksums,
        shard_sizes=np.array([shard.size for shard in table.shards], np.int64),
        shard_kinds=known,
        shard_samples=np.diff(firsts),
        keys=keys,
        key_lengths=np.diff(key_ends, prepend=0),
        sample_fields=np.diff(begins),
        field_kinds=kinds,
        field_blocks=blocks,
        field_sizes=sizes,
    )


def restored_table(saved: SavedSamples, shards: Sequence[AISURL]) -> ShardTable:
    """The table that was saved, of these shards."""
    return ShardTable(
        [sized(shard, size) for shard, size in zip(shards, saved.shard_sizes.tolist(), strict=True)],
        saved.checksums,
        saved.extensions,
        saved.shard_kinds.astype(np.int64),
        _starts(saved.shard_samples),
        _starts(saved.sample_fields),
        saved.keys,
        np.cumsum(saved.key_lengths, dtype=np.int64),
        saved.field_kinds.astype(np.uint32),
        saved.field_blocks.astype(np.uint32),
        saved.field_sizes.astype(np.int64),
    )


def table_of(shards: Sequence[AISURL], tables: Sequence[ShardTable]) -> ShardTable | None:
    """The table of just these shards, out of tables that have them; None where one of them is in none, or has grown.

    It is what the indexes of these shards would make, with the same fingerprint.
    """
    known: dict[tuple[str, ...], _Shard | None] = {}
    for table in tables:
        for number, shard in enumerate(table.shards):
            # Two clusters can have shards of one name: then neither is it.
            known[_named(shard)] = None if _named(shard) in known else (table, number)
    found = [known.get(_named(shard)) for shard in shards]
    parts = [
        part
        for shard, part in zip(shards, found, strict=True)
        if part is not None and shard.size in (-1, part[0].shards[part[1]].size)
    ]
    if len(parts) < len(shards):
        return None
    (first, *others) = tables
    if not others and len(parts) == len(first.shards) and all(map(_same, shards, first.shards)):
        return first  # the whole of it, without a copy
    return _joined(shards, parts)


def _joined(shards: Sequence[AISURL], parts: Sequence[_Shard]) -> ShardTable:
    extensions: dict[str, int] = {}
    known, checksums, urls = [], [], []
    samples, counts, lengths, kinds, blocks, sizes = ([np.zeros(0, np.int64)] for _ in range(6))
    keys = bytearray()
    for url, (table, number) in zip(shards, parts, strict=True):
        _, _, begins, blob, key_ends, of_fields, starts, of_bytes = table.columns
        rows = table.of_shard(number)
        fields = slice(int(begins[rows.start]), int(begins[rows.stop]))
        ends = key_ends[rows.start : rows.stop]
        before = int(key_ends[rows.start - 1]) if rows.start else 0
        keys += blob[before : int(ends[-1]) if len(ends) else before]
        lengths.append(np.diff(ends, prepend=before))
        samples.append(np.array([len(rows)]))
        counts.append(np.diff(begins[rows.start : rows.stop + 1]))
        kinds.append(_renumbered(of_fields[fields], table.extensions, extensions))
        blocks.append(starts[fields])
        sizes.append(of_bytes[fields])
        known.append(len(extensions))
        checksums.append(table.checksums[number])
        urls.append(sized(url, table.shards[number].size))
    return ShardTable(
        urls,
        checksums,
        tuple(extensions),
        np.array(known, np.int64),
        _starts(np.concatenate(samples)),
        _starts(np.concatenate(counts)),
        keys,
        np.cumsum(np.concatenate(lengths), dtype=np.int64),
        np.concatenate(kinds).astype(np.uint32),
        np.concatenate(blocks).astype(np.uint32),
        np.concatenate(sizes).astype(np.int64),
    )


def _renumbered(
    kinds: npt.NDArray[np.uint32], names: Sequence[str], extensions: dict[str, int]
) -> npt.NDArray[np.int64]:
    """The kinds as numbers in ``extensions``, which get those that are new, in order of appearance."""
    there, firsts = np.unique(kinds, return_index=True)
    numbers = np.zeros(len(names), np.int64)
    for kind in there[np.argsort(firsts)].tolist():
        numbers[kind] = extensions.setdefault(names[kind], len(extensions))
    return numbers[kinds]


def _starts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _same(one: AISURL, other: AISURL) -> bool:
    return one == other and one.endpoint == other.endpoint


def _named(shard: AISURL) -> tuple[str, ...]:
    return shard.provider, shard.namespace, shard.bucket, shard.name
