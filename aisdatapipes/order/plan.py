"""How the items of an epoch are ordered and dealt, as one value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.blocks import Blocks
from aisdatapipes.order.deal import Even, dealt, rank_samples
from aisdatapipes.order.permutation import Positions, permuted


@dataclass(frozen=True, slots=True)
class Order:
    """The order of every epoch, and the share of every rank and worker.

    Args:
        shuffle: Another order in each epoch; else that of the items.
        seed: The same on every rank.
        batch_size: Samples of a batch; whole batches are dealt.
        even: What ranks do about a remainder (`order.deal`); None for ``"none"`` with one rank, ``"repeat"`` with more.
        world: Rank and world size where they are given; None where they are to be found out.
        blocks: Neighbours are shuffled together; None to shuffle items one by one.
        buffer: Samples of a worker that are shuffled among each other, where its items are streams of samples; 0 for
            none.
    """

    shuffle: bool = False
    seed: int = 0
    batch_size: int = 1
    even: Even | None = None
    world: World | None = None
    blocks: Blocks | None = None
    buffer: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {self.batch_size!r}")
        if self.even not in (None, "repeat", "drop", "none"):
            raise ConfigError(f'even must be "repeat", "drop", "none" or None, not {self.even!r}')
        if self.world is not None and not isinstance(self.world, World):
            raise ConfigError(f"world must be a World, not {self.world!r}")
        if not isinstance(self.seed, int):
            raise ConfigError(f"seed must be a number, the same on every rank, not {self.seed!r}")

    def positions(self, n: int, epoch: int, world: World, start: int = 0) -> Iterator[Positions]:
        """Arrays of the items that ``world`` reads in ``epoch``, in order, out of ``n``: each of shape (m,).

        ``start`` is the position where the epoch is resumed. With blocks an array is the world's part of a window.
        """
        return self.ordered(dealt(n, world, self.batch_size, self.even_for(world.world_size), start), n, epoch)

    def ordered(self, shares: Iterable[Positions], n: int, epoch: int) -> Iterator[Positions]:
        """The same of any positions, some at a time: arrays of shape (m,)."""
        if not self.shuffle:
            return iter(shares)
        if self.blocks is not None:
            shares = self.blocks.windows(shares)
        return (self.items_at(share, n, epoch) for share in shares)

    def items_at(self, positions: Positions, n: int, epoch: int) -> Positions:
        """Which of ``n`` items stand at some positions of the order of ``epoch``: shape as given."""
        if not self.shuffle:
            return positions
        if self.blocks is not None:
            return self.blocks.items_at(positions, n, self.seed, epoch)
        return permuted(positions, n, self.seed, epoch)

    def samples(self, n: int, world: World, start: int = 0) -> int:
        """Samples of the rank in an epoch of ``n`` items, from ``start`` on, all its workers together."""
        return rank_samples(n, world, self.batch_size, self.even_for(world.world_size), start)

    def even_for(self, world_size: int) -> Even:
        """What so many ranks do about a remainder."""
        return self.even or ("none" if world_size == 1 else "repeat")

    @property
    def state_seed(self) -> int | None:
        """The seed as a state has it: None where nothing is shuffled, for then it does not matter."""
        return self.seed if self.shuffle else None

    @property
    def state_blocks(self) -> tuple[int, int] | None:
        """Bytes of a block and blocks of a window, as a state has them; None where no blocks are shuffled."""
        return (self.blocks.bytes, self.blocks.window) if self.shuffle and self.blocks is not None else None
