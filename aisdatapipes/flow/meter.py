"""What passed: counters that are cheap enough to be always on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EVEN = 50  # per cent


@dataclass(slots=True)
class Meter:
    """Counts of one iteration; added to by whoever does the thing counted.

    Attributes:
        objects: Objects (or shards, or names) handed to the consumer.
        bytes: Bytes of content handed to the consumer.
        requests: Requests sent for them, repeated ones included; redirects are not counted.
        retries: Requests that repeated another.
        fallbacks: Objects read by GET because the cluster has no get-batch, which would have been faster.
        skipped: Objects, samples or members left out by ``on_error`` or ``missing``.
        lists: Complete listings made.
        wait_s: Seconds that the consumer waited for data.
        consumer_s: Seconds that the consumer took over what it was given, until it asked for more.
        list_s: Seconds that pages of listings were waited for.
    """

    objects: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    fallbacks: int = 0
    skipped: int = 0
    lists: int = 0
    wait_s: float = 0.0
    consumer_s: float = 0.0
    list_s: float = 0.0

    def stats(self) -> dict[str, Any]:
        """The counters by name, and the verdict on them."""
        counts = dataclasses.asdict(self)
        return {**counts, "verdict": verdict(counts)}


def verdict(counts: Mapping[str, float]) -> str:
    """Who kept whom waiting, by `Meter.wait_s` and `Meter.consumer_s`: the one sentence that decides what to tune."""
    wait, consumer = counts["wait_s"], counts["consumer_s"]
    if not wait + consumer:
        return "nothing was read"
    share = round(100 * wait / (wait + consumer))
    by = "starved by the network" if share > _EVEN else "held up by the consumer"
    return f"{by}: {share} % of the time went into waiting for data"
