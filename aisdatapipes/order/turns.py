"""Turns in proportion to weights: after any number of them, each source had its share to within less than one turn.

This is the chairman assignment problem (R. Tijdeman, Discrete Mathematics 32, 1980), and that of proportionate fairness
(Baruah, Cohen, Plaxton and Varvel, "Proportionate progress", Algorithmica 15, 1996). With a source of weight ``w``
(all together 1) its ``j``-th turn may be neither before ``(j - 1)/w`` nor after ``j/w``; of the sources that may have a
turn, the one that must have it first is next. A largest remainder, or a stride alone, keeps no such bound: of one
source of 0.9 and a hundred of 0.001, it gives the hundred their turns in one run.

Weights are whole parts of a common total ``D``; after ``D`` turns all is even, and the same turns begin again. So one
period is computed, and any turn is looked up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.order.permutation import Positions

FINEST = 100_000  # parts at most: a period of so many turns takes some 2 MB, and a fraction of a second


def parts_of(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Whole numbers in the proportions of the weights, the smallest that there are, `FINEST` together at most.

    Weights that are finer than that are rounded to it by largest remainder.

    Raises: ``ConfigError`` for a weight that rounds to nothing.

    >>> parts_of([Fraction("0.7"), Fraction("0.2"), Fraction("0.1")])
    (7, 2, 1)
    """
    common = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * common) for weight in weights]
    divisor = math.gcd(*whole)
    parts = [one // divisor for one in whole]
    if sum(parts) > FINEST:
        parts = _rounded(parts)
    if 0 in parts:
        share = float(weights[parts.index(0)] / sum(weights))
        raise ConfigError(f"a weight of {share:.2g} of all is too small to be kept: the finest is 1/{FINEST} of all")
    return tuple(parts)


def _rounded(parts: list[int]) -> list[int]:
    total = sum(parts)
    quotients = [divmod(part * FINEST, total) for part in parts]
    lacking = FINEST - sum(quotient for quotient, _ in quotients)
    last_first = sorted(range(len(parts)), key=lambda one: quotients[one][1], reverse=True)
    more = set(last_first[:lacking])
    return [quotient + (one in more) for one, (quotient, _) in enumerate(quotients)]


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """Whose turn it is, for ever; made by `turns`.

    Args:
        parts: Turns of each source in a period: shape (k,).
        sources: Whose turn each of a period is: shape (D,).
        before: How many turns of the same source come before it in the period: shape (D,).
        places: For each source, where its turns are in the period: shape (parts[source],).
    """

    parts: Positions
    sources: Positions
    before: Positions
    places: tuple[Positions, ...]

    def at(self, numbers: Positions) -> tuple[Positions, Positions]:
        """(whose turn it is, how many turns it had before) at some turns, 0 or more: each of the shape given."""
        periods, within = np.divmod(numbers, len(self.sources))
        sources = self.sources[within]
        return sources, periods * self.parts[sources] + self.before[within]

    def number(self, source: int, count: int) -> int:
        """At which turn a source has its turn that has ``count`` before it."""
        period, within = divmod(count, int(self.parts[source]))
        return period * len(self.sources) + int(self.places[source][within])

    def counts(self, number: int) -> Positions:
        """How many turns each source had before turn ``number``: shape (k,)."""
        periods, within = divmod(number, len(self.sources))
        return periods * self.parts + np.bincount(self.sources[:within], minlength=len(self.parts))


@lru_cache(maxsize=16)
def turns(parts: tuple[int, ...]) -> Turns:
    """The turns of sources with these weights, each 1 or more.

    >>> turns((3, 1, 1)).sources.tolist()
    [0, 0, 1, 0, 2]
    """
    sources = _period(parts)
    places = tuple(np.flatnonzero(sources == one) for one in range(len(parts)))
    before = np.empty(len(sources), np.int64)
    for place in places:
        before[place] = np.arange(len(place))
    return Turns(np.array(parts, np.int64), sources, before, places)


def _period(parts: tuple[int, ...]) -> Positions:
    """Earliest deadline first, in whole numbers; the sources that may have a turn are in one heap, others wait."""
    total = sum(parts)
    had = [0] * len(parts)
    waiting = [(0, source) for source in range(len(parts))]  # (the turn from which on it may, source)
    ready: list[tuple[int, int]] = []  # (the turn before which it must, source)
    chosen = np.empty(total, np.int64)
    for number in range(total):
        while waiting and waiting[0][0] <= number:
            source = heapq.heappop(waiting)[1]
            heapq.heappush(ready, (-(-(had[source] + 1) * total // parts[source]), source))
        source = heapq.heappop(ready)[1]  # there is one: together they are due what is left
        chosen[number] = source
        had[source] += 1
        heapq.heappush(waiting, (had[source] * total // parts[source], source))
    return chosen
