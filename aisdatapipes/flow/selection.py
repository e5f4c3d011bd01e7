"""Small fields of many samples, such as labels, that lie far apart: which of them are picked out of their shards.

Read one by one each costs a request; the shard's target picks all of a shard in one (`store.selection`). It walks all
headers of the shard for that: so it pays where most of what it picks is wanted here, and there is little of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from aisdatapipes.flow.recipes import Chosen
from aisdatapipes.flow.runs import Numbers, joined
from aisdatapipes.flow.shardtable import Rows, ShardTable
from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire.samples import split
from aisdatapipes.wire.tar import TarParser
from aisdatapipes.wire.tar_header import BLOCK

# Headers that a target walks in the time that a request takes (benchmarks/labels.py).
_HEADERS_A_REQUEST = 4
_LARGEST_BYTES = 8 << 20  # of what is picked out of one shard
_KEPT_BYTES = 32 << 20  # of what was picked out of all shards, where samples come from any of them
_PLACE_BYTES = 16  # that each field takes here besides
_PLAIN = re.compile(r"[a-z0-9_.+-]+")  # upper and lower case of these is the same for everybody


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """The fields that are picked out of one shard.

    Args:
        starts: First byte of each in the shard, ascending: shape (n,).
        begins: First byte of each in what is picked, where they come one behind the other: shape (n,).
        cost: Bytes of a tar of them, about.
    """

    starts: Numbers
    begins: Numbers
    cost: int

    def places(self, starts: Numbers) -> Numbers:
        """Where the fields that begin there in the shard begin in what is picked."""
        found: Numbers = self.begins[np.searchsorted(self.starts, starts)]
        return found

    def starts_of(self, begins: Numbers) -> Numbers:
        """The reverse; of empty fields anything."""
        found: Numbers = self.starts[np.searchsorted(self.begins, begins, side="right") - 1]
        return found


class Selections:
    """What is picked out of the shards of a table.

    Args:
        table: Where the samples are.
        chosen: What a sample is made of.
        share: Which part of all samples is wanted here, about; 0 picks nothing.
        keep: Samples come from any shard at any time, so what was picked is kept.

    Attributes:
        any: Whether anything is picked at all.
        pattern: What the names of these fields match, and no others do.
    """

    def __init__(self, table: ShardTable, chosen: Chosen, share: float, *, keep: bool) -> None:
        self._table, self._share, self.keep = table, share, keep
        fields = chosen.fields.alternatives if chosen.fields is not None else ()
        extensions = {extension for field in fields for extension in field} & set(table.extensions)
        self._wanted = np.array([extension in extensions for extension in table.extensions], bool)  # by kind
        self.pattern = rf"(?i)(^|/)[^/.]+\.({'|'.join(map(re.escape, sorted(extensions)))})$"
        self._not: set[int] = set()  # shards that nothing is picked out of
        self.any = bool(share and extensions) and not table.is_joined and all(map(_PLAIN.fullmatch, extensions))
        if self.any and keep:
            self.any = table.sample_sizes(extensions).sum() + _PLACE_BYTES * len(table) <= _KEPT_BYTES

    def of(self, shard: int) -> Selected | None:
        """What is picked out of a shard; None where its fields are better read one by one."""
        if not self.any or shard in self._not:
            return None
        found = self._found(shard)
        if found is None:
            self._not.add(shard)
        return found

    def stop(self) -> None:
        """Pick nothing any more: what came was not what was asked for, or nothing came."""
        self.any = False

    def contents(self, shard: int, archive: bytes) -> bytes | None:
        """All that is picked out of a shard, one behind the other, out of a tar of it; None where it is another one."""
        parser = TarParser(self._table.shards[shard], link_bytes=0, tied=True)
        try:
            found = parser.feed(archive)
            parser.close()
        except CorruptShard:
            return None
        rows, fields = self._fields(shard)
        samples = np.searchsorted(rows.ends, fields, side="right").tolist()
        kinds, sizes = rows.kinds[fields].tolist(), rows.sizes[fields].tolist()
        keys, extensions = rows.keys, self._table.extensions
        expected = [
            ((keys[sample], extensions[kind]), size) for sample, kind, size in zip(samples, kinds, sizes, strict=True)
        ]
        if parser.unterminated or [(split(member.name), len(member.data)) for member in found] != expected:
            return None
        return b"".join(member.data for member in found)

    def _found(self, shard: int) -> Selected | None:
        if len(self._table.of_shard(shard)) * BLOCK > _LARGEST_BYTES:
            return None
        rows, fields = self._fields(shard)
        starts, sizes = rows.starts[fields], rows.sizes[fields]
        cost = int((sizes + -sizes % BLOCK + BLOCK).sum()) + 2 * BLOCK
        # Hard links are where their targets are, and have no content of their own.
        if cost > _LARGEST_BYTES or (np.diff(starts, prepend=-1) <= 0).any():
            return None
        limit = self._table.shards[shard].size
        requests = len(joined(np.zeros_like(starts), starts, sizes, limit, together=False).starts)
        if requests * self._share * _HEADERS_A_REQUEST < len(rows.kinds):
            return None
        return Selected(starts, np.cumsum(sizes) - sizes, cost)

    def _fields(self, shard: int) -> tuple[Rows, Numbers]:
        """All fields of a shard, and which of them are picked."""
        rows = self._table.rows(self._table.of_shard(shard))
        return rows, np.flatnonzero(self._wanted[rows.kinds])
