"""Which targets a cluster has, and which it had: what a target that is away has, nobody finds until it is back.

AIStore lists what is there, and says 404 to what is not, without a word of a target that it has lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable


class Membership:
    """The targets of one cluster, by their ids, from map to map.

    Args:
        known: Those that were there before this process.
        patience_s: Seconds for which one that is away is expected back.
    """

    def __init__(self, known: frozenset[str], patience_s: float) -> None:
        self._here = known
        self._patience_s = patience_s
        self._missed: dict[str, float] = {}  # those that are away; since when, on the monotonic clock
        self._changed_at = 0.0  # when the map had others

    @property
    def known(self) -> frozenset[str]:
        """All that there were."""
        return self._here | self._missed.keys()

    @property
    def lacks_one(self) -> bool:
        """True while one is away."""
        return bool(self._missed)

    def note(self, ids: Iterable[str]) -> None:
        """These are in the map now."""
        here, now = frozenset(ids), time.monotonic()
        self._missed = {one: self._missed.get(one, now) for one in self.known - here}
        if self._here and here != self._here:
            self._changed_at = now
        self._here = here

    def may_have_it(self, asked_at: float) -> bool:
        """Whether an object may be here that was not found by a question of this time, on the monotonic clock.

        It may be on a target that is away and expected back; or on one that has come meanwhile.
        """
        now = time.monotonic()
        lately = any(now - since < self._patience_s for since in list(self._missed.values()))
        return lately or self._changed_at >= asked_at
