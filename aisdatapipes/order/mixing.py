"""An epoch of a mix: how long it is, and which sample of which source each of its positions is. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.turns import Turns, turns

# As in `interleave_datasets` of Hugging Face's datasets.
Stop = Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]


class _Phase(NamedTuple):
    """A run of positions during which the same sources take turns.

    Attributes:
        begin: Its first position.
        turns: Whose turn it is, by place in ``sources``.
        sources: Those that take part: shape (k,).
        before: Draws from each of them before the phase: shape (k,).
    """

    begin: int
    turns: Turns
    sources: Positions
    before: Positions


class Mixture:
    """The positions of one epoch of a mix, as draws from its sources; every epoch has the same.

    Args:
        lengths: Items of each source, 1 or more: shape (k,).
        parts: Their weights, as `order.turns.parts_of` gives them.
        stop: ``"first_exhausted"``: up to the first draw for which its source has nothing left.
            ``"all_exhausted"``: until the last source has given all; the others begin again meanwhile.
            ``"all_exhausted_without_replacement"``: everything once; those that are left keep their proportions.

    Attributes:
        number: Positions of the epoch.
        counts: Draws from each source in it: shape (k,).
    """

    def __init__(self, lengths: Sequence[int], parts: Sequence[int], stop: Stop) -> None:
        self.lengths = tuple(lengths)
        if stop == "all_exhausted_without_replacement":
            self._phases, self.counts = _phases(self.lengths, tuple(parts)), self.lengths
            self.number = sum(lengths)
        else:
            always = turns(tuple(parts))
            sources = np.arange(len(parts))
            self._phases = [_Phase(0, always, sources, np.zeros(len(parts), np.int64))]
            if stop == "first_exhausted":
                self.number = min(always.number(one, length) for one, length in enumerate(lengths))
            else:
                self.number = 1 + max(always.number(one, length - 1) for one, length in enumerate(lengths))
            self.counts = tuple(always.counts(self.number).tolist())
        self._begins = np.array([phase.begin for phase in self._phases])

    def draws(self, positions: Positions) -> tuple[Positions, Positions]:
        """(source, draws from that source before) at some positions in ``[0, number)``: each of shape (m,)."""
        if len(self._phases) == 1:
            return self._phases[0].turns.at(positions)
        sources, counts = np.empty_like(positions), np.empty_like(positions)
        phases = np.searchsorted(self._begins, positions, side="right") - 1
        for number in np.unique(phases).tolist():
            here, phase = phases == number, self._phases[number]
            places, had = phase.turns.at(positions[here] - phase.begin)
            sources[here], counts[here] = phase.sources[places], phase.before[places] + had
        return sources, counts

    def passes(self) -> list[int]:
        """How often each source is begun in the epoch, 1 or more: shape (k,)."""
        return [max(1, -(-count // length)) for count, length in zip(self.counts, self.lengths, strict=True)]


def _phases(lengths: tuple[int, ...], parts: tuple[int, ...]) -> list[_Phase]:
    """One phase after the other, each up to the first draw for which its source has nothing left."""
    left, found, begin = np.array(lengths, np.int64), [], 0
    while (left > 0).any():
        sources = np.flatnonzero(left > 0)
        now = turns(tuple(parts[source] for source in sources.tolist()))
        found.append(_Phase(begin, now, sources, np.array(lengths)[sources] - left[sources]))
        length = min(now.number(place, int(left[source])) for place, source in enumerate(sources.tolist()))
        left[sources] -= now.counts(length)
        begin += length
    return found
