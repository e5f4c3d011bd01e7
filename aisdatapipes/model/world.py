"""Which part of a job this process is."""

from __future__ import annotations

from dataclasses import dataclass

from aisdatapipes.model.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """One place among ``world_size`` ranks of ``num_workers`` workers each.

    Args:
        rank: 0 to ``world_size - 1``. Ranks that must read the same data (tensor parallel) pass the same.
        world_size: Ranks that share an epoch between them.
        worker: 0 to ``num_workers - 1``, inside the rank.
        num_workers: Processes that serve one rank; 1 where the rank reads itself.
    """

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise ConfigError(f"World: rank must be in [0, world_size), not {self.rank} of {self.world_size}")
        if self.num_workers < 1 or not 0 <= self.worker < self.num_workers:
            raise ConfigError(f"World: worker must be in [0, num_workers), not {self.worker} of {self.num_workers}")
