"""Objects: from URLs to contents, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aisdatapipes.flow.batches import batched
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.gets import got
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.url import AISURL


def fetched(
    urls: Iterable[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter, tolerance: Tolerance = RAISE
) -> Iterator[tuple[AISURL, bytes]]:
    """Each URL with the content of its object, in the order of the URLs, by the strategy of the plan.

    Raises: what ``tolerance`` does not bear, when the object is reached and not before.
    """
    by_strategy = batched if plan.strategy == "batch" else got
    return by_strategy(urls, clusters, plan, meter, tolerance)
