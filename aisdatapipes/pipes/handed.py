"""How many of a plan's items were handed out at the end of a chain, where pipes between read ahead of it.

A planner knows what was pulled out of it. That is what the consumer got, as long as every pipe after it gives one thing
for another, drops some, or gathers batches. A pipe that reads ahead (the loader), or makes several things of one
(samples of a shard), has pulled more than it handed out: for each item that it pulls it notes how far the plan was, and
when the plan asks it says the note of the item that it handed out last. The outermost such pipe is asked.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

from torch.utils.data import IterDataPipe

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.model.world import World
from aisdatapipes.order.standing import Start
from aisdatapipes.pipes.resume import Cursor

Handed = Callable[[], int]  # how many items of a source were handed out

# Pipes that hold items back, or make several out of one, without telling anybody (torch, torchdata, ours).
_HIDING = frozenset(
    {
        "AISFileLister", "AISSourceLister", "AsyncMapper", "BatchAsyncMapper", "BucketBatcher", "Concater", "Cycler",
        "FlatMapper", "FullSync", "Grouper", "InBatchShuffler", "MaxTokenBucketizer", "Multiplexer", "PinMemory",
        "Prefetcher", "RandomSplitter", "Repeater", "SampleMultiplexer", "ShardExpander", "ShuffledFlatMapper",
        "Shuffler", "ThreadPoolMapper", "UnBatcher", "_ChildDataPipe",
    }
)  # fmt: skip


class PlanCursor(Cursor):
    """Where an iteration over a plan stands.

    Attributes:
        given: Items that were pulled out of the plan.
    """

    def __init__(self) -> None:
        super().__init__(Meter(), Reached())
        self.given = 0
        self._pipes: list[ReadAhead] = []  # those that read ahead, from the plan on

    @property
    def ahead(self) -> ReadAhead | None:
        """The outermost pipe that reads ahead."""
        return self._pipes[-1] if self._pipes else None

    def register(self, pipe: ReadAhead) -> None:
        """Ask this pipe too; before the iteration begins."""
        # In any order: pipes in between may begin to iterate late.
        pipes = [one for one in self._pipes if one.distance != pipe.distance] + [pipe]
        self._pipes = sorted(pipes, key=lambda one: one.distance)
        for below, one in zip([None, *self._pipes], self._pipes, strict=False):
            one.below = below

    def begin(self, start: Start, world: World) -> None:
        """As there; the pipe that makes samples of the first item is told how many of them were consumed."""
        reached = None if self.ahead is None else self.ahead.reached
        self.divisible = reached is not None
        super().begin(start, world)
        if reached is not None:
            reached.passed, _ = start.inside(world)  # its shard is loaded from the beginning

    @property
    def taken(self) -> int:
        """Items of the worker's share that came out at the end of the chain."""
        handed = self.given if self.ahead is None else self.ahead.notes()
        return self.begun.taken + handed

    @property
    def passed(self) -> int:
        """Samples of the item after these that were handed out."""
        return self.ahead.passed if self.ahead is not None else 0


@runtime_checkable
class Planned(Protocol):
    """What `AISPlanner` is to the pipes after it."""

    def plan_cursor(self) -> PlanCursor:
        """The cursor of the iteration that begins."""


class ReadAhead:
    """Notes of one pipe that reads ahead, for one iteration.

    Args:
        cursor: Of the plan.
        distance: How many pipes after the plan it stands.
        handed: Says how many of the items of its own source the pipe has handed out.
        reached: Where it makes samples of items: which it has handed out.
        hiding: Names of pipes between it and the plan that no state can see through.

    Attributes:
        below: The next such pipe on the way to the plan.
    """

    def __init__(
        self, cursor: PlanCursor, distance: int, handed: Handed, reached: Reached | None, hiding: list[str]
    ) -> None:
        self._cursor, self._handed = cursor, handed
        self.distance, self.reached, self.hiding = distance, reached, hiding
        self.below: ReadAhead | None = None
        self._notes = array("q")

    def noted(self, source: Iterable[Any]) -> Iterator[Any]:
        """The items of the source, noted as they are pulled."""
        note = self._notes.append
        for item in source:
            note(self._cursor.given if self.below is None else self.below.notes())
            yield item

    def notes(self) -> int:
        """Items of the plan that were handed out by this pipe."""
        handed = self._handed()
        return self._notes[handed - 1] if handed else 0

    @property
    def passed(self) -> int:
        """Samples that were handed out of the item after these."""
        return self.reached.passed if self.reached is not None else 0


def noted(pipe: IterDataPipe[Any], source: Any, handed: Handed, reached: Reached | None = None) -> Iterable[Any]:
    """The source of a pipe that reads ahead; where a planner is upstream, it is told what was handed out.

    To be called when an iteration of the pipe begins.
    """
    planner = planner_of(pipe)
    if planner is None:
        return cast("Iterable[Any]", source)
    cursor = planner.plan_cursor()
    ahead = ReadAhead(cursor, len(_between(pipe)), handed, reached, hiding(pipe))
    cursor.register(ahead)
    return ahead.noted(source)


def planner_of(pipe: IterDataPipe[Any]) -> Planned | None:
    """The planner upstream of a pipe, if there is one."""
    return next((one for one in upstream(pipe) if isinstance(one, Planned)), None)


def hiding(pipe: IterDataPipe[Any]) -> list[str]:
    """Names of the pipes between ``pipe`` and its planner that no state can see through."""
    names = (type(one).__name__ for one in _between(pipe))
    return [name for name in names if name.removesuffix("IterDataPipe") in _HIDING]


def _between(pipe: IterDataPipe[Any]) -> list[IterDataPipe[Any]]:
    """The pipe and all before it, up to the planner."""
    return list(itertools.takewhile(lambda one: not isinstance(one, Planned), upstream(pipe)))


def upstream(pipe: IterDataPipe[Any]) -> Iterator[IterDataPipe[Any]]:
    """A pipe and all before it, nearest first.

    torch's own traversal pickles every attribute, and may run on one thread only.
    """
    yield pipe
    for value in vars(pipe).values():
        for source in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(source, IterDataPipe):
                break  # a list of names, say: one look is enough
            yield from upstream(source)
