"""The index of a tar shard as bytes, both ways: where each of its members is.

The layout is AIStore 5.0's (``cmn/archive``, "shard index")::

    version, format, checksum type     a byte each: 1; 0 for tar; 1 for xxh64
    checksum                           8 bytes, big endian: xxh64 of the payload, seed `SEED`
    payload:
        type of the shard's checksum   text
        the shard's checksum           text, as in ``Ais-Checksum-Value``
        size of the shard              number
        entries                        number, at most `MAX_MEMBERS`
        each entry                     name (text), offset of its header (number), size of its data (number)

A text has its length in bytes in front, as a number; numbers are unsigned LEB128. The server writes entries in any
order; they are told apart by their offsets. Format 128 is our own, for indexes that a client keeps: its entries are in
archive order, so that a member may stand twice, and two may share their data (hard links).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.placement import SEED
from aisdatapipes.wire.tar_header import BLOCK

MAX_MEMBERS = 1 << 20  # the server's own limit
VERSION, XXH64 = 1, 1
SERVER, KEPT = 0, 128  # formats

_HEAD_BYTES = 11
_SMALLEST_ENTRY = 3  # bytes: a name of none, an offset and a size below 128
_LAST_SHIFT = 56  # nine bytes of seven bits: what an int64 holds
_ENDS = bytes([1] * 0x80 + [0] * 0x80)  # 1 for a byte that ends a number


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """Where the members of a shard are, in archive order; 20 bytes a member and its name.

    Args:
        checksum: Of the shard, as the cluster keeps it; empty where it keeps none.
        size: Bytes of the shard.
        blob: All names one after the other, as they stand in the archive.
        ends: Where each name ends in ``blob``: shape (M,).
        offsets: Of the 512-byte header right before the data of each member, which begin at ``offset + 512``: shape
            (M,). A hard link has the place of the member it points to.
        sizes: Bytes of each member: shape (M,).
        checksum_type: How the cluster calls the kind of checksum.
    """

    checksum: str
    size: int
    blob: bytes
    ends: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    checksum_type: str = "xxhash2"

    @staticmethod
    def of(
        entries: Iterable[tuple[bytes, int, int]], checksum: str, size: int, checksum_type: str = "xxhash2"
    ) -> ShardIndex:
        """The index of members ``(name, offset, size)``, in archive order."""
        found = list(entries)
        names = [name for name, _, _ in found]
        ends = np.cumsum(np.fromiter(map(len, names), np.uint32, len(names)), dtype=np.uint32)
        offsets = np.fromiter((offset for _, offset, _ in found), np.int64, len(found))
        sizes = np.fromiter((one for _, _, one in found), np.int64, len(found))
        return ShardIndex(checksum, size, b"".join(names), ends, offsets, sizes, checksum_type)

    def __len__(self) -> int:
        """Number of members."""
        return len(self.ends)

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """``(name, offset, size)`` of every member, in archive order."""
        start = 0
        for end, offset, size in zip(self.ends.tolist(), self.offsets.tolist(), self.sizes.tolist(), strict=True):
            yield self.blob[start:end], offset, size
            start = end

    def uncovered(self) -> list[tuple[int, int]]:
        """``(first, end)`` of what lies between, before and behind the members: bytes that the index says nothing of.

        The last one is the end of the archive: it may be empty, and begins behind its own end where the padding of the
        last member is missing. For indexes in which no members share data.
        """
        stops = np.concatenate(([0], self.offsets + BLOCK + self.sizes + -self.sizes % BLOCK))
        starts = np.concatenate((self.offsets, [self.size]))
        between = np.flatnonzero(starts[:-1] > stops[:-1])
        gaps = zip(stops[between].tolist(), starts[between].tolist(), strict=True)
        return [*gaps, (int(stops[-1]), self.size)]


def encoded_index(index: ShardIndex, form: int = KEPT) -> bytes:
    """The bytes of an index; ``form`` is `KEPT` or `SERVER`."""
    payload = b"".join(
        (
            _text(index.checksum_type.encode()),
            _text(index.checksum.encode()),
            _number(index.size),
            _number(len(index)),
            *(_text(name) + _number(offset) + _number(size) for name, offset, size in index.entries()),
        )
    )
    return bytes((VERSION, form, XXH64)) + xxhash.xxh64_digest(payload, SEED) + payload


def decoded_index(data: bytes, form: int = SERVER) -> ShardIndex:
    """The index that these bytes are.

    Time and memory are in proportion to the bytes, whatever they claim.
    Raises: `Malformed` that says what is wrong.
    """
    _check_head(data, form)
    try:
        checksum_type, at = _read_text(data, _HEAD_BYTES)
        checksum, at = _read_text(data, at)
        size, at = _read_number(data, at)
        count, at = _read_number(data, at)
        if count > min(MAX_MEMBERS, (len(data) - at) // _SMALLEST_ENTRY):
            raise Malformed(f"it claims {count} members in {len(data) - at} bytes; at most {MAX_MEMBERS} can be")
        blob, ends, offsets, sizes = _read_entries(data, at, count, ordered=form == SERVER)
        kind, value = checksum_type.decode("ascii"), checksum.decode("ascii")
    except IndexError:
        raise Malformed("truncated: it ends inside an entry") from None
    except UnicodeDecodeError:
        raise Malformed("the checksum of its shard is no text") from None
    index = ShardIndex(value, size, blob, ends, offsets, sizes, kind)
    _check_places(index, shared=form == KEPT)
    return index


def _check_head(data: bytes, form: int) -> None:
    if len(data) < _HEAD_BYTES:
        raise Malformed(f"truncated: {len(data)} bytes are less than its head")
    version, found, checksum_type = data[:3]
    if version != VERSION:
        raise Malformed(f"it has version {version}, and this aisdatapipes reads version {VERSION}")
    if found != form:
        raise Malformed(f"it has format {found} instead of {form}")
    if checksum_type != XXH64:
        raise Malformed(f"its checksum is of type {checksum_type} instead of {XXH64} (xxh64)")
    if xxhash.xxh64_digest(memoryview(data)[_HEAD_BYTES:], SEED) != data[3:_HEAD_BYTES]:
        raise Malformed("damaged: its checksum is wrong")


def _read_entries(
    data: bytes, at: int, count: int, *, ordered: bool
) -> tuple[bytes, npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The columns of a `ShardIndex`; ``ordered`` by offset.

    Entry by entry it is only found where each is; what their numbers are is reckoned for all of them at once.
    """
    places: list[int] = []  # of each: begin and end of its name, begin and end of its size
    find_end = data.translate(_ENDS).find
    for _ in range(count):
        length, name_at = data[at], at + 1
        if length > 0x7F:
            length, name_at = _read_number(data, at)
        name_end = name_at + length
        size_at = find_end(1, name_end) + 1
        size_end = find_end(1, size_at) + 1
        if not size_at or not size_end:
            _read_text(data, at)  # which knows better, maybe
            raise IndexError
        places += (name_at, name_end, size_at, size_end)
        at = size_end
    if at != len(data):
        raise Malformed(f"{len(data) - at} bytes behind its last entry")
    found = np.array(places, np.int64).reshape(count, 4)
    offsets = _numbers(data, found[:, 1], found[:, 2])
    if ordered:
        order = np.argsort(offsets, kind="stable")
        offsets, found = offsets[order], found[order]
    starts, stops = found[:, 0], found[:, 1]
    blob = b"".join(map(data.__getitem__, map(slice, starts.tolist(), stops.tolist())))
    ends = np.cumsum(stops - starts, dtype=np.uint32)
    return blob, ends, offsets, _numbers(data, found[:, 2], found[:, 3])


