"""What the batch samplers share: epochs, and a state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from typing import Any

from torch.utils.data import Sampler

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.model.errors import NotResumable
from aisdatapipes.model.world import World
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Standing, Start
from aisdatapipes.pipes.closing import closed_at_exit
from aisdatapipes.pipes.resume import Cursor, Items, Resume


class BatchSampler(Sampler[list[int]]):
    """Lists of indices with a state; a subclass says which lists.

    Args:
        order: Of the items that its positions count.
    """

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order
        self._resume = Resume()

    @abstractmethod
    def _batches(self, start: Start, world: World) -> Iterator[list[int]]:
        """The batches of this rank, from a start on."""

    @abstractmethod
    def _weight(self, batch: list[int]) -> int:
        """How many positions a batch is."""

    @abstractmethod
    def _identity(self, epoch: int) -> Items:
        """What a state must be of."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches of this rank in an epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        return BatchPass(self)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``; without it they count up. The loaded epoch keeps its position."""
        self._resume.set_epoch(epoch)

    def state_dict(self, batches: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """What was consumed, as a few JSON values, for `load_state_dict` on any world.

        Args:
            batches: The state after each rank took so many batches since this iteration began (at the epoch's start,
                or at the loaded state): the number of steps that the training made. None for the batches that were
                handed to the loader, which asks for some ahead if it has workers: ask with ``batches`` then.
            epoch: Of the iteration; None for the one that was set, loaded or begun last.

        Raises: ``ConfigError`` for more batches than there are.
        """
        return self._resume.state_dict(self._order, self._identity, batches, epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the next batch, with any world size; the iterations after it begin the following epochs.

        Raises: ``NotResumable`` that says what differs.
        """
        self._resume.load_state_dict(state, self._order, self._identity)


class BatchPass(Iterator[list[int]]):
    """One iteration over a sampler, with a state for loaders that save an iterator's."""

    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler
        self._cursor = Cursor(Meter(), Reached())
        self._batches = closed_at_exit(_passed(sampler, self._cursor))
        self._over: dict[str, Any] | None = None

    def __iter__(self) -> BatchPass:
        return self

    def __next__(self) -> list[int]:
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Where this iteration stands: behind the batch that it gave last."""
        return self._over or self._standing().to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` says; before the first batch only."""
        if self._cursor.has_begun:
            raise NotResumable("this iteration has begun already: load the state before its first batch")
        sampler = self._sampler
        standing = sampler._resume.checked_standing(state, sampler._order, sampler._identity)  # noqa: SLF001 - one concept
        self._cursor.loaded = standing.start
        if standing.ended:
            self._batches.close()  # nothing is left of it, and the epoch after it begins with the next iteration
            self._over = dict(state)

    def _standing(self) -> Standing:
        sampler = self._sampler
        return sampler._resume.standing(self._cursor, sampler._order, sampler._identity)  # noqa: SLF001


def _passed(sampler: BatchSampler, cursor: Cursor) -> Generator[list[int], None, None]:
    resume = sampler._resume  # noqa: SLF001 - one concept with the sampler
    start, world = resume.begin(cursor, sampler._order, sampler._identity)  # noqa: SLF001
    try:
        for batch in sampler._batches(start, world):  # noqa: SLF001
            cursor.hand_out(sampler._weight(batch))  # noqa: SLF001
            yield batch
        cursor.ended = True
    finally:
        if cursor.is_own:
            resume.shared.end_pass()
