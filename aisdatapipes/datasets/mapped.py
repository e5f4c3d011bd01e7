"""What all map-style datasets share: the listing, in arrays, and the access to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from aisdatapipes.datasets.objects import ObjectList
from aisdatapipes.datasets.sources import Prefixes, as_list, checked_parts, per_source, without_manifests
from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import OnError, Tolerance
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.pipes.resume import Items
from aisdatapipes.pipes.shared import Shared
from aisdatapipes.store.source import Where


class AISBaseMapDataset(ABC, Dataset[Any]):
    """Base of the map-style datasets; a subclass says in ``__getitem__`` what becomes of an object.

    The listing is made at construction and held in arrays: 16 bytes an object and its name.

    Args:
        ais_source_list: One or several of ``Bucket``, ``ObjectGroup``, ``Object`` (of the AIStore SDK), URLs,
            or a `Manifest`, which is not listed again.
        prefix_map: As in `AISBaseIterDataset`, and so are all that follow.

    Raises: ``ConfigError`` for arguments that cannot work, ``BucketNotFound`` and the like.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        *,
        name_filter: Any = None,
        config: Where | None = None,
        fetch: FetchPlan | None = None,
        on_error: OnError = "raise",
        max_errors: float | None = None,
        etl_name: str | None = None,
    ) -> None:
        things = as_list(ais_source_list, type(self).__name__)
        self._ais_source_list = per_source(things)
        self._prefix_map = without_manifests(prefix_map)
        chosen = checked_name_filter(name_filter)
        self._catalog = Catalog(checked_parts(things, prefix_map, config, etl_name, chosen), chosen)
        self._fetch = FetchPlan.of(fetch)
        self._tolerance = Tolerance(on_error, max_errors)
        self._shared = Shared()
        meter = Meter()
        self._catalog.listing(meter)
        self._shared.add(meter, Meter())

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """The sample at ``index``, which may be negative."""

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._listing)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples at ``indices``, in this order: what a DataLoader asks for a batch."""
        return [self[index] for index in indices]

    def get_obj_list(self) -> Sequence[Any]:
        """The objects, as a sequence of the SDK's ``Object``."""
        return self._obj_list

    def item_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of what is at each index, for samplers: shape (N,)."""
        objects = self.get_obj_list()
        if isinstance(objects, ObjectList):
            return objects.sizes(Meter())
        return np.array([item.props_cached.size for item in objects], np.int64)  # a subclass's own list

    def item_name(self, index: int) -> str:
        """What is at an index, for messages."""
        return str(self.get_obj_list()[index].name)

    def stats(self) -> dict[str, Any]:
        """What was done so far, workers included, by counter.

        ``objects, bytes, requests, retries, skipped, lists``; ``fallbacks``: objects read by GET because the cluster
        has no get-batch; ``list_s, wait_s, consumer_s``: seconds spent waiting for listings, waiting
        for data, and by the consumer over the data; ``verdict``: who kept whom waiting, in words.
        """
        return self._shared.stats()

    def close(self) -> None:
        """Nothing stays open between two reads; here for symmetry with the iterable datasets."""

    def identity(self) -> Items:
        """What a sampler's state must be of."""
        return Items(self._listing.fingerprint, len(self))

    @property
    def _obj_list(self) -> ObjectList:
        return ObjectList(self._listing, self._ais_source_list)

    @property
    def _listing(self) -> Listing:
        return self._catalog.listing(Meter())

    def _read(
        self, indices: Sequence[int], *, single: bool = False, as_views: bool = False
    ) -> list[tuple[AISURL, Any]]:
        """URLs and contents at ``indices``, in one pass of the engine; what is skipped by ``on_error`` is absent."""
        listing = self._listing
        urls = listing.urls([self._position(index, len(listing)) for index in indices])
        meter = Meter()
        try:
            tolerance = Tolerance() if single else self._tolerance  # one sample cannot be skipped
            return list(fetched(urls, self._clusters(), self._fetch, meter, tolerance, as_views=as_views))
        finally:
            self._shared.add(meter, Meter())

    def _clusters(self) -> Clusters:
        return Clusters(None, {source.config.endpoint: source.config for source in self._listing.sources})

    def _position(self, index: Any, n: int) -> int:
        if isinstance(index, slice):
            raise ConfigError(f"<{type(self).__name__}> an index is a number, not a slice; use torch's Subset")
        position = int(index) + (n if index < 0 else 0)
        if not 0 <= position < n:
            raise IndexError(f"<{type(self).__name__}> index must be in bounds of dataset: {index} of {n}")
        return position
