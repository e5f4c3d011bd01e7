"""From all URLs to those of this rank and worker, in this epoch's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.plan import Order
from aisdatapipes.pipes.base import AISPipe, Urls, functional
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.shared import Shared


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
        self._shared = Shared()
        self._shards: dict[Any, tuple[int, int]] = {}

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``; without this, iterations count 0, 1, 2 and so on.

        Forked workers count along with this process. torch copies a pipe to spawned ones, which then begin with the
        epoch that is set here: call this before each epoch.
        """
        self._shared.set_epoch(epoch)

    def apply_sharding(self, num_of_instances: int, instance_id: int, sharding_group: Any = None) -> None:
        """What a DataLoader2 reading service says about this process; a DataLoader is asked directly."""
        self._shards[getattr(sharding_group, "name", "DEFAULT")] = (instance_id, num_of_instances)

    def __iter__(self) -> Iterator[Any]:
        start = self._shared.next_start()
        self._shared.begin(start)
        return self._run(start.epoch)

    def __len__(self) -> int:
        return self._order.samples(len(cast("Sized", self.source_datapipe)), self._world())

    def _run(self, epoch: int) -> Iterator[Any]:
        source = self.source_datapipe
        items = source if isinstance(source, Sequence) else list(source)
        for positions in self._order.positions(len(items), epoch, self._world()):
            for position in positions.tolist():
                yield items[position]

    def _world(self) -> World:
        world = current_world(self._order.world)
        rank, size = self._shards.get("DISTRIBUTED", (world.rank, world.world_size))
        worker, workers = self._shards.get("MULTIPROCESSING", (world.worker, world.num_workers))
        return World(rank, size, worker, workers)
