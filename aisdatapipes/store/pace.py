"""How many requests may go out together on a connection, before the first of them is answered.

HTTP/1.1 allows it (pipelining, RFC 9112, 9.3.2): answers come in the order of the requests. Several small requests in
one packet, and their answers in one, spare system calls on both sides. But a server works at one of them at a time:
where an answer takes the time of a disk's head, or of another cloud, many connections get more done. So what is watched
is the time between the end of an answer and the beginning of the next one.
"""

from __future__ import annotations

import time

DEPTH = 8  # requests on one connection; benchmarks/objects.py: half of it has half of the gain, twice as many no more
SLOW_S = 0.002  # between two answers, in the mean; a seek takes 5 to 10 ms, an object in memory 0.1
REST_S = 2.0  # until it is tried again
_WEIGHT = 1 / 64  # of one answer in the mean: one that is late says nothing


class Pace:
    """How one server answers."""

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._rests_until = 0.0

    @property
    def depth(self) -> int:
        """Requests that a connection may have."""
        return DEPTH if time.monotonic() >= self._rests_until else 1

    def answered_after(self, seconds: float) -> None:
        """An answer began so long after the one before it had ended."""
        self._mean_s += (seconds - self._mean_s) * _WEIGHT
        if self._mean_s > SLOW_S:
            self.rest()

    def rest(self) -> None:
        """One request at a time, for a while."""
        self._mean_s = 0.0
        self._rests_until = time.monotonic() + REST_S
