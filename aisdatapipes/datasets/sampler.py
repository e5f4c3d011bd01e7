"""Batches by bytes instead of by number, for map-style datasets."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import xxhash

from aisdatapipes.datasets.batches import BatchSampler
from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.model.errors import ConfigError, shown
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Start, without_first
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Items

log = logging.getLogger("aisdatapipes")


class DynamicBatchSampler(BatchSampler):
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
    State: as that of `AISSampler`; its position counts batches.
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
        super().__init__(Order(shuffle, seed, even=even, world=world))
        if not 0 <= saturation_factor <= 1:
            raise ConfigError("`saturation_factor` must be between 0 and 1")
        if not max_batch_size > 0:
            raise ConfigError(f"max_batch_size must be more than 0 bytes, not {max_batch_size!r}")
        self._data_source = data_source
        self._max_batch_size = max_batch_size
        self._drop_last = drop_last
        self._allow_oversized_samples = allow_oversized_samples
        self._saturation_factor = saturation_factor
        self._packed: tuple[int, list[list[int]]] | None = None
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        """Batches of this rank in the epoch that is under way, else in the next one."""
        epoch = self._resume.shared.current_start(under_way=True).epoch
        return self._order.samples(len(self._pack(epoch)), current_world(self._order.world))

    def _batches(self, start: Start, world: World) -> Iterator[list[int]]:
        batches = self._pack(start.epoch)
        # All ranks make the same batches, of shuffled objects, and deal them in order.
        deal = dataclasses.replace(self._order, shuffle=False)
        shares = deal.positions(len(batches), start.epoch, world, start.position)
        for positions in without_first(shares, start.taken):
            yield from (list(batches[position]) for position in positions.tolist())

    def _weight(self, _batch: list[int]) -> int:
        return 1

    def _identity(self, epoch: int) -> Items:
        if self._fingerprint is None:
            digest = xxhash.xxh64(self._data_source.identity().fingerprint.encode())
            digest.update(self._data_source.item_sizes().tobytes())
            options = (self._max_batch_size, self._drop_last, self._allow_oversized_samples, self._saturation_factor)
            digest.update(repr(options).encode())
            self._fingerprint = digest.hexdigest()
        return Items(self._fingerprint, len(self._pack(epoch)))

    def _pack(self, epoch: int) -> list[list[int]]:
        epoch = epoch if self._order.shuffle else 0
        if self._packed is None or self._packed[0] != epoch:
            sizes = self._data_source.item_sizes()
            chunks = Order(self._order.shuffle, self._order.seed).positions(len(sizes), epoch, World())
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
                    name = self._data_source.item_name(index)
                    log.warning(
                        "%s is left out: its %d bytes are more than max_batch_size=%d", shown(name), size, limit
                    )
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
