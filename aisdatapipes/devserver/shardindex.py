"""The index of a tar shard, as AIStore 5.0 makes it: where each regular member begins, and its size."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from aisdatapipes.devserver.refusals import Refused
from aisdatapipes.wire.shardindex import SERVER, ShardIndex, encoded_index

if TYPE_CHECKING:
    from aisdatapipes.devserver.buckets import Stored


def encoded(stored: Stored) -> bytes:
    """The index of a shard; of several members with one name the first is in it. Refuses what is no tar."""
    members = ((name, offset, size) for name, (offset, size) in _entries(stored).items())
    return encoded_index(ShardIndex.of(members, stored.checksum, len(stored.data)), SERVER)


def _entries(stored: Stored) -> dict[bytes, tuple[int, int]]:
    entries: dict[bytes, tuple[int, int]] = {}
    try:
        # The server does not mind where the padding of the last member is missing.
        whole = io.BytesIO(stored.data + bytes(-len(stored.data) % 512))
        with tarfile.open(fileobj=whole, mode="r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    name = member.name.encode("utf-8", "surrogateescape")
                    entries.setdefault(name, (member.offset_data - 512, member.size))
                    if member.size < 0:
                        raise tarfile.HeaderError("negative size")
    except tarfile.TarError as error:
        raise Refused(400, f"shard index: tar reader failure: {error}") from None
    return entries
