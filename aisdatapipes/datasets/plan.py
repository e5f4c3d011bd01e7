"""Who reads what at which step: the deal of one epoch, to be looked at before, or while, a job runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aisdatapipes.datasets.plan_picture import drawn, ends
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import rank_samples, share_of, step_count
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.state import OrderState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 4096  # items looked up at a time: enough to forget the call, too few to see in memory
_STEPS, _RANKS = (3, 2), (2, 1)  # in the printed table: the first ones and the last ones
_NAME = 32  # characters of a name in it


class Row(NamedTuple):
    """What one rank reads at one step.

    Attributes:
        step: Of the job, from 0: the batch that every rank takes at the same time.
        rank: Who trains on it.
        worker: Which of the rank's workers reads it.
        items: Names, in order; indices where a sampler plans.
    """

    step: int
    rank: int
    worker: int
    items: list[Any]


@dataclass(frozen=True, repr=False)
class Plan:
    """Who reads what at which step, from where an iteration begins to the end of its epoch.

    Nothing of it is held: rows are computed when they are looked at, of any part of it.

    Args:
        order: Shuffle, seed, batch size, and what ranks do about a remainder.
        begins: The epoch and the position from which it is dealt.
        number: Items of the whole epoch.
        world_size: Ranks.
        num_workers: Workers of each rank's loader; 0 is one that is the rank itself.
        unit: What the items are: ``"objects"``.
        lookup: The names of some items, given as their places in the listing.
        arranged: How they are ordered, where it is not as ``order`` says; for people.

    Yields: `Row`, step by step and rank by rank; a rank that gets nothing at a step has no row there.
    """

    order: Order
    begins: OrderState
    number: int
    world_size: int
    num_workers: int
    unit: str
    lookup: Callable[[Positions], list[Any]] = field(compare=False)
    arranged: str = ""

    def __post_init__(self) -> None:
        for name, least in (("world_size", 1), ("num_workers", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"plan: {name} must be a number, {least} or more, not {value!r}")

    @property
    def steps(self) -> int:
        """Steps to the end of the epoch: batches of each rank; an incomplete one at the end counts."""
        return step_count(self.number, self.world_size, self.order.batch_size, self._even, self.begins.position)

    @property
    def counts(self) -> list[int]:
        """Items of each rank: shape (world_size,)."""
        ranks = (World(rank, self.world_size) for rank in range(self.world_size))
        start = self.begins.position
        return [rank_samples(self.number, rank, self.order.batch_size, self._even, start) for rank in ranks]

    def __iter__(self) -> Iterator[Row]:
        at_once = max(1, _AT_ONCE // (self.world_size * self.order.batch_size))
        for first in range(0, self.steps, at_once):
            steps = range(first, min(first + at_once, self.steps))
            yield from self._rows(itertools.product(steps, range(self.world_size)))

    def step(self, step: int) -> list[Row]:
        """The rows of one step, rank by rank; a negative one counts from the end."""
        steps = self.steps
        if not -steps <= step < steps:
            raise IndexError(f"step {step} of a plan of {steps} steps")
        return list(self._rows((step % steps, rank) for rank in range(self.world_size)))

    def positions(self, step: int, rank: int) -> Positions:
        """What a rank takes at a step, as positions in the epoch's order: shape (m,), m up to ``batch_size``."""
        begin = self.begins.position
        return share_of(self.number, step, rank, self.world_size, self.order.batch_size, self._even, begin)

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """A picture of the deal: steps to the right, ranks downwards, workers as colours; of a long plan its ends.

        Args:
            path: File to save it in as well; the extension says in which form.

        Raises: ``ConfigError`` without matplotlib (extra ``plot``).
        """
        figure = drawn(self)
        if path is not None:
            figure.savefig(path, dpi=110)
        return figure

    def __repr__(self) -> str:
        places = itertools.product(ends(self.steps, *_STEPS), ends(self.world_size, *_RANKS))
        rows = [(*map(str, row[:3]), str(len(row.items)), _told(row.items)) for row in self._rows(places)]
        return "\n".join([self.headline, *_table(["step", "rank", "worker", "", self.unit], rows), self.remainder])

    @property
    def headline(self) -> str:
        """Epoch, items, order and world, in a line."""
        order = f"shuffled with seed {self.order.seed}" if self.order.shuffle else "in the order of the listing"
        order = self.arranged or order
        begin = f", from position {self.begins.position}" if self.begins.position else ""
        begin += f" ({self.begins.within} samples of it are done)" if self.begins.within else ""
        return (
            f"epoch {self.begins.epoch}: {self.number} {self.unit}{begin}, {order}; {_many(self.steps, 'step')} of "
            f"{_many(self.world_size, 'rank')} with {_many(self.num_workers, 'worker')}, "
            f"batch_size {self.order.batch_size}"
        )

    @property
    def remainder(self) -> str:
        """How many items the ranks get, and what becomes of the remainder, in a line."""
        left, total = self.number - self.begins.position, sum(self.counts)
        then = "each of them once"
        if total > left:
            then = f"{total - left} of the first again, so that all ranks have as many"
        elif total < left:
            then = f"the last {left - total} left out, so that all ranks have as many"
        return f'{_per_rank(self.counts)}; even="{self._even}": {left} {self.unit}, {then}'

    def _rows(self, places: Iterable[tuple[int, int]]) -> Iterator[Row]:
        shares = [(step, rank, self.positions(step, rank)) for step, rank in places]
        if not shares:
            return
        positions = np.concatenate([share for _, _, share in shares])
        items = iter(self.lookup(self.order.items_at(positions, self.number, self.begins.epoch)))
        for step, rank, share in shares:
            if len(share):
                yield Row(step, rank, step % max(1, self.num_workers), list(itertools.islice(items, len(share))))

    @property
    def _even(self) -> Any:
        return self.order.even_for(self.world_size)


def _told(items: list[Any]) -> str:
    """The first and the last of some names."""
    shown = [_short(str(item)) for item in (items if len(items) <= 3 else [items[0], items[1], items[-1]])]
    return ", ".join(shown) if len(items) <= 3 else f"{shown[0]}, {shown[1]} ... {shown[2]}"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"  # names differ at their ends


def _table(heads: list[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned lines: numbers to the right; dots where steps or ranks are left out."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads) - 1)]
    lines, before = [], None
    for row in [tuple(heads), *rows]:
        if before is not None and before[0] != "step" and _leaves_out(before, row):
            lines.append(" ".join(f"{'...':>{width}}" for width in widths[:1]))
        lines.append(" ".join([*(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=False)), f" {row[-1]}"]))
        before = row
    return lines


def _leaves_out(before: tuple[str, ...], row: tuple[str, ...]) -> bool:
    step, rank = int(row[0]) - int(before[0]), int(row[1]) - int(before[1])
    return step > 1 or (step == 0 and rank > 1)


def _per_rank(counts: list[int]) -> str:
    """``ranks 0-2: 13 each, rank 3: 7``."""
    runs, first = [], 0
    for count, run in itertools.groupby(counts):
        last = first + len(list(run)) - 1
        runs.append(f"rank {first}: {count}" if first == last else f"ranks {first}-{last}: {count} each")
        first = last + 1
    return ", ".join(runs)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
