"""The indexes of many shards: the server's, checked against the shards as they are now, or ones that are made here."""

from __future__ import annotations

import enum
import itertools
import logging
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.headerpass import HeaderPass, checksum_in, first_part
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.errors import ObjectNotFound, shown
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.store.shardindex import IndexRead
from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.shardindex import ShardIndex, decoded_index
from aisdatapipes.wire.tar_header import BLOCK
from aisdatapipes.wire.tar_places import Place, is_nothing_but

log = logging.getLogger("aisdatapipes")

_WIDTH = 64  # requests in flight; all are small
_PASSES = 8  # shards that are read through at the same time
_WINDOW_BYTES = 64 << 20
# What an index leaves out is looked at, if it is so little; else it is cheaper to read all headers.
_GAPS, _GAP_BYTES = 8, 1 << 20


class Lack(enum.Enum):
    """Why there is no index of the server's that can be used."""

    ABSENT = "there is none"
    STALE = "the shard is another one since"
    UNCOVERED = "it leaves something out"


R = TypeVar("R", bound=Exchange)

Found: TypeAlias = "ShardIndex | Lack"


class _Gap(NamedTuple):
    """Bytes of a shard that its index says nothing of.

    Attributes:
        first, end: Which; empty where the shard ends with its last member.
        following: The member behind them; None at the end of the shard.
    """

    first: int
    end: int
    following: Place | None

    @property
    def read(self) -> tuple[int, int]:
        """First byte and length of what is to be read: with the header of the next member, and one byte at least."""
        if self.following is not None:
            return self.first, self.end - self.first + BLOCK
        first = min(self.first, self.end - 1)
        return first, self.end - first


def server_indexes(
    urls: Sequence[AISURL], clusters: Clusters, meter: Meter, *, attempts: int | None = None
) -> list[Found]:
    """The server's index of each shard, or what is the matter with it.

    Two small requests a shard, all straight to its owner and many at a time: the index, and the end of the shard. The
    answer to the second tells whether the shard is still the one that was indexed (its checksum comes with every
    range), and whether all is indexed: members have to follow each other without a gap from the first byte to the two
    zero blocks. The server leaves out hard links, sparse files and repeated names, but folders and long names make
    gaps too: a few gaps are read and judged, with many the index is not used.

    Raises: ``Unavailable`` where the cluster does not answer, however often it is asked (``attempts`` at most).
    """
    placed = _placed(urls, clusters)
    reads = (_patient(IndexRead(*one), attempts) for one in placed)
    found: list[Found] = [_decoded(read) for read in ordered(reads, _WIDTH, _WINDOW_BYTES, meter)]
    gaps: list[tuple[int, _Gap]] = []  # with the shard that each is in
    for number, index in enumerate(found):
        if isinstance(index, ShardIndex):
            some = _few_gaps(index)
            gaps += [(number, gap) for gap in some or ()]
            found[number] = index if some else Lack.UNCOVERED
    parts = (_patient(PartInPieces(*placed[number], *gap.read), attempts) for number, gap in gaps)
    for (number, gap), part in zip(gaps, ordered(parts, _WIDTH, _WINDOW_BYTES, meter), strict=True):
        index = found[number]
        if isinstance(index, ShardIndex):
            found[number] = _judged(index, gap, part)
    return found


def made_indexes(urls: Sequence[AISURL], clusters: Clusters, meter: Meter, cache: IndexCache) -> list[ShardIndex]:
    """The index of each shard, out of the cache or by reading its headers; then it is kept in the cache.

    Raises: ``CorruptShard``, ``ConfigError`` for what is no plain tar, ``ObjectNotFound`` and the like.
    """
    with cache.alone():
        found = kept_indexes(urls, clusters, meter, cache)
        lacking = [part for part in found if isinstance(part, PartInPieces)]
        passes = ordered(map(HeaderPass, lacking), _PASSES, _WINDOW_BYTES, meter)
        made = []
        for index in found:
            if isinstance(index, PartInPieces):
                index = next(passes).index()  # noqa: PLW2901 - the same index, made
                cache.put(index)
            made.append(index)
        passes.close()
        if lacking:
            cache.trim()
    return made


def kept_indexes(
    urls: Sequence[AISURL], clusters: Clusters, meter: Meter, cache: IndexCache
) -> list[ShardIndex | PartInPieces]:
    """The index of each shard out of the cache; where it has none, the beginning of the shard."""
    parts = (first_part(*one) for one in _placed(urls, clusters))
    found: list[ShardIndex | PartInPieces] = []
    for part in ordered(parts, _WIDTH, _WINDOW_BYTES, meter):
        index = cache.get(checksum_in(part), part.total) if part.error is None else None
        found.append(part if index is None else index)
    return found


def _patient(read: R, attempts: int | None) -> R:
    read.attempts_at_most = min(read.attempts_at_most, attempts or read.attempts_at_most)
    return read


def _decoded(read: IndexRead) -> Found:
    if read.absent:
        return Lack.ABSENT
    if read.error is not None:
        raise read.error
    try:
        index = decoded_index(read.data)
    except Malformed as error:
        log.warning("%s: the server's index of it is not used: %s", shown(read.url), error)
        return Lack.ABSENT
    return index if read.url.size in (-1, index.size) else Lack.STALE


def _few_gaps(index: ShardIndex) -> list[_Gap] | None:
    """What is to be looked at: some gaps between members, and the end of the shard; None where that is too much."""
    *between, (first, size) = index.uncovered()
    total = size - first + sum(end - start for start, end in between)
    if first > size or size == 0 or len(between) > _GAPS or total > _GAP_BYTES:
        return None
    following = _members_at(index, {end for _, end in between}) if between else {}
    return [*(_Gap(start, end, following[end]) for start, end in between), _Gap(first, size, None)]


def _members_at(index: ShardIndex, offsets: set[int]) -> dict[int, Place]:
    return {
        offset: Place(name.decode("utf-8", "surrogateescape"), offset, size)
        for name, offset, size in index.entries()
        if offset in offsets
    }


def _judged(index: ShardIndex, gap: _Gap, part: PartInPieces) -> Found:
    """The index, if the shard is still the same, and the gap holds no member."""
    if part.error is not None:
        if isinstance(part.error, ObjectNotFound) or part.error.status == 416:
            return Lack.STALE
        raise part.error
    if part.total != index.size or checksum_in(part) != index.checksum:
        return Lack.STALE
    data = part.content()[gap.first - part.start_at :]
    return index if is_nothing_but(data, gap.first, gap.following) else Lack.UNCOVERED


def _placed(urls: Sequence[AISURL], clusters: Clusters) -> list[tuple[Cluster, AISURL, str | None]]:
    """Each shard with its cluster and its owner."""
    found: list[tuple[Cluster, AISURL, str | None]] = []
    for cluster, group in itertools.groupby(urls, clusters.of):
        some = list(group)
        found += [(cluster, url, owner) for url, owner in zip(some, cluster.owners_of(some), strict=True)]
    return found
