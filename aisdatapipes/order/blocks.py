"""A shuffle that keeps neighbours together for a while: blocks are shuffled, then the items of a few blocks at a time.

The items are cut into blocks of equally many; the last one may be short. The blocks of an epoch come in the order of a
keyed permutation, and so many of them in a row are a window, whose items are shuffled, by another permutation in each
window. As in `order.permutation`, an item is computed from its position alone: nothing is kept, whatever the number of
items, and any position can be the first.

The items that the last block lacks are left out by "cycle walking" as there: the few positions that would lead to one
lead to what stands at the end of the order instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.order.permutation import Positions, permuted


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a shuffle goes by blocks.

    Args:
        bytes: Of a block, about.
        window: Blocks whose items are shuffled among each other.
        items: Of a block; 0 as long as nobody knows how many its bytes are.
    """

    bytes: int
    window: int
    items: int = 0

    def __post_init__(self) -> None:
        if type(self.bytes) is not int or self.bytes < 1:
            raise ConfigError(f"block_bytes must be a number of bytes, 0 for no blocks, not {self.bytes!r}")
        if type(self.window) is not int or self.window < 1:
            raise ConfigError(f"window_blocks must be a number of blocks, 1 or more, not {self.window!r}")

    @property
    def span(self) -> int:
        """Positions of a window."""
        return self.window * self.items

    def items_at(self, positions: Positions, n: int, seed: int, epoch: int) -> Positions:
        """Which of ``n`` items stand at some positions of the order of ``epoch``: shape as given.

        >>> Blocks(1, window=2, items=4).items_at(np.arange(16), 16, seed=0, epoch=1).tolist()
        [7, 8, 6, 10, 5, 11, 4, 9, 14, 15, 2, 3, 12, 1, 13, 0]
        """
        if n < 2:
            return positions.astype(np.int64)
        items = min(self.items, n)  # so that walking takes less than two steps on average
        values = self._walked(positions.reshape(-1), n, items, seed, epoch)
        outside = values >= n
        while outside.any():
            values[outside] = self._walked(values[outside], n, items, seed, epoch)
            outside = values >= n
        return values.reshape(positions.shape)

    def _walked(self, positions: Positions, n: int, items: int, seed: int, epoch: int) -> Positions:
        """The same where the last block is as long as the others: ``items``."""
        count = -(-n // items)
        window, within = np.divmod(positions, self.window * items)
        whole = window < count // self.window  # else it is the last one, with fewer blocks
        for part, blocks in ((whole, self.window), (~whole, count % self.window)):
            within[part] = permuted(within[part], blocks * items, seed, epoch, window[part])
        block, item = np.divmod(within, items)
        return permuted(window * self.window + block, count, seed, epoch) * items + item

    def windows(self, shares: Iterable[Positions]) -> Iterator[Positions]:
        """Positions of an epoch, cut and joined anew: those of one window are one array."""
        held: list[Positions] = []
        for share in shares:
            numbers = share // self.span
            for part in np.split(share, np.flatnonzero(np.diff(numbers)) + 1):
                if held and len(part) and part[0] // self.span != held[0][0] // self.span:
                    yield np.concatenate(held)
                    held = []
                if len(part):
                    held.append(part)
        if held:
            yield np.concatenate(held)