def _numbers(data: bytes, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers that stand between these places."""
    digits, lengths = np.frombuffer(data, np.uint8), ends - starts
    longest = int(lengths.max(initial=0))
    if longest > _LAST_SHIFT // 7 + 1:
        raise _too_large()
    values = np.zeros(len(starts), np.int64)
    for digit in reversed(range(longest)):
        # Where a number has no such digit, some other one is multiplied away.
        places = np.minimum(starts + digit, ends - 1)
        values = (values << 7) + (digits[places] & 0x7F) * (lengths > digit)
    return values


def _too_large() -> Malformed:
    return Malformed("a number in it is too large")


def _check_places(index: ShardIndex, *, shared: bool) -> None:
    """Every member lies inside the shard, and where none are ``shared`` each behind the one before it."""
    offsets, sizes = index.offsets, index.sizes
    _check(offsets % BLOCK == 0, index, f"is at offset {{offset}}, which is no multiple of {BLOCK}")
    # No sum here is too large for an int64: each of its parts is looked at first.
    _check(offsets <= index.size - BLOCK, index, "begins at {offset}, behind the end of the shard")
    _check(sizes <= index.size - BLOCK - offsets, index, "at {offset} has {size} bytes, which the shard ends before")
    if not shared:
        free = np.concatenate(([0], (offsets + BLOCK + sizes)[:-1]))
        _check(offsets >= free[: len(offsets)], index, "at {offset} begins inside the one before it")


def _check(good: npt.NDArray[np.bool_], index: ShardIndex, wrong: str) -> None:
    if good.all():
        return
    bad = int(np.argmin(good))
    start = int(index.ends[bad - 1]) if bad else 0
    name = index.blob[start : int(index.ends[bad])].decode("utf-8", "backslashreplace")
    what = wrong.format(offset=index.offsets[bad], size=index.sizes[bad])
    raise Malformed(f"member {name!r} {what} ({index.size} bytes)")


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends; ``IndexError`` at the end of the data."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > _LAST_SHIFT:
            raise _too_large()


def _read_text(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _read_number(data, at)
    end = at + length
    if end > len(data):
        raise Malformed(f"truncated: a text of {length} bytes, and {len(data) - at} are left")
    return data[at:end], end


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _text(data: bytes) -> bytes:
    return _number(len(data)) + data
