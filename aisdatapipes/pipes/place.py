"""Which part of the job this process is: asked when iteration starts, never at construction."""

from __future__ import annotations

import dataclasses
import os

import torch.distributed
from torch.utils.data import get_worker_info

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.plan import Order


def rank_and_size() -> tuple[int, int]:
    """(rank, world size): of ``torch.distributed`` where it is initialised, else of torchrun's environment."""
    dist = torch.distributed
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or size is None:
        return 0, 1
    try:
        return int(rank), int(size)
    except ValueError:
        raise ConfigError(f"RANK={rank!r} and WORLD_SIZE={size!r} in the environment are no numbers") from None


def current_world(given: World | None) -> World:
    """The place of this process: rank and world size as ``given`` where they are, worker of the DataLoader.

    Inside a worker of a DataLoader the loader's word about workers counts, whatever ``given`` says.
    """
    rank, size = (given.rank, given.world_size) if given else rank_and_size()
    info = get_worker_info()
    if info is not None:
        return World(rank, size, info.id, info.num_workers)
    if given:
        return given
    return World(rank, size)


def with_rank(order: Order) -> Order:
    """The order for a worker that is spawned, which has no ``torch.distributed``: it is told its rank here."""
    rank, size = rank_and_size()
    # One rank alone is no knowledge: the process that unpickles may be one of several.
    return dataclasses.replace(order, world=World(rank, size)) if order.world is None and size > 1 else order
