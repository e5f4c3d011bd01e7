"""Batches by bytes instead of by number, for map-style datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.objects import ObjectList
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.plan import Order
from aisdatapipes.pipes.place import current_world

log = logging.getLogger("aisdatapipes")


class DynamicBatchSampler(Sampler[list[int]]):
    """Batches of indices whose objects have at most ``max_batch_size`` bytes together.

    A batch is closed when the next object would not fit, or when it is exactly full.

    Args:
        data_source: A map-style dataset of this package.
        max_batch_size: Bytes of one batch.
        drop_last: Leave the last batch out, unless it is filled beyond ``saturation_factor``.
        allow_oversized_samples: An object larger than a batch makes a batch of its own, at once; else it is left out,
            with a warning.
        saturation_factor: Share of ``max_batch_size``, 0 to 1.
        shuffle: Another order in each epoch.
        seed: Of the shuffle; the same on every rank.
        even: What ranks do about a remainder of batches; as in `AISBaseIterDataset`.
        world: Rank and world size; None for those of ``torch.distributed`` or torchrun when iteration starts.

    Yields: lists of indices. Objects of size zero are objects like any other.
    """

    def __init__(
        self,
        data_source: AISBaseMapDataset,
        max_batch_size: float,
        drop_last: bool = False,
        allow_oversized_samples: bool = False,
        saturation_factor: float = 0.8,
        shuffle: bool = False,
        *,
        seed: int = 0,
        even: Even | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= saturation_factor <= 1:
            raise ConfigError("`saturation_factor` must be between 0 and 1")
        if not max_batch_size > 0:
            raise ConfigError(f"max_batch_size must be more than 0 bytes, not {max_batch_size!r}")
        self._data_source = data_source
        self._max_batch_size = max_batch_size
        self._drop_last = drop_last
        self._allow_oversized_samples = allow_oversized_samples
        self._saturation_factor = saturation_factor
        self._samples = Order(shuffle, seed)  # of the objects, for one rank: all ranks make the same batches ...
        self._batches = Order(even=even, world=world)  # ... and deal them
        self._epoch = 0
        self._packed: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``; without it they count up."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self._run(self._pack(epoch))

    def __len__(self) -> int:
        """Batches of this rank in the epoch that is next."""
        return self._batches.samples(len(self._pack(self._epoch)), current_world(self._batches.world))

    def _run(self, batches: list[list[int]]) -> Iterator[list[int]]:
        world = current_world(self._batches.world)
        for positions in self._batches.positions(len(batches), 0, world):
            yield from (list(batches[position]) for position in positions.tolist())

    def _pack(self, epoch: int) -> list[list[int]]:
        epoch = epoch if self._samples.shuffle else 0
        if self._packed is None or self._packed[0] != epoch:
            sizes = _sizes(self._data_source.get_obj_list())
            chunks = self._samples.positions(len(sizes), epoch, World())
            order = [index for chunk in chunks for index in chunk.tolist()]
            self._packed = (epoch, list(self._batches_of(order, sizes.tolist())))
        return self._packed[1]

    def _batches_of(self, order: list[int], sizes: list[int]) -> Iterator[list[int]]:
        limit = self._max_batch_size
        batch: list[int] = []
        filled = 0
        for index in order:
            size = sizes[index]
            if size > limit:
                if self._allow_oversized_samples:
                    yield [index]
                else:
                    name = self._data_source.get_obj_list()[index].name
                    log.warning("%s is left out: its %d bytes are more than max_batch_size=%d", name, size, limit)
                continue
            if batch and filled + size > limit:
                yield batch
                batch, filled = [], 0
            batch.append(index)
            filled += size
            if filled == limit:
                yield batch
                batch, filled = [], 0
        if batch and (not self._drop_last or filled / limit > self._saturation_factor):
            yield batch


def _sizes(objects: Any) -> npt.NDArray[np.int64]:
    """Bytes of each object: shape (N,)."""
    if isinstance(objects, ObjectList):
        return objects.sizes(Meter())
    return np.array([item.props_cached.size for item in objects], np.int64)  # a subclass's own list
