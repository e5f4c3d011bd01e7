"""What passed: counters that are cheap enough to be always on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """Counts of one iteration; added to by whoever does the thing counted.

    Attributes:
        objects: Objects (or shards) handed to the consumer.
        bytes: Bytes of content handed to the consumer.
        requests: Requests sent for them, repeated ones included; redirects are not counted.
        retries: Requests that repeated another.
        fallbacks: Objects read by GET because the cluster has no get-batch, which would have been faster.
        skipped: Objects, samples or members left out by ``on_error`` or ``missing``.
        lists: Complete listings made.
        wait_s: Seconds that the consumer waited for data.
    """

    objects: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    fallbacks: int = 0
    skipped: int = 0
    lists: int = 0
    wait_s: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """The counters by name."""
        return dataclasses.asdict(self)
