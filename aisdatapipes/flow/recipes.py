"""What becomes of the fields of an indexed sample: which are read, and under which names they are handed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.wire.samples import Fields, Missing


@dataclass(frozen=True, slots=True)
class Chosen:
    """What every sample is to have.

    Args:
        fields: As `Fields.parse` makes them; None for the extensions of the sample's shard and of the shards before it.
        missing: A sample that lacks one: see `Fields`.
    """

    fields: Fields | None = None
    missing: Missing = "zero"


class Recipe(NamedTuple):
    """How samples that have the same extensions are made.

    Attributes:
        reads: Which of a sample's fields are read, in archive order.
        made: Name of each field of the result, and which of ``reads`` it is; None for one that is filled in.
    """

    reads: tuple[int, ...]
    made: tuple[tuple[str, int | None], ...]


class Recipes:
    """The recipe of any sample of a table; mostly all samples have one and the same."""

    def __init__(self, table: ShardTable, chosen: Chosen) -> None:
        self._table, self._chosen = table, chosen
        self._found: dict[tuple[tuple[int, ...], int], Recipe | None] = {}

    def of(self, kinds: Sequence[int], shard: int, key: str) -> Recipe | None:
        """The recipe of a sample; None for one that is to be skipped.

        Args:
            kinds: Index in the table's extensions of each of its fields, in archive order.
            shard: Index of its shard.
            key: Its key.

        Raises: ``CorruptShard`` with ``missing="error"`` for one that lacks a field.
        """
        like = (tuple(kinds), 0 if self._chosen.fields else self._table.known_in(shard))
        try:
            return self._found[like]
        except KeyError:
            return self._found.setdefault(like, self._made(kinds, shard, key))

    def _made(self, kinds: Sequence[int], shard: int, key: str) -> Recipe | None:
        chosen, table = self._chosen, self._table
        # In the place of contents: which of its fields it is. What is filled in is of another type.
        present: dict[str, Any] = {table.extensions[kind]: field for field, kind in enumerate(kinds)}
        extensions = table.extensions_of(shard)
        picked: dict[str, Any] | None
        if chosen.fields is not None:
            picked = chosen.fields.picked(present, key, table.shards[shard])
        elif len(extensions) == len(present):
            picked = present
        else:
            wanted = Fields(tuple((extension,) for extension in extensions), chosen.missing)
            picked = wanted.picked(present, key, table.shards[shard])
        if picked is None:
            return None
        reads = sorted({field for field in picked.values() if isinstance(field, int)})
        made = ((name, reads.index(field) if isinstance(field, int) else None) for name, field in picked.items())
        return Recipe(tuple(reads), tuple(made))
