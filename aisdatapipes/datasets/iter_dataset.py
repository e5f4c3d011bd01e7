"""Objects as samples, in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import Unpack

from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.options import IterOptions
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.url import AISURL


class AISIterDataset(AISBaseIterDataset):
    """``(name, content)`` of every object.

    Args:
        ais_source_list: As in `AISBaseIterDataset`, and so are ``prefix_map``, ``partition_sources_by_worker`` and
            ``options``.
        etl_name: ETL on the cluster that is applied to each object; it must exist there.
        show_progress: One bar for the job, on a terminal; a line now and then elsewhere.

    Yields: ``(name, content)``: ``str``, ``bytes``.
    Order: that of the sources and their listings, or shuffled; the same for any number of workers if ``batch_size``
        is that of the loader.
    Memory: ``fetch.window_bytes`` in each worker.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        etl_name: str | None = None,
        show_progress: bool = False,
        partition_sources_by_worker: bool = False,
        **options: Unpack[IterOptions],
    ) -> None:
        super().__init__(ais_source_list, prefix_map, partition_sources_by_worker, etl_name=etl_name, **options)
        self._show_progress = show_progress

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return self._iterate(self._samples, "objects" if self._show_progress else None)

    def _samples(self, urls: Iterator[AISURL], meter: Meter) -> Iterator[tuple[str, bytes]]:
        contents = fetched(urls, self._clusters(), self._fetch, meter, self._tolerance)
        return map(named, contents)


def named(fetched: tuple[AISURL, Any]) -> tuple[str, Any]:
    """``(name, content)`` of ``(url, content)``.

    It is for `map`: a loop would keep each content until the next one is there.
    """
    return fetched[0].name, fetched[1]
