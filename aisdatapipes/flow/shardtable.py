"""Samples of indexed shards: where each is, in a few arrays."""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from aisdatapipes.model.errors import ConfigError, CorruptShard
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.samplecolumns import sample_columns
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


class Rows(NamedTuple):
    """Where some samples are, as columns.

    Attributes:
        keys: Of each sample: M of them.
        shards: Index of the shard of each: shape (M,).
        ends: Where the fields of each end in the other columns: shape (M,).
        kinds: Index in the table's extensions of each field, in archive order within a sample: shape (F,).
        homes: Index of the shard that each is in: shape (F,).
        starts: First byte of each in its shard: shape (F,).
        sizes: Bytes of each: shape (F,).
    """

    keys: list[str]
    shards: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.uint32]
    homes: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


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
        homes: Index of the shard that each field is in: shape (F,); None where it is that of its sample. Shards that
            are behind the S of ``firsts`` have fields only.
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
        homes: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        self.shards, self.checksums, self.extensions = tuple(shards), tuple(checksums), tuple(extensions)
        self._known, self._firsts, self._begins = known, firsts, begins
        self._keys, self._key_ends = keys, key_ends
        self._kinds, self._blocks, self._sizes, self._homes = kinds, blocks, sizes, homes

    @property
    def columns(self) -> tuple[Any, ...]:
        """All of it but shards, checksums, extensions and homes, as it was given."""
        of_shards, of_keys = (self._known, self._firsts, self._begins), (self._keys, self._key_ends)
        return (*of_shards, *of_keys, self._kinds, self._blocks, self._sizes)

    def __len__(self) -> int:
        return len(self._key_ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.located(range(len(self))[index])
        (found,) = self.located([range(len(self))[index]])
        return found

    def located(self, positions: npt.ArrayLike) -> list[Located]:
        """The samples at some positions in ``[0, N)``; many at once cost a fifth each."""
        rows = self.rows(positions)
        parts = zip(rows.kinds.tolist(), rows.starts.tolist(), rows.sizes.tolist(), strict=True)
        fields = (Field(self.extensions[kind], start, size) for kind, start, size in parts)
        places = zip(rows.keys, rows.shards.tolist(), np.diff(rows.ends, prepend=0).tolist(), strict=True)
        return [Located(key, shard, tuple(itertools.islice(fields, count))) for key, shard, count in places]

    def rows(self, positions: npt.ArrayLike) -> Rows:
        """The same as columns, which cost less yet."""
        wanted = np.asarray(positions, np.int64)
        begins, counts = self._begins[wanted], self._begins[wanted + 1] - self._begins[wanted]
        ends = np.cumsum(counts)
        # Of all fields of these samples: first those of the first sample, and so on.
        fields = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + counts, counts)
        key_starts = np.where(wanted > 0, self._key_ends[wanted - 1], 0) if len(wanted) else wanted
        keys = zip(key_starts.tolist(), self._key_ends[wanted].tolist(), strict=True)
        shards = np.searchsorted(self._firsts, wanted, side="right") - 1
        return Rows(
            [self._keys[start:end].decode("utf-8", "surrogateescape") for start, end in keys],
            shards,
            ends,
            self._kinds[fields],
            np.repeat(shards, counts) if self._homes is None else self._homes[fields].astype(np.int64),
            self._blocks[fields].astype(np.int64) * BLOCK,
            self._sizes[fields],
        )

    def key(self, position: int) -> str:
        """The key of the sample at a position in ``[0, N)``."""
        start = int(self._key_ends[position - 1]) if position else 0
        return self._keys[start : int(self._key_ends[position])].decode("utf-8", "surrogateescape")

    @property
    def is_joined(self) -> bool:
        """Whether fields may be in other shards than their samples."""
        return self._homes is not None

    def known_in(self, shard: int) -> int:
        """How many extensions there are in a shard and in the shards before it."""
        return int(self._known[shard])

    def extensions_of(self, shard: int) -> tuple[str, ...]:
        """All extensions in a shard and in the shards before it, in order of appearance."""
        return self.extensions[: self.known_in(shard)]

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

    def samples_in(self, size: int) -> int:
        """How many samples take ``size`` bytes of the shards, on average; 1 at least."""
        total = sum(shard.size for shard in self.shards)
        return max(1, size * len(self) // max(1, total))

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
        for part in (self._firsts, self._begins, self._key_ends, self._kinds, self._blocks, self._sizes, self._homes):
            if part is not None:
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
        made = {"fingerprint": self.__dict__["fingerprint"]} if "fingerprint" in self.__dict__ else None
        return (ShardTable, (self.shards, self.checksums, self.extensions, *self.columns, self._homes), made)


class TableBuilder:
    """A `ShardTable` that grows shard by shard; of an index nothing is kept but what the table needs."""

    def __init__(self) -> None:
        self._shards: list[AISURL] = []
        self._checksums: list[str] = []
        self._kinds_of: dict[str, int] = {}  # index of each extension
        self._kinds_as_written: dict[bytes, int] = {}  # the same, before case is forgotten
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
        columns = sample_columns(index)
        if columns is None:
            raise _corrupt(index, shard)
        kinds = self._kinds_as(columns.extensions)
        ends = np.append(columns.begins, len(kinds))[1:]
        if _has_twins(kinds, ends):
            raise _corrupt(index, shard)
        self._begins.frombytes((len(self._kinds) + ends).tobytes())
        self._kinds.frombytes(kinds.tobytes())
        self._blocks.frombytes((index.offsets[columns.members] // BLOCK + 1).astype(np.uint32).tobytes())
        self._sizes.frombytes(index.sizes[columns.members].tobytes())
        lengths = np.fromiter(map(len, columns.keys), np.int64, len(columns.keys))
        self._key_ends.frombytes((len(self._keys) + np.cumsum(lengths)).tobytes())
        self._keys += b"".join(columns.keys)
        self._firsts.append(len(self._key_ends))
        self._known.append(len(self._kinds_of))
        self._shards.append(sized(shard, index.size))
        self._checksums.append(index.checksum)

    def _kinds_as(self, extensions: list[bytes]) -> npt.NDArray[np.uint32]:
        """Index of each extension, as they are written."""
        kinds, known = self._kinds_as_written, self._kinds_of
        for written in dict.fromkeys(extensions):
            if written not in kinds:
                kinds[written] = known.setdefault(written.decode("utf-8", "surrogateescape").lower(), len(known))
        return np.fromiter(map(kinds.__getitem__, extensions), np.uint32, len(extensions))

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


def _has_twins(kinds: npt.NDArray[np.uint32], ends: npt.NDArray[np.int64]) -> bool:
    """Whether a sample has two fields of one kind."""
    samples_of = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    fields = np.sort(samples_of * (int(kinds.max(initial=0)) + 1) + kinds)
    return bool((fields[1:] == fields[:-1]).any())


def _corrupt(index: ShardIndex, shard: str) -> CorruptShard:
    """Why the members of a shard do not make samples, as reading them would say it."""
    named = ((name.decode("utf-8", "surrogateescape"), b"", offset) for name, offset, _ in index.entries())
    try:
        deque(samples(named, shard), maxlen=0)
    except CorruptShard as error:
        return error
    raise AssertionError(f"{shard}: a defect in aisdatapipes, please report it: columns and samples disagree")


def sized(url: AISURL, size: int) -> AISURL:
    """The URL with a size."""
    if url.size == size:
        return url
    return AISURL.make(
        url, url.provider, url.bucket, url.name, namespace=url.namespace, size=size, endpoint=url.endpoint,
        etl_name=url.etl_name,
    )  # fmt: skip
