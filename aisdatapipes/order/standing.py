"""Where one worker's iteration stands: what loaders save that keep a state for each of their workers.

An `OrderState` is the job's: it stands between two steps and can be loaded on any world. A `Standing` is one worker's,
exact to the sample in the middle of a batch, and goes on only in the same place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aisdatapipes.model.errors import NotResumable
from aisdatapipes.model.world import World
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.state import OrderState, checked_number


class Start(NamedTuple):
    """Where an iteration begins.

    Attributes:
        epoch: Its epoch.
        position: The first one that is dealt.
        within: Samples of the item there that were consumed.
        taken: Items of this worker's own share, from ``position`` on, that it has taken.
        passed: Samples of its next item that it has handed out.
        fingerprint: Of the items that all this is about; None where nothing was loaded.
        within_offset, passed_offset: The bytes of these items where the next sample can be read from; 0 where only
            the beginning will do.
        drawn: Samples behind these that it has handed out, of those that are in the shuffle buffer then.
    """

    epoch: int = 0
    position: int = 0
    within: int = 0
    taken: int = 0
    passed: int = 0
    fingerprint: str | None = None
    within_offset: int = 0
    passed_offset: int = 0
    drawn: int = 0

    def inside(self, world: World) -> tuple[int, int]:
        """Samples of the first item of ``world`` that were consumed, and the byte behind them, or 0.

        Only one worker has the item at ``position``.
        """
        first = not self.taken and not world.rank and not world.worker
        return max((self.passed, self.passed_offset), (self.within, self.within_offset) if first else (0, 0))


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one worker is in an iteration.

    Args:
        begun: Where the iteration began, which is the same for all workers and ranks.
        place: Rank, world size, worker, number of workers, batch size.
        taken: Items of this worker's share that it has handed out since.
        passed: Samples of the next item that it has handed out, where an item has several.
        ended: The iteration is over.
        offset: The byte of that item where the next sample can be read from; 0 where only its beginning will do.
        drawn: Samples behind all these that it has handed out, of those that are in the shuffle buffer.
        buffer: Samples that the buffer has; 0 for no buffer.
    """

    begun: OrderState
    place: tuple[int, ...]
    taken: int
    passed: int = 0
    ended: bool = False
    offset: int = 0
    drawn: int = 0
    buffer: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``offset``, ``drawn`` and ``buffer`` only where they are there."""
        found: dict[str, Any] = {
            "begun": self.begun.to_dict(),
            "place": list(self.place),
            "taken": self.taken,
            "passed": self.passed,
            "ended": self.ended,
        }
        optional = {"offset": self.offset, "drawn": self.drawn, "buffer": self.buffer if self.drawn else 0}
        return found | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Standing:
        """What `to_dict` gave; `NotResumable` for anything else, saying what is wrong with it."""
        place, ended = state.get("place"), state.get("ended")
        if not (isinstance(place, (list, tuple)) and len(place) == 5 and all(type(one) is int for one in place)):
            raise NotResumable(f"the state's place must be five numbers, not {place!r}")
        if not isinstance(ended, bool):
            raise NotResumable(f"the state's 'ended' must be true or false, not {ended!r}")
        begun = OrderState.from_dict(state.get("begun"))
        taken, passed = checked_number(state, "taken"), checked_number(state, "passed")
        offset, drawn, buffer = (checked_number(state, name, 0) for name in ("offset", "drawn", "buffer"))
        return cls(begun, tuple(place), taken, passed, ended, offset, drawn, buffer)

    def check_buffer(self, size: int) -> None:
        """Raise `NotResumable` where samples were handed out of a shuffle buffer that is of another size here."""
        if self.drawn and self.buffer != size:
            raise NotResumable(
                f"the state stands inside a shuffle buffer of {self.buffer} samples, here it is of {size}; give the "
                "same shuffle_buffer="
            )

    def check_place(self, world: World, batch_size: int) -> None:
        """Raise `NotResumable` unless this is the place of the state."""
        here = place_of_worker(world, batch_size)
        if here != self.place:
            raise NotResumable(
                f"this is the state of {_told(self.place)}; it cannot go on as {_told(here)}. Save "
                "dataset.state_dict(batches=...) instead, which can be loaded on any world"
            )

    @property
    def start(self) -> Start:
        """Where the iteration that goes on begins; of one that has ended, the next epoch."""
        begun = self.begun.next_epoch() if self.ended else self.begun
        start = Start(
            begun.epoch, begun.position, begun.within, fingerprint=begun.fingerprint, within_offset=begun.offset
        )
        if self.ended:
            return start
        return start._replace(taken=self.taken, passed=self.passed, passed_offset=self.offset, drawn=self.drawn)


def place_of_worker(world: World, batch_size: int) -> tuple[int, ...]:
    """What must be the same for a `Standing` to go on."""
    return (world.rank, world.world_size, world.worker, world.num_workers, batch_size)


def job_state(standing: Standing, order: Order, n: int | None) -> OrderState:
    """The state of the job, by what one rank without workers has handed out.

    With one rank it is exact at every sample; with more it is that after the last whole batch.

    Args:
        standing: Of the rank.
        order: The order that it goes by.
        n: Number of items; None where nobody knows.
    """
    begun, taken = standing.begun, standing.taken
    rank, world_size, _, _, batch_size = standing.place
    if standing.ended:
        return begun.next_epoch()
    left = None if n is None else order.samples(n, World(rank, world_size), begun.position)
    whole = taken > 0 and taken == left and not standing.passed
    if world_size > 1:
        steps = -(-taken // batch_size) if whole else taken // batch_size
        # The others may have a step more: what this rank has taken whole is not yet the end of the epoch.
        return begun.after(steps, n, world_size, batch_size, order.even_for(world_size))
    if whole:
        return begun.next_epoch()
    moved = taken or standing.passed
    within, offset = (standing.passed, standing.offset) if moved else (begun.within, begun.offset)
    return dataclasses.replace(begun, position=begun.position + taken, within=within, offset=offset)


def without_first(shares: Iterator[Positions], count: int) -> Iterator[Positions]:
    """The arrays without their first ``count`` elements, all together."""
    for share in shares:
        if count < len(share):
            yield share[count:]
        count = max(0, count - len(share))


def numbers_of(fingerprint: str | None) -> tuple[int, int]:
    """A fingerprint as two numbers of 32 bits, for where only numbers can be kept; (-1, -1) for none."""
    return (-1, -1) if fingerprint is None else (int(fingerprint[:8], 16), int(fingerprint[8:], 16))


def fingerprint_of(high: float, low: float) -> str | None:
    """The fingerprint that `numbers_of` gave."""
    return None if high < 0 else f"{int(high):08x}{int(low):08x}"


def _told(place: tuple[int, ...]) -> str:
    rank, world_size, worker, workers, batch_size = place
    return f"worker {worker} of {workers}, rank {rank} of {world_size}, batch_size {batch_size}"
