"""Batches of indices for map-style datasets: order, ranks and resume."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, cast

import xxhash

from aisdatapipes.datasets.batches import BatchSampler
from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.plan import Plan
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Start, without_first
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Items


class AISSampler(BatchSampler):
    """Lists of ``batch_size`` indices of this rank, for ``DataLoader(dataset, batch_sampler=...)``.

    The order is that of the iterable datasets: the same batches for the same arguments.

    Args:
        dataset: A map-style dataset of this package; any with ``len()`` will do, whose state then tells other data
            apart by its length only.
        shuffle: Another order in each epoch, the same on all ranks.
        seed: Of the shuffle; the same on every rank.
        batch_size: Indices in a list; the last one of an epoch may be shorter.
        even: What ranks do about a remainder; as in `AISBaseIterDataset`.
        world: Rank and world size; None for those of ``torch.distributed`` or torchrun when iteration starts.

    Yields: lists of indices.
    Memory: some thousand indices, whatever the length of the dataset.

    >>> sampler = AISSampler(range(10), batch_size=4)
    >>> list(sampler)
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> state = sampler.state_dict(batches=2, epoch=0)
    >>> sampler.load_state_dict(state)
    >>> list(sampler)
    [[8, 9]]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        shuffle: bool = False,
        seed: int = 0,
        batch_size: int = 1,
        even: Even | None = None,
        world: World | None = None,
    ) -> None:
        if not hasattr(dataset, "__len__"):
            raise ConfigError(
                f"AISSampler: a map-style dataset is needed, one with len(), not {type(dataset).__name__}"
            )
        super().__init__(Order(shuffle, seed, batch_size, even, world))
        self._dataset = dataset

    def __len__(self) -> int:
        """Batches of this rank in an epoch, exact for it."""
        samples = self._order.samples(len(cast("Sized", self._dataset)), current_world(self._order.world))
        return (samples + self._order.batch_size - 1) // self._order.batch_size

    def plan(self, epoch: int | None = None, world_size: int | None = None, num_workers: int = 1) -> Plan:
        """Which indices each rank gets at which step, and which of its workers reads them: as `AISIterDataset.plan`."""
        begins = self._resume.begins(self._order, self._identity, epoch)
        ranks = current_world(self._order.world).world_size if world_size is None else world_size
        return Plan(self._order, begins, len(self._dataset), ranks, num_workers, "indices", _indices)

    def _batches(self, start: Start, world: World) -> Iterator[list[int]]:
        size = self._order.batch_size
        shares = self._order.positions(len(self._dataset), start.epoch, world, start.position)
        for share in without_first(shares, start.taken):
            indices = share.tolist()  # whole batches, but for the last of an epoch
            yield from (indices[at : at + size] for at in range(0, len(indices), size))

    def _weight(self, batch: list[int]) -> int:
        return len(batch)

    def _identity(self, _epoch: int) -> Items:
        if isinstance(self._dataset, AISBaseMapDataset):
            return self._dataset.identity()
        number = len(self._dataset)
        return Items(xxhash.xxh64(str(number).encode()).hexdigest(), number)


def _indices(positions: Positions) -> list[int]:
    found: list[int] = positions.tolist()
    return found
