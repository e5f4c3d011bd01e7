"""Shards and datasets that several tests use; module level, so that workers can find them."""

from __future__ import annotations

from aisdatapipes import AISBaseIterDataset, AISMapDataset
from aisdatapipes.wire.tar import END, entry


def shard(*samples: tuple[str, dict[str, bytes]]) -> bytes:
    """A tar of WebDataset samples."""
    members = (entry(f"{key}.{ext}", data) for key, sample in samples for ext, data in sample.items())
    return b"".join(members) + END


def numbered(first: int, count: int) -> bytes:
    """A shard of ``count`` samples, whose contents tell their numbers."""
    return shard(
        *((f"{i:04d}", {"bin": bytes([i % 256]) * 10, "cls": str(i).encode()}) for i in range(first, first + count))
    )


class OldStyle(AISBaseIterDataset):
    """A subclass as upstream's example notebooks write it."""

    def __iter__(self):
        self._reset_iterator()
        objects, _ = super()._get_worker_iter_info()
        for item in objects:
            yield item.name, item.get_reader().read_all()


class Sizes(AISMapDataset):
    """A subclass that says itself what a sample is."""

    def __getitem__(self, index):
        name, data = super().__getitem__(index)
        return name, len(data)
