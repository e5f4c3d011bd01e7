"""Listings: pages as they come, and a whole listing in a few arrays."""

from __future__ import annotations

import logging
import queue
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import StoreError, Unavailable
from aisdatapipes.model.url import AISURL, bucket_url
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.store.forks import Home
from aisdatapipes.store.pages import PageRead, PageTurns
from aisdatapipes.store.pool import cluster_of
from aisdatapipes.store.source import Source
from aisdatapipes.wire.listing import BriefPage, ListOptions

log = logging.getLogger("aisdatapipes")

AGAIN_S = 1.0  # seconds until a listing is made again that may lack objects

NameFilter = Callable[[str], Any]


class Chunk(NamedTuple):
    """Consecutive objects of one source: names and sizes in bytes (-1 where unknown), equally long."""

    names: list[str]
    sizes: list[int]


def listed(source: Source, name_filter: NameFilter | None = None, meter: Meter | None = None) -> Iterator[Chunk]:
    """The objects of a source, page by page, prefix by prefix; the next page is on its way meanwhile.

    ``meter`` gets the time that is spent waiting for pages. Folders, which some buckets list, are no objects. Raises
    `BucketNotFound` and the like when a page is reached, `Unavailable` at the end of a listing that may lack objects.
    """
    began_at = time.monotonic()
    yield from _chunks(source, name_filter, meter)
    if lacks(source, began_at):
        raise _incomplete(source)


def lacks(source: Source, began_at: float, again: bool = False) -> bool:
    """Whether a listing that began then, on the monotonic clock, may lack objects: those of targets that left it.

    One that left long before is believed to be gone for good, but not by a listing that was made ``again`` for it.
    """
    if source.names is not None or source.bucket.provider != "ais":
        return False
    cluster = cluster_of(source.config)
    found = cluster.came_or_went_since(began_at) or (again and cluster.membership.lacks_one)
    if cluster.membership.lacks_one and not found:
        log.warning("%s: a target has left the cluster: what was on it is not listed", source.bucket)
    return found


def _incomplete(source: Source) -> Unavailable:
    bucket = source.bucket
    shown = bucket_url(bucket.provider, bucket.bucket, bucket.namespace)
    return Unavailable("cannot list: a target left or joined the cluster meanwhile; list again", url=shown, attempts=1)


def _chunks(source: Source, name_filter: NameFilter | None, meter: Meter | None) -> Iterator[Chunk]:
    for prefix in source.prefixes:
        chunks = _named(source, prefix) if source.names is not None else _paged(source, prefix, meter or Meter())
        for chunk in chunks:
            yield _filtered(chunk, name_filter) if name_filter else chunk


def _named(source: Source, prefix: str) -> Iterator[Chunk]:
    names = [name for name in source.names or () if name.startswith(prefix)]
    yield Chunk(names, [-1] * len(names))


def _paged(source: Source, prefix: str, meter: Meter) -> Iterator[Chunk]:
    cluster = cluster_of(source.config)
    cluster.prepare()  # whoever lists will read
    arrived: queue.SimpleQueue[PageRead] = queue.SimpleQueue()
    home = Home()

    def ask(page: BriefPage) -> PageRead:
        options = ListOptions(prefix=prefix, token=page.token, uuid=page.uuid, props="name,size")
        read = PageRead(cluster, source.bucket, options)
        read.start(arrived.put)
        return read

    turns = PageTurns()
    read: PageRead | None = ask(BriefPage())
    try:
        while read is not None:
            home.check()  # to a forked child nothing comes
            began = time.perf_counter()
            arrived.get()
            meter.list_s += time.perf_counter() - began
            if read.error is not None:
                raise read.error
            page = read.page
            # Names ending in a slash are folders: no object can have such a name.
            entries = [entry for entry in page.entries if not entry.name.endswith("/")]
            endless = turns.error(read, len(entries))
            if endless is not None:
                raise endless
            read = ask(page) if page.token else None
            yield Chunk([entry.name for entry in entries], [entry.size for entry in entries])
    finally:
        if read is not None:
            read.cancel()


def _check_room(source: Source, used: int, objects: int) -> None:
    """A listing that never ends shall not end the process, and with it what others do on this machine."""
    if used > most_in_memory():
        text = f"cannot list: {objects:,} objects and more take {used:,} bytes, half of the memory here; use prefixes"
        raise StoreError(text, url=str(source.bucket))


def _filtered(chunk: Chunk, name_filter: NameFilter) -> Chunk:
    kept = [(name, size) for name, size in zip(*chunk, strict=True) if name_filter(name)]
    return Chunk([name for name, _ in kept], [size for _, size in kept])


