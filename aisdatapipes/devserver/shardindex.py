"""The index of a tar shard, as AIStore 5.0 stores it: where each regular member begins, and its size.

Layout: three bytes (version 1, format 0 for tar, checksum 1 for xxh64), the checksum of the payload in 8
bytes, big endian, then the payload: type and value of the shard's checksum, its size, the number of entries,
and for each entry name, offset of its header, size. Texts have their length in front; numbers are unsigned
LEB128.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import xxhash

from aisdatapipes.devserver.refusals import Refused
from aisdatapipes.wire.placement import SEED

if TYPE_CHECKING:
    from aisdatapipes.devserver.buckets import Stored


def encoded(stored: Stored) -> bytes:
    """The index of a shard; of several members with one name the first is in it."""
    entries = _entries(stored)
    payload = b"".join(
        (
            _text(b"xxhash2"),
            _text(stored.checksum.encode()),
            _number(len(stored.data)),
            _number(len(entries)),
            *(_text(name) + _number(offset) + _number(size) for name, (offset, size) in entries.items()),
        )
    )
    return bytes((1, 0, 1)) + xxhash.xxh64_digest(payload, SEED) + payload


def _entries(stored: Stored) -> dict[bytes, tuple[int, int]]:
    entries: dict[bytes, tuple[int, int]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(stored.data), mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    name = member.name.encode("utf-8", "surrogateescape")
                    entries.setdefault(name, (member.offset_data - 512, member.size))
    except tarfile.TarError as error:
        raise Refused(400, f"failed to index: {error}") from None
    return entries


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _text(data: bytes) -> bytes:
    return _number(len(data)) + data
