"""Large objects as samples, by index, each read in several parts at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from typing_extensions import Self, Unpack

from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.options import MapOptions
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.model.errors import ConfigError


class ContentBuffer:
    """A content with the interface of the SDK's ``ParallelBuffer``; plain memory, so it pickles and needs no closing.

    Args:
        data: The content.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data

    def __reduce__(self) -> tuple[type[ContentBuffer], tuple[bytes]]:
        return ContentBuffer, (self.tobytes(),)

    def __len__(self) -> int:
        return len(self._data)

    @property
    def buf(self) -> memoryview:
        """The content without a copy, read-only."""
        return memoryview(self._data).toreadonly()

    def tobytes(self) -> bytes:
        """The content."""
        return bytes(self._data)

    def close(self) -> None:
        """Let go of the memory; idempotent."""
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ContentBuffer({len(self)} bytes)"


class AISParallelMapDataset(AISBaseMapDataset):
    """``(name, buffer)`` of the object at an index, for large objects: parts of it are read at the same time.

    Args:
        ais_source_list: As in `AISBaseMapDataset`, and so are ``prefix_map`` and ``options``.
        num_workers: Parts under way at the same time, of ``fetch.range_bytes`` each.

    ``dataset[i]``: ``(str, ContentBuffer)``; ``buffer.buf`` is a memoryview, ``buffer.tobytes()`` bytes. All parts
    are of one version of the object, or ``CorruptBody`` is raised.
    """

    def __init__(
        self,
        ais_source_list: Any = None,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        num_workers: int = 16,
        **options: Unpack[MapOptions],
    ) -> None:
        if not isinstance(num_workers, int) or num_workers < 1:
            raise ConfigError(f"num_workers must be 1 or more, not {num_workers!r}")
        super().__init__(ais_source_list, prefix_map, **options)
        self._num_workers = num_workers
        self._fetch = dataclasses.replace(self._fetch, strategy="ranges", width=num_workers)

    @property
    def num_workers(self) -> int:
        """Parts under way at the same time."""
        return self._num_workers

    def __getitem__(self, index: int) -> tuple[str, ContentBuffer]:
        ((url, data),) = self._read([index], single=True, as_views=True)
        return url.name, ContentBuffer(data)

    def __getitems__(self, indices: list[int]) -> list[tuple[str, ContentBuffer]]:
        """The samples at ``indices``, in this order, in one pass of the engine."""
        if type(self).__getitem__ is not AISParallelMapDataset.__getitem__:
            return super().__getitems__(indices)  # a subclass says what a sample is
        return [(url.name, ContentBuffer(data)) for url, data in self._read(indices, as_views=True)]
