"""Samples whose fields lie in shards of several sources: tables that are joined by the keys of their samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.model.errors import CorruptShard

log = logging.getLogger("aisdatapipes")

Numbers = npt.NDArray[np.int64]


def joined_by_key(tables: Sequence[ShardTable]) -> ShardTable:
    """The samples of the first table, each with the fields of the samples of the others that have its key.

    Of several samples with that key, which is that of one shard only, the one in the shard at the same place among the
    shards of its table counts. What has no partner is told in the log: a sample of the first table then lacks fields,
    one of another table is left out. All samples are to have all extensions.

    Memory: the result, and the tables; 24 bytes a sample while they are joined.
    Raises: ``CorruptShard`` for a key that several samples have, of which none is in the shard at the same place, and
        for an extension that both samples have.
    """
    first, *others = tables
    for other in others:
        first = _pair(first, other)
    return first


def _pair(left: ShardTable, right: ShardTable) -> ShardTable:
    partners = _partners(left, right)
    rows = np.flatnonzero(partners >= 0)
    _tell(left, right, partners)
    _check_extensions(left, right, rows, partners)
    own, theirs = np.diff(left._begins), np.zeros(len(left), np.int64)
    theirs[rows] = right._begins[partners[rows] + 1] - right._begins[partners[rows]]
    begins = np.concatenate([[0], np.cumsum(own + theirs)])
    # Where the fields of each sample come from, and where they go to.
    left_from, left_to = np.arange(left._begins[-1]), _spread(begins[:-1], own)
    right_from = _spread(right._begins[partners[rows]], theirs[rows])
    right_to = _spread(begins[rows] + own[rows], theirs[rows])

    extensions = list(dict.fromkeys((*left.extensions, *right.extensions)))
    renumbered = np.array([extensions.index(one) for one in right.extensions], np.uint32)
    homes = left._homes if left._homes is not None else np.repeat(_shards(left), own)

    def column(mine: npt.NDArray[np.generic], other: npt.NDArray[np.generic], kind: type) -> npt.NDArray[np.generic]:
        found = np.empty(begins[-1], kind)
        found[left_to], found[right_to] = mine[left_from], other[right_from]
        return found

    there = np.repeat(_shards(right) + len(left.shards), np.diff(right._begins))
    kinds = column(left._kinds, renumbered[right._kinds] if len(renumbered) else right._kinds, np.uint32)
    return ShardTable(
        left.shards + right.shards,
        left.checksums + right.checksums,
        extensions,
        np.full(len(left.shards) + len(right.shards), len(extensions), np.int64),
        left._firsts,
        begins,
        left._keys,
        left._key_ends,
        kinds,  # type: ignore[arg-type]
        column(left._blocks, right._blocks, np.uint32),  # type: ignore[arg-type]
        column(left._sizes, right._sizes, np.int64),  # type: ignore[arg-type]
        column(homes, there, np.uint32),  # type: ignore[arg-type]
    )


def _partners(left: ShardTable, right: ShardTable) -> Numbers:
    """The sample of ``right`` that has the key of each sample of ``left``, -1 where none has: shape (N,)."""
    (sorted_left, order_left), (sorted_right, order_right) = left._by_digest, right._by_digest
    low = np.searchsorted(sorted_right, sorted_left, "left")
    counts = np.searchsorted(sorted_right, sorted_left, "right") - low
    partners = np.full(len(left), -1, np.int64)
    single = counts == 1
    partners[order_left[single]] = order_right[low[single]]
    several = zip(order_left[counts > 1].tolist(), low[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True)
    shards_left, shards_right = _shards(left), _shards(right)
    for position, begin, count in several:
        same = [
            one for one in sorted(order_right[begin : begin + count].tolist()) if right.key(one) == left.key(position)
        ]
        near = [one for one in same if shards_right[one] == shards_left[position]]
        if same and not near:
            names = " and ".join(right.shards[int(shards_right[one])] for one in same[:2])
            raise CorruptShard(
                f"join: which sample belongs to {left.key(position)!r}? {names} have one each; give keys that are "
                "different in all shards, or as many shards, in the same order, on both sides",
                url=left.shards[int(shards_left[position])],
            )
        partners[position] = near[0] if near else -1
    wrong = [one for one in np.flatnonzero(partners >= 0).tolist() if left.key(one) != right.key(int(partners[one]))]
    partners[wrong] = -1  # two keys of one digest
    return partners


def _check_extensions(left: ShardTable, right: ShardTable, rows: Numbers, partners: Numbers) -> None:
    """No field twice in a sample."""
    for extension in set(left.extensions) & set(right.extensions):
        both = _has(left, extension)[rows] & _has(right, extension)[partners[rows]]
        if both.any():
            row = rows[both.argmax()]
            shards = left.shards[int(_shards(left)[row])], right.shards[int(_shards(right)[partners[row]])]
            raise CorruptShard(
                f"join: sample {left.key(int(row))!r} has a field {extension!r} here and in {shards[1]}; each field "
                "may be in one of the sources only",
                url=shards[0],
            )


def _has(table: ShardTable, extension: str) -> npt.NDArray[np.bool_]:
    """Which samples have a field with this extension: shape (N,)."""
    fields = table._kinds == table.extensions.index(extension)
    return np.add.reduceat(fields, table._begins[:-1]) > 0 if len(table) else np.zeros(0, np.bool_)


def _shards(table: ShardTable) -> Numbers:
    """Index of the shard of each sample: shape (N,)."""
    return np.searchsorted(table._firsts, np.arange(len(table)), side="right") - 1


def _spread(begins: Numbers, counts: Numbers) -> Numbers:
    """``begin, begin + 1, …`` of each run, one run behind the other: shape (sum of counts,)."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + counts, counts)


def _tell(left: ShardTable, right: ShardTable, partners: Numbers) -> None:
    """What has no partner, in the log."""
    alone = np.flatnonzero(partners < 0)
    over = np.setdiff1d(np.arange(len(right)), partners)
    for table, which, what in ((left, alone, "lack its fields"), (right, over, "are left out")):
        if len(which):
            other = right if table is left else left
            log.warning(
                "join: %d of %d samples, such as %r of %s, have no partner in %s, and %s",
                len(which), len(table), table.key(int(which[0])), table.shards[int(_shards(table)[which[0]])],
                f"{other.shards[0]} and so on" if other.shards else "no shard", what,
            )  # fmt: skip
