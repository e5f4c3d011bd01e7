"""WebDataset shards as samples, in a stream."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.options import IterOptions
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.flow.members import sample_counts
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.samples import Reached, Shard, samples
from aisdatapipes.flow.shards import streamed
from aisdatapipes.model.url import AISURL
from aisdatapipes.model.world import World
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Cursor
from aisdatapipes.pipes.samples import checked_missing
from aisdatapipes.wire.samples import Fields, Missing


class AISShardReader(AISBaseIterDataset):
    """``(key, {extension: content})`` of every sample in every shard.

    Shards are dealt whole: worker by worker, rank by rank. ``len()`` counts the samples of this rank by the cluster's
    listing of each archive, once; a ``TypeError`` where it cannot list them (zstd, bz2, xz, an ETL).

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

    Yields: ``(key, ZeroDict)``. The key is the path up to the first dot of the last component, with folders; the
        extension is all that follows, in lower case (WebDataset's convention).
    Order: shards as listed or shuffled, samples as in the archive.
    Memory: ``fetch.window_bytes`` and one sample in each worker, whatever the size of the shards.
    State: exact at every sample with one rank. The shard in which it stands is read again, its first samples passed
        over; without ``fields`` those after it have the extensions of that shard and of the ones that follow.
    Raises: ``CorruptShard`` that names shard, member and offset.
    """

    _samples_are_items = False

    class ZeroDict(dict[str, bytes]):
        """A sample's contents by extension, with ``b""`` for what it lacks, so that samples of a batch collate.

        Args:
            values: The contents.
            keys: All extensions that it must have.
        """

        def __init__(self, values: Mapping[str, bytes] | None = None, keys: Iterable[str] = ()) -> None:
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
        **options: Unpack[IterOptions],
    ) -> None:
        super().__init__(bucket_list, prefix_map, partition_sources_by_worker, etl_name=etl_name, **options)
        self._show_progress = show_progress
        self._missing: Missing = checked_missing(missing)
        self._counts: npt.NDArray[np.int64] | None = None  # samples in each shard, once somebody has asked
        self._fields = None if fields is None else Fields.parse(fields, missing)

    def __len__(self) -> int:
        """Samples of this rank in the epoch that comes next; those that ``missing="skip"`` leaves out included."""
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
        begin = functools.partial(self._samples, reached=reached)
        cursor = Cursor(Meter(), reached, divisible=True)
        return self._iterate(begin, "shards" if self._show_progress else None, cursor)

    def _samples(self, urls: Iterator[AISURL], meter: Meter, reached: Reached) -> Iterator[tuple[str, ZeroDict]]:
        streams = streamed(urls, self._clusters(), self._fetch, meter, with_extensions=self._fields is None)
        shards = (Shard(stream.url, stream, stream.file, stream.extensions) for stream in streams)
        found = samples(shards, self._fields, self._missing, meter, self._tolerance, reached)
        return ((key, self.ZeroDict(sample)) for key, sample in found)
