"""From all URLs to those of this rank and worker, in this epoch's order."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence, Sized
from typing import Any, cast

import numpy as np
import xxhash
from torch.utils.data import IterDataPipe

from aisdatapipes.model.errors import NotResumable
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Standing, without_first
from aisdatapipes.pipes.base import AISPipe, Urls, functional
from aisdatapipes.pipes.closing import closed_at_exit
from aisdatapipes.pipes.handed import PlanCursor
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Cursor, Identity, Items, Resume


@functional("ais_plan")
class AISPlanner(AISPipe[Any]):
    """The items of this rank and worker, in this epoch's order (functional name: ``ais_plan``).

    The order is a function of ``(seed, epoch, number of items)`` alone: the same on every rank and for any number of
    workers. It stands where ``sharding_filter`` and ``shuffle`` would, instead of both.

    Args:
        source_datapipe: Pipe or sequence of items: URLs, mostly. A pipe is read to its end first (a sequence with
            ``len()`` and ``[i]`` is not copied).
        shuffle: Another order in each epoch; else the order of the source.
        seed: The same on every rank.
        batch_size: Samples in a batch of the loader that comes later: whole batches are dealt.
        even: What ranks do about a remainder: ``"none"`` every item exactly once; ``"repeat"`` wraps around, ``"drop"``
            leaves out, so that every rank has equally many. Default: ``"none"`` for one rank, ``"repeat"`` for more.
        world: Rank and world size; None for those of ``torch.distributed`` or torchrun, when iteration starts.

    Yields: items of the source.
    State: `state_dict`. Pipes after the plan may map, filter and batch; one that shuffles, or makes several things of
        one (``shuffle``, ``unbatch``, ``flatmap``), hides what was consumed.
    """

    def __init__(
        self,
        source_datapipe: Urls | Sequence[Any],
        *,
        shuffle: bool = False,
        seed: int = 0,
        batch_size: int = 1,
        even: Even | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__()
        self.source_datapipe = [source_datapipe] if isinstance(source_datapipe, str) else source_datapipe
        self._order = Order(shuffle=shuffle, seed=seed, batch_size=batch_size, even=even, world=world)
        self._resume = Resume()
        self._shards: dict[Any, tuple[int, int]] = {}
        self._coming: PlanCursor | None = None
        self._items: _Known | None = None

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``; without this, iterations count 0, 1, 2 and so on.

        Forked workers count along with this process. torch copies a pipe to spawned ones, which then begin with the
        epoch that is set here: call this before each epoch. The epoch of a loaded state keeps its position.
        """
        self._resume.set_epoch(epoch)

    def state_dict(self, batches: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """What was consumed, as a few JSON values, for `load_state_dict` on any world.

        Args:
            batches: The state after each rank took so many batches of ``batch_size`` items since this iteration began,
                whatever loader carried them, DataLoader2 among them; every item must have made one sample. None for
                this process's own iteration, by what came out at the end of the chain: exact with one rank, also
                where pipes after the plan filter or batch; with more, after the last whole batch.
            epoch: Of the iteration; None for the one that was set, loaded or begun last.

        Raises: ``NotResumable`` where a pipe after the plan hides what was consumed, if it can be seen;
            `AISPipeDataset` sees all of them.
        """
        if batches is None and epoch is None:
            self._check_visible()
        return self._resume.state_dict(self._placed(), self._identity, batches, epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the next item, with any world size, batch size and number of workers.

        The items are compared when the iteration begins. Raises ``NotResumable`` that says what differs.
        """
        self._resume.load_state_dict(state, self._placed(), self._known_identity())

    def apply_sharding(self, num_of_instances: int, instance_id: int, sharding_group: Any = None) -> None:
        """What a DataLoader2 reading service says about this process; a DataLoader is asked directly."""
        self._shards[getattr(sharding_group, "name", "DEFAULT")] = (instance_id, num_of_instances)

    def plan_cursor(self) -> PlanCursor:
        """The cursor of the iteration that comes, until it has begun: pipes that read ahead register there."""
        if self._coming is None or self._coming.has_begun:
            self._coming = PlanCursor()
        return self._coming

    def __iter__(self) -> Iterator[Any]:
        return closed_at_exit(self._run(self.plan_cursor()))

    def __len__(self) -> int:
        return self._order.samples(len(cast("Sized", self.source_datapipe)), self._world())

    def _run(self, cursor: PlanCursor) -> Generator[Any, None, None]:
        source = self.source_datapipe
        items = source if isinstance(source, Sequence) else list(source)
        self._items = _Known(items)
        start, world = self._resume.begin(cursor, self._placed(), self._identity)
        try:
            for positions in without_first(
                self._order.positions(len(items), start.epoch, world, start.position), start.taken
            ):
                for position in positions.tolist():
                    cursor.given += 1
                    yield items[position]
            # Pipes after this one may still hold some of them: the end of the plan is not the end of the iteration.
        finally:
            if cursor.is_own:
                self._resume.shared.end_pass()

    def _check_visible(self) -> None:
        ahead = self._coming.ahead if self._coming is not None else None
        if ahead is not None and ahead.hiding:
            raise NotResumable(hidden(ahead.hiding))

    def _identity(self, _epoch: int) -> Items:
        if self._items is None:
            source = self.source_datapipe
            self._items = _Known(source if isinstance(source, Sequence) else list(source))
        return self._items.identity

    def _known_identity(self) -> Identity | None:
        return self._identity if self._items is not None or isinstance(self.source_datapipe, Sequence) else None

    def _standing(self, cursor: Cursor | None) -> Standing:
        return self._resume.standing(cursor, self._placed(), self._identity)

    def _placed(self) -> Order:
        """The order, in the place that a reading service may have told."""
        return dataclasses.replace(self._order, world=self._world()) if self._shards else self._order

    def _world(self) -> World:
        world = current_world(self._order.world)
        rank, size = self._shards.get("DISTRIBUTED", (world.rank, world.world_size))
        worker, workers = self._shards.get("MULTIPROCESSING", (world.worker, world.num_workers))
        return World(rank, size, worker, workers)

    def __getstate__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_coming", "_items")}
        # torch's traversal of graphs puts its own function there.
        return IterDataPipe.getstate_hook(state) if IterDataPipe.getstate_hook is not None else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._coming = self._items = None


def hidden(names: list[str]) -> str:
    """What is said of pipes that no state can see through."""
    return (
        f"no state can be told with {', '.join(names)} after ais_plan: what was consumed cannot be seen from outside. "
        "Shuffle in the plan (ais_plan(shuffle=True)), and let the loader make batches"
    )


class _Known:
    """The items of a plan; no collection, which torch would pickle to look for pipes in it."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._found: Items | None = None

    @property
    def identity(self) -> Items:
        if self._found is None:
            digest = xxhash.xxh64("\n".join(map(str, self._items)).encode("utf-8", "surrogateescape"))
            digest.update(np.array([getattr(item, "size", -1) for item in self._items], np.int64).tobytes())
            self._found = Items(digest.hexdigest(), len(self._items))
        return self._found
