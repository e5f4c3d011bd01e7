"""Shards: each as a stream of chunks, the following ones under way meanwhile; memory is the window, never the shard."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeAlias

import xxhash

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.members import Members
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import CorruptBody, ObjectNotFound
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import object_size
from aisdatapipes.store.part import PartInMemory, PartInPieces
from aisdatapipes.store.read import Read, taken_alone

# A shard is a sequence of these: one whole, or parts.
Piece: TypeAlias = "Read | PartInPieces"


def streamed(
    urls: Iterable[AISURL],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    *,
    with_extensions: bool = False,
    start: int = 0,
) -> Iterator[ShardStream]:
    """A stream for each shard, in order; what a consumer leaves unread of one is passed over.

    A shard is read in parts of ``plan.range_bytes``; an ETL's answer, whose size nobody knows, as a whole.
    ``with_extensions`` lists the members of each shard in advance, for `ShardStream.extensions`. The first shard is
    read from byte ``start`` on, if that can be: `ShardStream.start` says so.
    """
    listings: dict[AISURL, Members] = {}
    parts = _parts(urls, clusters, plan, listings if with_extensions else None, start)
    reads = ordered(parts, plan.width, plan.window_bytes, meter)
    for found in reads:
        first = taken_alone(found) if isinstance(found, Read) else found
        stream = ShardStream(first, _of_one_shard(first, reads), plan, meter, listings.pop(first.url, None), start)
        yield stream
        start = 0
        stream.pass_over()


def _parts(
    urls: Iterable[AISURL],
    clusters: Clusters,
    plan: FetchPlan,
    listings: dict[AISURL, Members] | None,
    start: int,
) -> Iterator[Piece]:
    for url in urls:
        cluster = clusters.of(url)
        sized = url if url.size >= 0 or url.etl_name else _sized(url, _size(cluster, url))
        if listings is not None and not url.etl_name:  # the listing is of the shard before the ETL
            listings[sized] = Members(cluster, sized)
        if sized.size <= 0 or sized.etl_name:
            yield Read(cluster, sized, *cluster.owners_of([sized]), verify=plan.verify)
        else:
            # One byte at least: there has to be an answer that tells of the shard.
            first = min(start, sized.size - 1) if start <= sized.size else 0
            yield from _part_reads(cluster, sized, plan, first)
        start = 0


def _part_reads(cluster: Cluster, url: AISURL, plan: FetchPlan, start: int = 0) -> Iterator[PartInPieces]:
    """The reads that make up a shard of known size from byte ``start`` on, part by part.

    There are no more of them when the first one has told that the shard is gone, or has another size.
    """
    (owner,) = cluster.owners_of([url])
    first: PartInPieces | None = None
    for at in range(start, url.size, plan.range_bytes):
        length = min(plan.range_bytes, url.size - at)
        wrong = first is not None and first.ended and (first.error is not None or first.total != url.size)
        last = wrong or at + length == url.size
        part = PartInPieces(cluster, url, owner, at, length, last=last)
        first = first or part
        yield part
        if last:
            return


def _size(cluster: Cluster, url: AISURL) -> int:
    try:
        return object_size(cluster, url)
    except ObjectNotFound:
        return -1  # let the read say so, when its turn comes


def _of_one_shard(first: Piece, following: Iterator[Piece]) -> Iterator[Piece]:
    read: Piece = first
    yield read
    while not read.last:
        read = next(following)
        yield read


class ShardStream:
    """The content of one shard: iterate over its chunks, once.

    Attributes:
        url: The shard.
        start: Its byte with which the chunks begin.
    """

    def __init__(
        self,
        first: Piece,
        parts: Iterator[Piece],
        plan: FetchPlan,
        meter: Meter,
        members: Members | None,
        start: int = 0,
    ) -> None:
        self.url = first.url
        self._first, self._parts, self._plan, self._meter = first, parts, plan, meter
        self._listed = parts  # those that came in the window, whatever is read in the end
        self._members = members
        self._overwritten = first.error is None and isinstance(first, PartInPieces) and first.total != first.url.size
        can_begin = isinstance(first, PartInPieces) and start <= first.url.size and not self._overwritten
        self.start = start if can_begin else 0

    def __iter__(self) -> Iterator[bytes]:
        # Overwritten since it was listed: nothing has been handed out yet, so read what is there now.
        return self.whole() if self._overwritten else self._checked()

    def whole(self) -> Iterator[bytes]:
        """The chunks from the first byte on, whatever ``start`` is; also after some were taken."""
        first = self._first
        if isinstance(first, PartInPieces) and first.error is None and (self.start or self._overwritten):
            self.pass_over()
            parts = _part_reads(first.cluster, _sized(first.url, first.total), self._plan)
            self._parts = ordered(parts, self._plan.width, self._plan.window_bytes, self._meter)
            self.start = 0
        return self._checked()

    def file(self) -> BinaryIO:
        """The shard as a file that can seek, for formats that need it (zip)."""
        if self._first.error is not None:
            raise self._first.error
        if isinstance(self._first, Read):
            return io.BytesIO(self._first.data)
        return io.BufferedReader(_RangeFile(self._first), 1 << 20)

    def extensions(self) -> list[str]:
        """Extensions of all samples in the shard, by the cluster's listing of it; empty where it has none."""
        return self._members.extensions() if self._members is not None else []

    def pass_over(self) -> None:
        """Give up what the consumer has left of the shard."""
        for _ in self._listed:
            pass

    def _checked(self) -> Iterator[bytes]:
        """The chunks; at the end the checksum of the whole is compared."""
        found, promised, version = xxhash.xxh64(), None, None
        verify, before = self._plan.verify and not self.start, self.start
        for part in self._parts:
            if part.error is not None:
                raise part.error
            if isinstance(part, PartInPieces):  # else it has been compared as a whole
                if version not in (None, part.version):
                    raise self._corrupt(part.why_another("it was overwritten while it was read"), part)
                version, promised = part.version, part.checksum
            data = part.content() or b""
            if before:
                data, before = data[before - part.start_at :] if isinstance(part, PartInPieces) else data, 0
            if promised and verify:
                found.update(data)
            self._meter.bytes += len(data)
            yield data
        if verify and promised and found.hexdigest() != promised:
            raise self._corrupt(f"its xxh64 is {found.hexdigest()}, the cluster promised {promised}", self._first)
        self._meter.objects += 1

    def _corrupt(self, text: str, part: Piece) -> CorruptBody:
        return CorruptBody(f"cannot read: {text}", url=self.url, status=206, attempts=part.attempts)


class _RangeFile(io.RawIOBase):
    """Random access to an object by ranged reads, one at a time."""

    def __init__(self, first: PartInPieces) -> None:
        super().__init__()
        self._first, self._size, self._at = first, first.total, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        first = self._first
        with memoryview(buffer) as memory:
            part = PartInMemory(first.cluster, first.url, first.owner, self._at, memory.cast("B")[:length])
            part.wait()
        if part.version != first.version:
            text = part.why_another("it was overwritten while it was read")
            raise CorruptBody(f"cannot read: {text}", url=part.url, status=206, attempts=part.attempts)
        self._at += length
        return length


def _sized(url: AISURL, size: int) -> AISURL:
    return AISURL.make(
        url, url.provider, url.bucket, url.name, namespace=url.namespace, size=size, endpoint=url.endpoint,
        etl_name=url.etl_name,
    )  # fmt: skip
