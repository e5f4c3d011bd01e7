"""Samples of indexed shards: where each is, in a few arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.samples import samples
from aisdatapipes.wire.shardindex import ShardIndex
from aisdatapipes.wire.tar_header import BLOCK

_MAX_BLOCK = (1 << 32) - 1  # shards of up to 2 TiB


class Field(NamedTuple):
    """Where one field of a sample is.

    Attributes:
        extension: In lower case.
        start: Its first byte in the shard.
        size: Bytes.
    """

    extension: str
    start: int
    size: int


class Located(NamedTuple):
    """Where one sample is.

    Attributes:
        key: As `aisdatapipes.wire.samples.split` makes it.
        shard: Index of its shard.
        fields: In archive order.
    """

    key: str
    shard: int
    fields: tuple[Field, ...]

    @property
    def span(self) -> tuple[int, int]:
        """``(first, end)`` byte of the run from its first field to its last one, those between them included."""
        return min(one.start for one in self.fields), max(one.start + one.size for one in self.fields)


class ShardTable(Sequence[Located]):
    """All samples of some shards, in order of shards and archives: 16 bytes a field, 16 a sample, and its key.

    Made by `TableBuilder`. Pickles.

    Args:
        shards: With their sizes.
        checksums: What the cluster's checksum of each shard was when it was indexed; empty where it keeps none.
        extensions: All that there are, in order of appearance.
        known: How many of them there are up to the end of each shard: shape (S,).
        firsts: Index of the first sample of each shard, and their number: shape (S + 1,).
        begins: Index of the first field of each sample, and their number: shape (N + 1,).
        keys: All keys, one after the other, in UTF-8.
        key_ends: Where each ends in ``keys``: shape (N,).
        kinds: Index in ``extensions`` of each field: shape (F,).
        blocks: Where the data of each field begin, in units of 512 bytes: shape (F,).
        sizes: Bytes of each field: shape (F,).
    """

    def __init__(
        self,
        shards: Sequence[AISURL],
        checksums: Sequence[str],
        extensions: Sequence[str],
        known: npt.NDArray[np.int64],
        firsts: npt.NDArray[np.int64],
        begins: npt.NDArray[np.int64],
        keys: bytes | bytearray,
        key_ends: npt.NDArray[np.int64],
        kinds: npt.NDArray[np.uint32],
        blocks: npt.NDArray[np.uint32],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        self.shards, self.checksums, self.extensions = tuple(shards), tuple(checksums), tuple(extensions)
        self._known, self._firsts, self._begins = known, firsts, begins
        self._keys, self._key_ends = keys, key_ends
        self._kinds, self._blocks, self._sizes = kinds, blocks, sizes

    def __len__(self) -> int:
        return len(self._key_ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.located(range(len(self))[index])
        (found,) = self.located([range(len(self))[index]])
        return found

    def located(self, positions: npt.ArrayLike) -> list[Located]:
        """The samples at some positions in ``[0, N)``; many at once cost a fifth each."""
        wanted = np.asarray(positions, np.int64)
        shards = (np.searchsorted(self._firsts, wanted, side="right") - 1).tolist()
        starts = np.where(wanted > 0, self._key_ends[wanted - 1], 0).tolist() if len(wanted) else []
        ends, begins, stops = (
            rows.tolist() for rows in (self._key_ends[wanted], self._begins[wanted], self._begins[wanted + 1])
        )
        return [self._located(*one) for one in zip(shards, starts, ends, begins, stops, strict=True)]

    def _located(self, shard: int, start: int, end: int, begin: int, stop: int) -> Located:
        parts = zip(
            self._kinds[begin:stop].tolist(),
            self._blocks[begin:stop].tolist(),
            self._sizes[begin:stop].tolist(),
            strict=True,
        )
        fields = tuple(Field(self.extensions[kind], block * BLOCK, size) for kind, block, size in parts)
        return Located(self._keys[start:end].decode("utf-8", "surrogateescape"), shard, fields)

    def key(self, position: int) -> str:
        """The key of the sample at a position in ``[0, N)``."""
        start = int(self._key_ends[position - 1]) if position else 0
        return self._keys[start : int(self._key_ends[position])].decode("utf-8", "surrogateescape")

    def extensions_of(self, shard: int) -> tuple[str, ...]:
        """All extensions in a shard and in the shards before it, in order of appearance."""
        return self.extensions[: int(self._known[shard])]

    @property
    def members(self) -> int:
        """Number of fields of all samples."""
        return len(self._sizes)

    def sample_sizes(self, extensions: Iterable[str] | None = None) -> npt.NDArray[np.int64]:
        """Bytes of each sample, of its fields with these extensions (None for all): shape (N,)."""
        sizes = self._sizes
        if extensions is not None:
            names = set(extensions)
            wanted = [kind for kind, extension in enumerate(self.extensions) if extension in names]
            sizes = np.where(np.isin(self._kinds, wanted), sizes, 0)
        # Every sample has a field, so no two of them begin at the same one.
        return np.add.reduceat(sizes, self._begins[:-1]) if len(self) else np.zeros(0, np.int64)

    def of_shard(self, shard: int) -> range:
        """Positions of the samples of a shard."""
        return range(int(self._firsts[shard]), int(self._firsts[shard + 1]))

    def positions_of(self, key: str) -> list[int]:
        """Where samples with this key are, in order: several shards may have one each. The first time sorts all."""
        wanted = key.encode("utf-8", "surrogateescape")
        digest, (digests, order) = np.uint64(xxhash.xxh64_intdigest(wanted)), self._by_digest
        low, high = np.searchsorted(digests, digest, "left"), np.searchsorted(digests, digest, "right")
        return sorted(position for position in order[low:high].tolist() if self.key(position) == key)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell two tables apart: xxh64 over shards, their checksums, and all that is in them."""
        digest = xxhash.xxh64()
        for shard, checksum in zip(self.shards, self.checksums, strict=True):
            digest.update(f"{shard}\n{shard.size} {checksum}\n".encode("utf-8", "surrogateescape"))
        digest.update("\n".join(self.extensions).encode("utf-8", "surrogateescape"))
        for part in (self._firsts, self._begins, self._key_ends, self._kinds, self._blocks, self._sizes):
            digest.update(part.data)
        digest.update(self._keys)
        return digest.hexdigest()

    @cached_property
    def _by_digest(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """The digests of all keys in ascending order, and whose they are."""
        keys, start = self._keys, 0
        digests = np.empty(len(self), np.uint64)
        for position, end in enumerate(self._key_ends.tolist()):
            digests[position] = xxhash.xxh64_intdigest(keys[start:end])
            start = end
        order = np.argsort(digests, kind="stable")
        return digests[order], order

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = (self._known, self._firsts, self._begins, self._keys, self._key_ends)
        of_fields = (self._kinds, self._blocks, self._sizes)
        made = {"fingerprint": self.__dict__["fingerprint"]} if "fingerprint" in self.__dict__ else None
        return (ShardTable, (self.shards, self.checksums, self.extensions, *arrays, *of_fields), made)


class TableBuilder:
    """A `ShardTable` that grows shard by shard; of an index nothing is kept but what the table needs."""

    def __init__(self) -> None:
        self._shards: list[AISURL] = []
        self._checksums: list[str] = []
        self._kinds_of: dict[str, int] = {}  # index of each extension
        # They grow in place, as those of a listing.
        self._known, self._firsts, self._begins = array("q"), array("q", [0]), array("q", [0])
        self._key_ends = array("q")
        self._keys = bytearray()
        self._kinds, self._blocks, self._sizes = array("I"), array("I"), array("q")

    def add(self, shard: AISURL, index: ShardIndex) -> None:
        """Append the samples of a shard.

        Raises: ``CorruptShard`` where its members do not make samples, as reading them would; the table is of no use
            then.
        """
        if index.size > _MAX_BLOCK * BLOCK:
            raise ConfigError(f"{shard}: {index.size} bytes are more than an indexed shard can have; use index='off'")
        kinds_of = self._kinds_of
        for key, fields in samples(_named(index), shard):
            self._keys += key.encode("utf-8", "surrogateescape")
            self._key_ends.append(len(self._keys))
            for extension, (offset, size) in fields.items():
                self._kinds.append(kinds_of.setdefault(extension, len(kinds_of)))
                self._blocks.append(offset // BLOCK + 1)
                self._sizes.append(size)
            self._begins.append(len(self._kinds))
        self._firsts.append(len(self._key_ends))
        self._known.append(len(kinds_of))
        self._shards.append(_sized(shard, index.size))
        self._checksums.append(index.checksum)

    def table(self) -> ShardTable:
        """The table; nothing can be added any more."""
        return ShardTable(
            self._shards,
            self._checksums,
            tuple(self._kinds_of),
            np.frombuffer(self._known, np.int64),
            np.frombuffer(self._firsts, np.int64),
            np.frombuffer(self._begins, np.int64),
            self._keys,
            np.frombuffer(self._key_ends, np.int64),
            np.frombuffer(self._kinds, np.uint32),
            np.frombuffer(self._blocks, np.uint32),
            np.frombuffer(self._sizes, np.int64),
        )


def _named(index: ShardIndex) -> Iterator[tuple[str, tuple[int, int], int]]:
    for name, offset, size in index.entries():
        yield name.decode("utf-8", "surrogateescape"), (offset, size), offset


def _sized(url: AISURL, size: int) -> AISURL:
    if url.size == size:
        return url
    return AISURL.make(
        url, url.provider, url.bucket, url.name, namespace=url.namespace, size=size, endpoint=url.endpoint,
        etl_name=url.etl_name,
    )  # fmt: skip
