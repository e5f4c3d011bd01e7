"""Objects as samples, in a stream, many to a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from aistore.sdk import Client
from aistore.sdk.enums import Colocation
from typing_extensions import Unpack

from aisdatapipes.datasets.iter_dataset import named
from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.options import IterOptions
from aisdatapipes.datasets.sources import Prefixes
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import Verdict
from aisdatapipes.model.errors import AISPipeError, ConfigError, NotFound
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.batch import BatchForm
from aisdatapipes.store.source import config_of

_FORMATS = (".tar", ".tgz", ".tar.gz", ".zip")


class AISBatchIterDataset(AISBaseIterDataset):
    """``(name, content)`` of every object, read by get-batch.

    The cluster must have get-batch (AIStore 4.0 and later). What an answer lacks is read again by GET.

    Args:
        ais_source_list: As in `AISBaseIterDataset`, and so are ``prefix_map``, ``partition_sources_by_worker`` and
            ``options``.
        client: The SDK's client of the cluster.
        show_progress: One bar for the job, on a terminal; a line now and then elsewhere.
        max_batch_size: Objects in one request.
        output_format: How answers are packed: ``.tar``, ``.tgz``, ``.tar.gz`` or ``.zip``.
        streaming: Answers come while the cluster reads; else each in one piece.
        colocation: Hint for the cluster: 1 lets the owner of most objects answer.
        cont_on_err: Skip objects that are not there (counted, warned of once); else they raise ``ObjectNotFound``.

    Yields: ``(name, content)``: ``str``, ``bytes``.
    """

    def __init__(
        self,
        ais_source_list: Any,
        client: Client,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        show_progress: bool = False,
        max_batch_size: int = 32,
        output_format: str = ".tar",
        streaming: bool = True,
        colocation: int = Colocation.NONE,
        partition_sources_by_worker: bool = False,
        cont_on_err: bool = False,
        **options: Unpack[IterOptions],
    ) -> None:
        if output_format not in _FORMATS:
            raise ConfigError(f"output_format must be one of {_FORMATS}, not {output_format!r}")
        if cont_on_err:
            options.setdefault("on_error", skip_missing)
        options.setdefault("config", config_of(client))
        super().__init__(ais_source_list, prefix_map, partition_sources_by_worker, **options)
        self.max_batch_size = max_batch_size
        self.output_format = output_format
        self.streaming = streaming
        self.colocation = colocation
        self.cont_on_err = cont_on_err
        self._show_progress = show_progress
        self._fetch = dataclasses.replace(self._fetch, strategy="batch", batch_objects=max_batch_size)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return self._iterate(self._samples, "objects" if self._show_progress else None)

    def _samples(self, urls: Iterator[AISURL], meter: Meter) -> Iterator[tuple[str, bytes]]:
        form = BatchForm(self.output_format, self.streaming, int(self.colocation))
        contents = fetched(urls, self._clusters(), self._fetch, meter, self._tolerance, form)
        return map(named, contents)


def skip_missing(error: AISPipeError) -> Verdict:
    """``cont_on_err``: objects that are not there are skipped, everything else is raised."""
    return "skip" if isinstance(error, NotFound) else "raise"
