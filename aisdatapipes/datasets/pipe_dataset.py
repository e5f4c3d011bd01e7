"""A chain of pipes as a dataset whose state loaders can see."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, cast

from torch.utils.data import IterableDataset, IterDataPipe

from aisdatapipes.datasets.passes import UserPass
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.order.standing import Standing
from aisdatapipes.pipes.handed import hiding, planner_of
from aisdatapipes.pipes.planner import AISPlanner, hidden
from aisdatapipes.pipes.resume import Cursor, Resume


class AISPipeDataset(IterableDataset[Any]):
    """The samples of a chain of pipes that has ``ais_plan`` in it, with the plan's state.

    torch hides the state of pipes: StatefulDataLoader would read everything again up to where it was. Through this
    adapter it saves and loads the plan's, and so do torchdata's nodes.

    Args:
        pipe: The end of the chain; it has one iteration at a time, as all pipes.

    Raises: ``ConfigError`` for a chain without ``ais_plan``, or with a pipe after it that hides what was consumed.

    >>> from torch.utils.data.datapipes.iter import IterableWrapper
    >>> data = AISPipeDataset(IterableWrapper("abcde").ais_plan().map(str.upper))
    >>> begun = iter(data)
    >>> next(begun), next(begun)
    ('A', 'B')
    >>> data.load_state_dict(data.state_dict())
    >>> list(data)
    ['C', 'D', 'E']
    """

    def __init__(self, pipe: IterDataPipe[Any]) -> None:
        super().__init__()
        planner = planner_of(pipe) if isinstance(pipe, IterDataPipe) else None
        if not isinstance(planner, AISPlanner):
            raise ConfigError(f"AISPipeDataset: a chain of pipes with ais_plan is needed, not {type(pipe).__name__}")
        if names := hiding(pipe):
            raise ConfigError(f"AISPipeDataset: {hidden(names)}")
        self._pipe, self._planner = pipe, planner

    def __iter__(self) -> Iterator[Any]:
        return UserPass(self, iter(self._pipe))

    def __len__(self) -> int:
        """What the chain says; a TypeError if it does not know."""
        return len(cast("Sized", self._pipe))

    def set_epoch(self, epoch: int) -> None:
        """As `AISPlanner.set_epoch`."""
        self._planner.set_epoch(epoch)

    def state_dict(self, batches: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """As `AISPlanner.state_dict`."""
        return self._planner.state_dict(batches, epoch=epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `AISPlanner.load_state_dict`."""
        self._planner.load_state_dict(state)

    # ---- what an iteration builds on

    @property
    def _resume(self) -> Resume:
        return self._planner._resume  # noqa: SLF001 - one concept with the plan

    def _standing(self, cursor: Cursor | None) -> Standing:
        return self._planner._standing(cursor)  # noqa: SLF001
