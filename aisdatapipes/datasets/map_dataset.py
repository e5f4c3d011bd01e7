"""Objects as samples, by index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import Unpack

from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.options import MapOptions
from aisdatapipes.datasets.sources import Prefixes


class AISMapDataset(AISBaseMapDataset):
    """``(name, content)`` of the object at an index; a batch of indices is read in one pass.

    Args:
        ais_source_list: As in `AISBaseMapDataset`, and so are ``prefix_map`` and ``options``.
        etl_name: ETL on the cluster that is applied to each object; it must exist there.

    ``dataset[i]``: ``(str, bytes)``. Raises ``IndexError`` outside of the dataset, ``NotFound`` and the like.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        etl_name: str | None = None,
        **options: Unpack[MapOptions],
    ) -> None:
        super().__init__(ais_source_list, prefix_map, etl_name=etl_name, **options)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        ((url, data),) = self._read([index], single=True)
        return url.name, data

    def __getitems__(self, indices: list[int]) -> list[tuple[str, bytes]]:
        """The samples at ``indices``, in this order, in one pass of the engine."""
        if type(self).__getitem__ is not AISMapDataset.__getitem__:
            return super().__getitems__(indices)  # a subclass says what a sample is
        return [(url.name, data) for url, data in self._read(indices)]
