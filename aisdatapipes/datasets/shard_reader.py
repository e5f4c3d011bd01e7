"""WebDataset shards as samples, in a stream."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from aistore.sdk.obj.object import Object
from typing_extensions import Unpack

from aisdatapipes.datasets.indexing import (
    checked_index,
    checked_join,
    clusters_of,
    joined,
    joined_columns,
    kept_tables,
)
from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.options import IterOptions
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.flow.buffered import Buffer
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.located import located_samples
from aisdatapipes.flow.members import sample_counts
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.flow.recipes import Chosen
from aisdatapipes.flow.resolve import IndexMode, Resolved
from aisdatapipes.flow.samples import Shard, samples
from aisdatapipes.flow.shards import streamed
from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.model.world import World
from aisdatapipes.order.blocks import Blocks
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.pipes.decoding import Decoding, decoder_of
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Cursor, Identity, Items
from aisdatapipes.pipes.samples import checked_missing
from aisdatapipes.wire.samples import Fields, Missing

log = logging.getLogger("aisdatapipes")


class AISShardReader(AISBaseIterDataset):
    """``(key, {extension: content})`` of every sample in every shard.

    With an index of every shard, samples are dealt and shuffled one by one, as objects are by `AISIterDataset`: an
    exact length, ranks of equal length, a state for any world. Without, shards are dealt whole, worker by worker, rank
    by rank; ``len()`` then counts the samples of this rank by the cluster's listing of each archive, once; a
    ``TypeError`` where it cannot list them (zstd, bz2, xz, an ETL).

    Args:
        bucket_list: As ``ais_source_list`` in `AISBaseIterDataset`; every object in it is a shard: tar (also gzip,
            bz2, xz, zstd) or zip.
        prefix_map: As there, and so are ``partition_sources_by_worker`` and ``options``.
        etl_name: ETL on the cluster that is applied to each shard as a whole; its result is a shard again.
        show_progress: One bar for the job, on a terminal; a line now and then elsewhere.
        fields: Exactly these extensions, in this order, in every sample: ``("jpg;jpeg;png", "cls")``; ``;`` separates
            alternatives. None for those of the sample's shard and of the shards before it.
        missing: A sample that lacks one: ``"zero"`` fills in ``b""``, ``"error"`` raises, ``"skip"`` leaves it out
            (counted).
        decode: What becomes of the contents: a callable ``(key, extension, content) -> value``, or names of
            WebDataset's handlers, ``("pil", "cls")``: see `Decoder`. None for bytes.
        index: ``"auto"`` takes the index that AIStore (5.0 or later) keeps, if there is one of every shard, and with
            one rank also one that was made on this machine; else shards are streamed. ``"server"`` has the cluster
            make what it lacks, and waits for it. ``"client"`` makes it here, by one pass over the headers, and keeps
            it. ``"off"`` streams. Where it decides itself, the log (level INFO) says what was found and what to do.
        join: Further sources, whose samples are joined to those of ``bucket_list`` by their keys: with
            ``AISShardReader("ais://b/img-", join="ais://b/txt-")`` a sample has the fields of both. One source, or a
            list; each may be a list again. Samples, and their order, are those of ``bucket_list``; one that has no
            partner lacks fields, as ``missing`` says; what is no partner of any is left out; the log (level WARNING)
            tells how many. Where several shards have the same key, shards belong together by their places in the
            listings. Needs an index.
        block_bytes: With ``shuffle``: 0 shuffles samples one by one, over all shards, and reads each by a request of
            its own. More shuffles blocks of neighbouring samples, of about so many bytes of the shards, and then the
            samples of ``window_blocks`` blocks among each other; a block is one request, or a few. That is for disks
            that hate random reads and for small samples: the larger the blocks, the faster. Needs an index; shards
            that are streamed are shuffled as a whole.
        window_blocks: The more, the better samples are mixed. So many blocks are in memory.
        shuffle_buffer: With ``shuffle``, where shards are streamed: each worker collects so many samples, of one shard
            after the other, and hands them out in another order. 0 for the order of the archive. Samples that an index
            has the place of are shuffled one by one anyway.

    Yields: ``(key, ZeroDict)``, of contents or decoded values. The key is the path up to the first dot of the last
        component, with folders; the extension is all that follows, in lower case (WebDataset's convention).
    Order: shards as listed or shuffled, samples as in the archive or shuffled in a buffer; with an index, samples are
        what is shuffled.
    Memory: ``fetch.window_bytes`` and one sample in each worker, whatever the size of the shards; with blocks also
        ``block_bytes * window_blocks``, with a buffer its samples.
    State: with an index, exact on any world, and of the same kind of index and the same blocks only. Without, exact at
        every sample, on any world for that of one rank, in the same place for that of one of several, and inside a
        shuffle buffer, which is read again from its first sample on. A plain tar is
        read on from where it stands; of any other shard the first samples are read again and passed over. Without
        ``fields`` the samples after it have the extensions of that shard and of the ones that follow.
    Raises: ``CorruptShard`` that names shard, member and offset; with an index ``CorruptBody`` for a shard that was
        overwritten since; ``CorruptSample`` for what cannot be decoded, which ``on_error`` leaves out alone.
    """

    class ZeroDict(dict[str, Any]):
        """A sample's contents by extension, with ``b""`` for what it lacks, so that samples of a batch collate.

        Args:
            values: The contents.
            keys: All extensions that it must have.
        """

        def __init__(self, values: Mapping[str, Any] | None = None, keys: Iterable[str] = ()) -> None:
            super().__init__(values or {})
            for key in keys:
                self.setdefault(key, b"")

    def __init__(
        self,
        bucket_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        etl_name: str | None = None,
        show_progress: bool = False,
        partition_sources_by_worker: bool = False,
        *,
        fields: Iterable[str] | None = None,
        missing: Missing = "zero",
        decode: Decoding = None,
        index: IndexMode = "auto",
        join: Any = None,
        block_bytes: int = 0,
        window_blocks: int = 16,
        shuffle_buffer: int = 0,
        **options: Unpack[IterOptions],
    ) -> None:
        super().__init__(bucket_list, prefix_map, partition_sources_by_worker, etl_name=etl_name, **options)
        blocks, buffer = _blocks(block_bytes, window_blocks, index), _checked_buffer(shuffle_buffer, self._order)
        self._order = dataclasses.replace(self._order, blocks=blocks, buffer=buffer)
        self._show_progress = show_progress
        self._missing: Missing = checked_missing(missing)
        self._counts: npt.NDArray[np.int64] | None = None  # samples in each shard, once somebody has asked
        self._fields = None if fields is None else Fields.parse(fields, missing)
        self._decode = decoder_of(decode, self._missing)
        self._index = checked_index(index)
        checked_join(join, index)
        self._columns = joined_columns(join, type(self).__name__, options.get("config"), options.get("name_filter"))
        self._kept = kept_tables(bucket_list, join)

    def __len__(self) -> int:
        """Samples of this rank in the epoch that comes next; those that ``missing="skip"`` leaves out included."""
        if self._table is not None:
            return self._items()
        listing = self._listing()
        if self._counts is None:
            urls = listing.urls(range(len(listing)))
            listable = not any(url.etl_name for url in urls)
            none = np.full(len(urls), -1, np.int64)
            self._counts = sample_counts(urls, self._clusters(), Meter()) if listable else none
        if (self._counts < 0).any():
            raise TypeError("AISShardReader has no len() here: the cluster cannot list the members of every shard")
        world = current_world(self._order.world)
        workers = (
            World(world.rank, world.world_size, worker, world.num_workers) for worker in range(world.num_workers)
        )
        epoch = self._resume.shared.next_start().epoch
        shares = (share for one in workers for share in self._order.positions(len(listing), epoch, one))
        return int(sum(self._counts[share].sum() for share in shares))

    def __bool__(self) -> bool:
        return len(self._listing()) > 0

    def __iter__(self) -> Iterator[tuple[str, ZeroDict]]:
        reached = Reached()
        cursor = Cursor(Meter(), reached, divisible=True)
        begin = functools.partial(self._samples, reached=reached, cursor=cursor)
        unit = ("shards" if self._table is None else "samples") if self._show_progress else None
        return self._iterate(begin, unit, cursor)

    def _get_worker_iter_info(self) -> tuple[Iterator[Object], str]:
        if self._table is not None:
            raise ConfigError(
                "AISShardReader: with an index it is samples that are dealt, not objects; use index='off'"
            )
        return super()._get_worker_iter_info()

    def _samples(
        self, mine: Iterator[Any], meter: Meter, reached: Reached, cursor: Cursor
    ) -> Iterator[tuple[str, ZeroDict]]:
        table = self._table
        if table is None:
            return self._streamed(mine, meter, reached, self._buffer(cursor))
        return self._located(table, mine, meter, reached, cursor.place)

    def _located(
        self, table: ShardTable, shares: Iterator[Positions], meter: Meter, reached: Reached, place: World
    ) -> Iterator[tuple[str, ZeroDict]]:
        blocks = self._order.blocks if self._order.shuffle else None
        found = located_samples(
            table, shares, self._clusters(), self._fetch, meter, Chosen(self._fields, self._missing), self._tolerance,
            together=blocks is not None,
            # Samples differ in size, so blocks do: most of them are to be one request.
            run_bytes=max(self._fetch.range_bytes, 2 * blocks.bytes if blocks else 0),
            share=1 / (place.world_size * place.num_workers),
            keep=self._order.shuffle,
            decode=self._decode,
        )  # fmt: skip
        for key, sample in found:
            reached.items = meter.objects + meter.skipped
            yield key, self.ZeroDict(sample)
            del sample
        reached.items = meter.objects + meter.skipped

    def _streamed(
        self, urls: Iterator[AISURL], meter: Meter, reached: Reached, buffer: Buffer | None
    ) -> Iterator[tuple[str, ZeroDict]]:
        listed = self._fields is None
        streams = streamed(urls, self._clusters(), self._fetch, meter, with_extensions=listed, start=reached.offset)
        shards = (
            Shard(stream.url, stream, stream.file, stream.extensions, stream.start, stream.whole) for stream in streams
        )
        found = samples(shards, self._fields, self._missing, meter, self._tolerance, reached, self._decode, buffer)
        return map(self._zero_filled, found)

    def _buffer(self, cursor: Cursor) -> Buffer | None:
        """That of an iteration which has begun; None where samples keep their order."""
        order, start, place = self._order, cursor.begun, cursor.place
        if not order.buffer:
            return None
        before = start.position + start.taken
        return Buffer(order.buffer, order.seed, start.epoch, f"{place.rank} {place.worker}", before)

    def _zero_filled(self, found: tuple[str, dict[str, Any]]) -> tuple[str, ZeroDict]:
        return found[0], self.ZeroDict(found[1])

    # ---- with an index, the items are samples

    @property
    def _table(self) -> ShardTable | None:
        """Where all samples are; None where shards are streamed. The first process of the job that asks decides."""
        own = type(self).__iter__ is not AISShardReader.__iter__
        if self._index == "off" or (self._index == "auto" and own and not self._columns):
            return None  # a subclass that iterates itself may ask for objects
        if not self._catalog.knows_derived:
            self._listing()
        return self._catalog.derived(self._resolved).table

    def _clusters(self) -> Clusters:
        return clusters_of(self._catalog, *self._columns)

    def _resolved(self) -> Resolved:
        several = current_world(self._order.world).world_size > 1
        meter = Meter()
        try:
            listings = [self._listing(), *(column.listing(meter) for column in self._columns)]
            return joined(
                listings, self._index, self._clusters(), meter,
                show_progress=self._show_progress, of_all_ranks=several, kept=self._kept,
            )  # fmt: skip
        finally:
            # What was asked for an index is no object that anybody got.
            self._shared.add(dataclasses.replace(meter, objects=0, bytes=0), Meter())

    @property
    def _samples_are_items(self) -> bool:
        return self._table is not None

    @property
    def _order_of_items(self) -> Order:
        order, table = self._order, self._table
        if order.blocks is None:
            return order
        if table is None:
            log.warning("block_bytes has no effect: there is no index, so shards are shuffled as a whole")
            return dataclasses.replace(order, blocks=None)
        return dataclasses.replace(
            order, blocks=dataclasses.replace(order.blocks, items=table.samples_in(order.blocks.bytes))
        )

    def _number(self) -> int:
        table = self._table
        return super()._number() if table is None else len(table)

    def _names(self, positions: Positions) -> list[str]:
        table = self._table
        if table is None:
            return super()._names(positions)
        return [f"{table.shards[one.shard].name}: {one.key}" for one in table.located(positions)]

    def _unit(self) -> str:
        return "shards" if self._table is None else "samples"

    def _check_mixable(self) -> None:
        super()._check_mixable()
        if self._index == "off":
            raise ConfigError("with index='off' nobody knows where its samples are; use index='server' or 'client'")

    def _dealt(self, meter: Meter, cursor: Cursor) -> Iterator[Any]:
        if self._table is None:
            return self._urls(meter, cursor)
        return self._shares(self._listing(meter), cursor)

    def _of_sources(self, listing: Listing, keep: slice) -> Positions:
        shards, table = super()._of_sources(listing, keep), self._table
        if table is None:
            return shards
        return np.concatenate([np.zeros(0, np.int64), *(np.array(table.of_shard(shard)) for shard in shards.tolist())])

    def _identity(self, epoch: int) -> Items:
        table = self._table
        return super()._identity(epoch) if table is None else Items(table.fingerprint, len(table))

    def _known_identity(self) -> Identity | None:
        return self._identity if self._index == "off" or self._catalog.knows_derived else None


def _checked_buffer(size: int, order: Order) -> int:
    """Samples of a shuffle buffer; 0 for none."""
    if type(size) is not int or size < 0:
        raise ConfigError(f"shuffle_buffer must be a number of samples, 0 for none, not {size!r}")
    if size and not order.shuffle:
        raise ConfigError("shuffle_buffer needs shuffle=True, which shuffles the shards too")
    return size


def _blocks(block_bytes: int, window_blocks: int, index: IndexMode) -> Blocks | None:
    """The blocks of a shuffle; None for none."""
    if block_bytes == 0 and type(block_bytes) is int:
        return None
    if index == "off":
        raise ConfigError("block_bytes needs an index: index='auto', 'server' or 'client', not 'off'")
    return Blocks(block_bytes, window_blocks)
