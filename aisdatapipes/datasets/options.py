"""The keyword-only arguments that all datasets of this package have beyond those of the reference."""

from __future__ import annotations

from typing import Any, TypedDict

from aisdatapipes.flow.tolerance import OnError
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.store.source import Where


class MapOptions(TypedDict, total=False):
    """Those of the map-style datasets, explained at `AISBaseIterDataset`."""

    name_filter: Any
    config: Where | None
    fetch: FetchPlan | None
    on_error: OnError
    max_errors: int | float | None


class IterOptions(MapOptions, total=False):
    """Those of the iterable datasets, explained at `AISBaseIterDataset`."""

    shuffle: bool
    seed: int
    batch_size: int
    even: Even | None
    world: World | None
