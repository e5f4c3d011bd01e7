"""Members of several archives side by side, in a stream."""

from __future__ import annotations

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
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.samples import Reached
from aisdatapipes.flow.shards import streamed
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.order.deal import place_of
from aisdatapipes.pipes.resume import Cursor, Items
from aisdatapipes.wire.archive import opened

log = logging.getLogger("aisdatapipes")


class AISMultiShardStream(AISBaseIterDataset):
    """Tuples of contents: the i-th members of all sources together.

    Each source is read as one stream: its shards in the order of their names, members in the order of the archive.
    Every worker reads all streams and yields its own positions of them.

    Args:
        data_sources: One or several ``DataShard`` of the AIStore SDK (a bucket and a prefix), or other sources.
        options: As in `AISBaseIterDataset`. The number of members is not known beforehand, so there is no ``len()``,
            no ``shuffle``, and no ``even`` but ``"none"``. An error cannot be skipped (``on_error``): what one source
            lacks would move its members against those of the others.

    Yields: tuples of ``bytes``, one from each source; ends with the source that ends first, and says so.
    Memory: ``fetch.window_bytes`` for all sources together.
    State: as that of the others; what goes on reads the members before its position and passes them over.
    """

    def __init__(self, data_sources: Any, **options: Unpack[IterOptions]) -> None:
        super().__init__(data_sources, **options)
        if self._order.shuffle or self._order.even not in (None, "none"):
            raise ConfigError("AISMultiShardStream: shuffle and even need to know how many members there are")
        if self._tolerance.on_error != "raise":
            raise ConfigError("AISMultiShardStream: on_error can only be 'raise': sources are read in step")

    def __len__(self) -> int:
        raise TypeError("AISMultiShardStream has no len(): nobody has counted the members")

    def plan(self, *_: Any, **__: Any) -> Plan:
        """There is none: a ``ConfigError``."""
        raise ConfigError("plan: nobody has counted the members of AISMultiShardStream; every worker reads all shards")

    def __iter__(self) -> Iterator[tuple[bytes, ...]]:
        cursor = Cursor(Meter(), Reached())
        return self._iterate(functools.partial(self._tuples, cursor=cursor), cursor=cursor)

    def _check_mixable(self) -> None:
        raise ConfigError("nobody has counted its members; AISShardReader with an index knows its samples")

    def _identity(self, epoch: int) -> Items:
        return Items(super()._identity(epoch).fingerprint, None)

    def _urls(self, _meter: Meter, cursor: Cursor) -> Iterator[AISURL]:
        self._begin(cursor)
        return iter(())  # every worker reads all streams

    def _tuples(self, _urls: Iterator[AISURL], meter: Meter, cursor: Cursor) -> Iterator[tuple[bytes, ...]]:
        listing = self._listing(meter)
        firsts = itertools.accumulate([0, *listing.counts])
        streams = []
        for first, count in zip(firsts, listing.counts, strict=False):
            urls = listing.urls(range(first, first + count))
            streams.append(_contents(urls, self._clusters(), self._fetch, meter))
        mine = self._mine(self._in_step(streams), cursor)
        for members in itertools.islice(mine, cursor.taken, None):
            cursor.hand_out()
            yield members

    def _mine(self, tuples: Iterator[tuple[bytes, ...]], cursor: Cursor) -> Iterator[tuple[bytes, ...]]:
        """Those of this rank and worker, from where the iteration began: members before it are read and passed over."""
        start, world, batch_size = cursor.begun.position, cursor.place, self._order.batch_size
        for position, members in enumerate(itertools.islice(tuples, start, None)):
            place = place_of(position, world.world_size, world.num_workers, batch_size)
            if place == (world.rank, world.worker):
                yield members

    def _in_step(self, streams: list[Iterator[bytes]]) -> Iterator[tuple[bytes, ...]]:
        ended = object()
        for count in itertools.count():
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


def _contents(urls: list[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter) -> Iterator[bytes]:
    for stream in streamed(urls, clusters, plan, meter):
        for member in opened(stream, stream.url, seekable=stream.file):
            yield member.data