class Listing(Sequence[AISURL]):
    """All objects of some sources, in order, in a few arrays: 16 bytes an object and its name.

    Args:
        sources: What was listed, in order.
        counts: Objects of each source.
        blob: All names, one after the other, in UTF-8.
        ends: Where each name ends in ``blob``: shape (N,).
        sizes: Bytes of each object, -1 where unknown: shape (N,).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        counts: Sequence[int],
        blob: bytes | bytearray,
        ends: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        self.sources = tuple(sources)
        self.counts = tuple(counts)
        self.blob, self.ends, self.sizes = blob, ends, sizes
        self._firsts = np.cumsum([0, *self.counts])  # index of each source's first object
        self._roots = [bucket_url(s.bucket.provider, s.bucket.bucket, s.bucket.namespace) for s in self.sources]

    @classmethod
    def of(cls, parts: Sequence[Source | Listing], meter: Meter, name_filter: NameFilter | None = None) -> Listing:
        """The listing of sources, and of listings that are at hand, one after the other.

        This is the one place where a dataset's listing is made. ``name_filter`` is for what is listed here.
        """
        growing = _Growing()
        counts, sources = array("q"), list[Source]()
        for part in parts:
            before = len(growing)
            if isinstance(part, Listing):
                growing.add_listing(part)
                counts.extend(part.counts)
                sources += part.sources
            else:
                growing.add_source(part, name_filter, meter)
                counts.append(len(growing) - before)
                sources.append(part)
        meter.lists += any(isinstance(part, Source) for part in parts)
        return growing.done(sources, counts)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.url(i) for i in range(*index.indices(len(self)))]
        position = int(index)
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} of a listing of {len(self)} objects")
        return self.url(position)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell two listings apart: xxh64 over buckets, names and sizes, in order.

        Made once: sizes that are found out later do not change it (`learn`).
        """
        digest = xxhash.xxh64("\n".join(self._roots).encode("utf-8", "surrogateescape"))
        for part in (np.array(self.counts, np.int64).data, self.blob, self.ends.data, self.sizes.data):
            digest.update(part)
        return digest.hexdigest()

    def learn(self, position: int, size: int) -> None:
        """The size of an object that no listing told."""
        _ = self.fingerprint  # of what was listed, in this process and in all others
        self.sizes[position] = size

    def name(self, position: int) -> str:
        """Name of the object at a position in ``[0, N)``."""
        start = int(self.ends[position - 1]) if position else 0
        return self.blob[start : int(self.ends[position])].decode("utf-8", "surrogateescape")

    def starts(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the names at some positions begin in ``blob``: shape (m,)."""
        return np.where(positions > 0, self.ends[positions - 1], 0)

    def of_sources(self, keep: slice) -> npt.NDArray[np.int64]:
        """Positions of the objects of some sources, in order: shape (m,)."""
        runs = [np.arange(self._firsts[i], self._firsts[i + 1]) for i in range(len(self.sources))[keep]]
        return np.concatenate(runs) if runs else np.zeros(0, np.int64)

    def with_sources(self, sources: Sequence[Source]) -> Listing:
        """The same objects, said to be of other sources, one for each (another config, an ETL); no array is copied.

        But for sizes of which some are unknown: a dataset fills them in, and the others must not see that.
        """
        unknown = bool((self.sizes < 0).any())
        return Listing(sources, self.counts, self.blob, self.ends, self.sizes.copy() if unknown else self.sizes)

    def source_index(self, position: int) -> int:
        """Index in ``sources`` of the source that the object came from."""
        return int(np.searchsorted(self._firsts, position, side="right")) - 1

    def url(self, position: int) -> AISURL:
        """URL of the object at a position in ``[0, N)``, with its size, endpoint and ETL."""
        return self.urls([position])[0]

    def urls(self, positions: npt.ArrayLike) -> list[AISURL]:
        """URLs of the objects at some positions in ``[0, N)``; many at once cost a third each."""
        wanted = np.asarray(positions, np.int64)
        starts = self.starts(wanted).tolist()
        ends, sizes = self.ends[wanted].tolist(), self.sizes[wanted].tolist()
        sources = (np.searchsorted(self._firsts, wanted, side="right") - 1).tolist()
        return [self._url(*one) for one in zip(sources, starts, ends, sizes, strict=True)]

    def _url(self, index: int, start: int, end: int, size: int) -> AISURL:
        source, name = self.sources[index], self.blob[start:end].decode("utf-8", "surrogateescape")
        bucket = source.bucket
        return AISURL.make(
            f"{self._roots[index]}/{name}", bucket.provider, bucket.bucket, name, namespace=bucket.namespace,
            size=size, endpoint=source.config.endpoint, etl_name=source.etl_name,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        made = {"fingerprint": self.__dict__["fingerprint"]} if "fingerprint" in self.__dict__ else None
        return (Listing, (self.sources, self.counts, self.blob, self.ends, self.sizes), made)


class _Growing:
    """What becomes a `Listing`.

    Its arrays grow in place: to gather parts and to join them would need twice the memory, which malloc then keeps.
    """

    def __init__(self) -> None:
        self._blob, self._lengths, self._sizes = bytearray(), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._sizes)

    def add_listing(self, listing: Listing) -> None:
        self._blob += listing.blob
        self._lengths.frombytes(np.diff(listing.ends, prepend=0).tobytes())
        self._sizes.frombytes(listing.sizes.tobytes())

    def add_source(self, source: Source, name_filter: NameFilter | None, meter: Meter) -> None:
        """All objects of a source; they are listed again where a target left or joined the cluster meanwhile."""
        used, objects = len(self._blob), len(self)
        first_at = began_at = time.monotonic()
        self._add_chunks(source, name_filter, meter)
        while lacks(source, began_at, began_at > first_at):
            if time.monotonic() > first_at + source.config.retry.deadline:
                raise _incomplete(source)
            log.warning("%s: listed again, for a target left or joined the cluster meanwhile", source.bucket)
            del self._blob[used:], self._lengths[objects:], self._sizes[objects:]
            time.sleep(AGAIN_S)
            began_at = time.monotonic()
            self._add_chunks(source, name_filter, meter)

    def _add_chunks(self, source: Source, name_filter: NameFilter | None, meter: Meter) -> None:
        for chunk in _chunks(source, name_filter, meter):
            encoded = [name.encode("utf-8", "surrogateescape") for name in chunk.names]
            self._blob += b"".join(encoded)
            self._lengths.extend(map(len, encoded))
            self._sizes.extend(chunk.sizes)
            _check_room(source, len(self._blob) + 16 * len(self), len(self))

    def done(self, sources: Sequence[Source], counts: Sequence[int]) -> Listing:
        ends = np.frombuffer(self._lengths, np.int64)
        return Listing(sources, counts, self._blob, np.cumsum(ends, out=ends), np.frombuffer(self._sizes, np.int64))
