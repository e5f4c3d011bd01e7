"""Samples of WebDataset shards, by index."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from aisdatapipes.datasets.indexing import checked_index, clusters_of, joined_columns, kept_tables, resolved
from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.options import MapOptions
from aisdatapipes.datasets.shard_reader import AISShardReader
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.join import joined_by_key
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.located import located_samples
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.recipes import Chosen
from aisdatapipes.flow.resolve import IndexMode
from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.pipes.decoding import Decoding, decoder_of
from aisdatapipes.pipes.resume import Items
from aisdatapipes.pipes.samples import checked_missing
from aisdatapipes.wire.samples import Fields, Missing

log = logging.getLogger("aisdatapipes")


class AISShardMapDataset(AISBaseMapDataset):
    """``(key, {extension: content})`` of the sample at an index, out of plain tar shards; a batch in one pass.

    Shards are listed and their indexes read at construction; then a sample is a ranged read, straight to the target
    that owns its shard, and neighbours of a batch are read together. Nothing has to be repacked.

    Args:
        bucket_list: As ``ais_source_list`` in `AISBaseMapDataset`; every object in it is a tar that is not compressed.
        prefix_map: As there, and so are ``options``.
        fields: Exactly these extensions, in this order, in every sample, and nothing else is read:
            ``("jpg;jpeg;png", "cls")``; ``;`` separates alternatives. None for those of the sample's shard and of the
            shards before it.
        missing: A sample that lacks one: ``"zero"`` fills in ``b""``, ``"error"`` raises.
        decode: What becomes of the contents: a callable ``(key, extension, content) -> value``, or names of
            WebDataset's handlers, ``("pil", "cls")``: see `Decoder`. None for bytes.
        index: ``"server"`` has AIStore (5.0 or later) index the bucket, if it has not yet, and waits for it.
            ``"client"`` reads the shards' headers, once, and keeps what it found on this machine. ``"auto"`` takes the
            server's indexes if every shard has one, and else does as ``"client"``: it never writes to the cluster.
        join: As in `AISShardReader`.
        show_progress: Of indexing.

    ``dataset[i]``: ``(str, ZeroDict)``, of contents or decoded values. Raises ``IndexError`` outside of the dataset;
        ``CorruptBody`` for a shard that was overwritten since the dataset was made; ``CorruptSample`` for what cannot
        be decoded; ``NotFound`` and the like.
    Memory: 16 bytes a field, 16 a sample, and its key; shared with workers that are forked.
    Raises: at construction, ``CorruptShard`` for a shard that cannot be read or whose members make no samples.
    """

    def __init__(
        self,
        bucket_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        *,
        fields: Iterable[str] | None = None,
        missing: Missing = "zero",
        decode: Decoding = None,
        index: IndexMode = "auto",
        join: Any = None,
        show_progress: bool = False,
        **options: Unpack[MapOptions],
    ) -> None:
        if checked_missing(missing) == "skip":
            raise ConfigError("AISShardMapDataset has a sample at each index: missing is 'zero' or 'error', not 'skip'")
        if checked_index(index) == "off":
            raise ConfigError(
                "AISShardMapDataset needs an index: 'auto', 'server' or 'client'; AISShardReader does not"
            )
        self._columns = joined_columns(join, type(self).__name__, options.get("config"), options.get("name_filter"))
        self._chosen = Chosen(None if fields is None else Fields.parse(fields, missing), missing)
        self._decode = decoder_of(decode, missing)
        super().__init__(bucket_list, prefix_map, **options)  # which lists
        self._table = self._indexed(index, kept_tables(bucket_list, join), show_progress=show_progress)

    def _indexed(self, index: IndexMode, kept: Sequence[ShardTable], *, show_progress: bool) -> ShardTable:
        meter = Meter()
        try:
            listings = [self._listing, *(column.listing(meter) for column in self._columns)]
            tables = [self._table_of(listing, index, meter, kept, show_progress=show_progress) for listing in listings]
        finally:
            # What was asked for an index is no object that anybody got.
            self._shared.add(dataclasses.replace(meter, objects=0, bytes=0), Meter())
        return joined_by_key(tables)

    def _table_of(
        self, listing: Listing, index: IndexMode, meter: Meter, kept: Sequence[ShardTable], *, show_progress: bool
    ) -> ShardTable:
        clusters = self._clusters()
        found = resolved(listing, index, clusters, meter, show_progress=show_progress, kept=kept)
        if found.table is None:
            found = resolved(listing, "client", clusters, meter, show_progress=show_progress)
        assert found.table is not None  # noqa: S101 - an index is made, or an error raised
        return found.table

    def _clusters(self) -> Clusters:
        return clusters_of(self._catalog, *self._columns)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._table)

    def __getitem__(self, index: int) -> tuple[str, AISShardReader.ZeroDict]:
        (sample,) = self._samples([index], Tolerance())  # one sample cannot be skipped
        return sample

    def __getitems__(self, indices: list[int]) -> list[tuple[str, AISShardReader.ZeroDict]]:
        """The samples at ``indices``, in this order, in one pass of the engine."""
        if type(self).__getitem__ is not AISShardMapDataset.__getitem__:
            return super().__getitems__(indices)  # a subclass says what a sample is
        return self._samples(indices, self._tolerance)

    def positions_of(self, key: str) -> list[int]:
        """Indices of the samples with this key: none, one, or one in each of several shards."""
        return self._table.positions_of(key)

    def item_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each sample, as far as it is read: shape (N,)."""
        fields = self._chosen.fields
        return self._table.sample_sizes(
            None if fields is None else (one for each in fields.alternatives for one in each)
        )

    def item_name(self, index: int) -> str:
        """Shard and key of a sample."""
        sample = self._table[index]
        return f"{self._table.shards[sample.shard]}: {sample.key}"

    def identity(self) -> Items:
        """What a sampler's state must be of."""
        return Items(self._table.fingerprint, len(self))

    def _samples(self, indices: Sequence[int], tolerance: Tolerance) -> list[tuple[str, AISShardReader.ZeroDict]]:
        positions = np.array([self._position(index, len(self)) for index in indices], np.int64)
        meter = Meter()
        try:
            found = located_samples(
                self._table, [positions], self._clusters(), self._fetch, meter, self._chosen, tolerance,
                together=True, decode=self._decode,
            )  # fmt: skip
            return [(key, AISShardReader.ZeroDict(sample)) for key, sample in found]
        finally:
            self._shared.add(meter, Meter())
