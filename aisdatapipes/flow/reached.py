"""Where an iteration over samples stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reached:
    """How far an iteration has come.

    Args:
        items: Shards that are done with.
        passed: Samples of the next one that were handed out or left out; at the beginning, those to leave out.
        offset: The byte of that shard behind these samples, from which it can be read on; 0 where it cannot.
        drawn: Samples behind all these that were handed out, of those that are in the shuffle buffer then.
    """

    items: int = 0
    passed: int = 0
    offset: int = 0
    drawn: int = 0

    def stand_at(self, other: Reached) -> None:
        """Be where the other one is."""
        self.items, self.passed, self.offset, self.drawn = other.items, other.passed, other.offset, other.drawn
