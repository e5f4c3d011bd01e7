"""Members of several archives side by side, in a stream."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterator
from typing import Any

from typing_extensions import Unpack

from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.options import IterOptions
from aisdatapipes.datasets.plan import Plan
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.members import member_counts
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.flow.shards import streamed
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.order.deal import place_of
from aisdatapipes.order.permutation import Positions
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Cursor, Items
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.wire.archive import opened

log = logging.getLogger("aisdatapipes")


class AISMultiShardStream(AISBaseIterDataset):
    """Tuples of contents: the i-th members of all sources together.

    Each source is read as one stream: its shards in the order of their names, members in the order of the archive.
    Every worker reads all streams, one read a shard, and yields its own positions of them.

    Args:
        data_sources: One or several ``DataShard`` of the AIStore SDK (a bucket and a prefix), or other sources.
        options: As in `AISBaseIterDataset`, but no ``shuffle``, and no ``even`` but ``"none"``: each tuple comes once.
            An error cannot be skipped (``on_error``): what one source lacks would move its members against those of the
            others.

    Yields: tuples of ``bytes``, one from each source; ends with the source that ends first, and says so.
    Memory: ``fetch.window_bytes`` for all sources together.
    State: as that of the others. Shards before its position are passed over where the cluster (AIStore 5.0 or later)
        has an index of all of them, else read and left out, and so are members before it in a shard.
    ``len()``: tuples of this rank, where the cluster has an index of every shard (two small requests each, once); else
        a ``TypeError``.
    """

    def __init__(self, data_sources: Any, **options: Unpack[IterOptions]) -> None:
        super().__init__(data_sources, **options)
        if self._order.shuffle or self._order.even not in (None, "none"):
            raise ConfigError("AISMultiShardStream: shuffle and even need to know how many members there are")
        if self._tolerance.on_error != "raise":
            raise ConfigError("AISMultiShardStream: on_error can only be 'raise': sources are read in step")
        self._order = dataclasses.replace(self._order, even="none")

    def __len__(self) -> int:
        number = self._counted()
        if number is None:
            raise TypeError(
                "AISMultiShardStream has no len() here: the cluster has no index of every shard, so nobody has counted "
                "the members"
            )
        return self._order.samples(number, current_world(self._order.world))

    def plan(self, epoch: int | None = None, world_size: int | None = None, num_workers: int = 1) -> Plan:
        """As `AISBaseIterDataset.plan`, of positions; a ``ConfigError`` where there is no ``len()``."""
        number = self._counted()
        if number is None:
            raise ConfigError("plan: the cluster has no index of every shard, so nobody has counted the members")
        begins = self._resume.begins(self._order, self._identity, epoch)
        ranks = current_world(self._order.world).world_size if world_size is None else world_size
        return Plan(self._order, begins, number, ranks, num_workers, "tuples", _numbers)

    def __iter__(self) -> Iterator[tuple[bytes, ...]]:
        cursor = Cursor(Meter(), Reached())
        return self._iterate(functools.partial(self._tuples, cursor=cursor), cursor=cursor)

    def _check_mixable(self) -> None:
        raise ConfigError("it reads shards as streams; AISShardReader with an index knows its samples")

    def _identity(self, epoch: int) -> Items:
        return Items(super()._identity(epoch).fingerprint, None)

    def _urls(self, _meter: Meter, cursor: Cursor) -> Iterator[AISURL]:
        self._begin(cursor)
        return iter(())  # every worker reads all streams

    def _tuples(self, _urls: Iterator[AISURL], meter: Meter, cursor: Cursor) -> Iterator[tuple[bytes, ...]]:
        start = cursor.begun.position
        streams = [self._members(source, start, meter) for source in range(len(self._catalog.sources))]
        mine = self._mine(self._in_step(streams, start), cursor)
        for members in itertools.islice(mine, cursor.taken, None):
            cursor.hand_out()
            yield members

    def _members(self, source: int, start: int, meter: Meter) -> Iterator[bytes]:
        """The members of a source, from the one at position ``start``."""
        listing = self._listing(meter)
        urls = listing.urls(listing.of_sources(slice(source, source + 1)))
        whole, counts = 0, self._counts()[source] if start else None
        if counts is not None and (counts >= 0).all():
            ends = counts.cumsum()
            whole = int(ends.searchsorted(start, side="right"))
            start -= int(ends[whole - 1]) if whole else 0
        return itertools.islice(_contents(urls[whole:], self._clusters(), self._fetch, meter), start, None)

    def _mine(self, tuples: Iterator[tuple[bytes, ...]], cursor: Cursor) -> Iterator[tuple[bytes, ...]]:
        """Those of this rank and worker."""
        world, batch_size = cursor.place, self._order.batch_size
        for position, members in enumerate(tuples):
            place = place_of(position, world.world_size, world.num_workers, batch_size)
            if place == (world.rank, world.worker):
                yield members

    def _in_step(self, streams: list[Iterator[bytes]], start: int) -> Iterator[tuple[bytes, ...]]:
        ended = object()
        for count in itertools.count(start):
            members = [next(stream, ended) for stream in streams]
            if ended in members:
                self._say_who_ended(count, [member is ended for member in members])
                return
            yield tuple(members)  # type: ignore[arg-type]

    def _say_who_ended(self, count: int, ended: list[bool]) -> None:
        names = [f"{source.bucket}/{source.prefixes[0]}" for source in self._catalog.sources]
        if not count and all(ended):
            log.warning("%s: there is no member in any shard; check the prefixes", ", ".join(names))
        elif not all(ended):
            short = ", ".join(name for name, over in zip(names, ended, strict=True) if over)
            log.warning("%s ended after %d members; other sources have more, which are left out", short, count)

    # ---- where the cluster has indexes

    def _counted(self) -> int | None:
        """How many tuples there are; None where nobody knows."""
        counts = self._counts()
        if any((each < 0).any() for each in counts):
            return None
        return min(int(each.sum()) for each in counts)

    def _counts(self) -> list[Positions]:
        """Members of each shard of each source, -1 where nobody knows: asked once in a job."""
        listing = self._listing()
        return self._catalog.derived(functools.partial(self._asked, listing))

    def _asked(self, listing: Listing) -> list[Positions]:
        meter, every = Meter(), range(len(listing))
        counts = member_counts(listing.urls(every), self._clusters(), meter)
        self._shared.add(dataclasses.replace(meter, objects=0, bytes=0), Meter())  # nobody got them
        return [counts[listing.of_sources(slice(source, source + 1))] for source in range(len(listing.sources))]


def _contents(urls: list[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter) -> Iterator[bytes]:
    for stream in streamed(urls, clusters, plan, meter):
        for member in opened(stream, stream.url, seekable=stream.file, member_bytes=most_in_memory()):
            yield member.data


def _numbers(positions: Positions) -> list[int]:
    """What a plan calls tuples, which have no names."""
    numbers: list[int] = positions.tolist()
    return numbers
