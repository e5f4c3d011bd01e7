"""Who reads what: the deal of an epoch's positions among ranks and workers, as arithmetic.

Step ``k`` of the whole job covers the positions ``[kWB, (k+1)WB)`` with ``W`` ranks and batches of ``B``; rank ``r``
takes the ``r``-th run of ``B`` in it, and worker ``w`` of ``n`` serves the steps ``k = w (mod n)``. A loader that
collects batches from its workers in turn then sees the same batches for any number of workers.

An epoch that is resumed at a position ``start`` deals what is left, ``[start, n)``, in the same way: step ``k`` covers
``[start + kWB, start + (k+1)WB)``. So a state is one number, whatever ``W``, ``B`` and the workers were or will be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from aisdatapipes.model.world import World
from aisdatapipes.order.permutation import Positions

Even = Literal["repeat", "drop", "none"]

_CHUNK = 4096  # positions made at a time: enough to forget the call, too few to see in memory


def dealt(n: int, world: World, batch_size: int, even: Even, start: int = 0) -> Iterator[Positions]:
    """The positions that one worker of one rank serves, in order: arrays of shape (m,), m up to a few thousand.

    Args:
        n: Items in the epoch.
        world: The worker and its rank.
        batch_size: ``B`` above.
        even: What the ranks do about the remainder: ``"none"`` each item once; ``"repeat"`` wraps around to the
            first items, ``"drop"`` leaves the last ones out, so that all ranks have equally many samples and steps.
            The remainder is that of ``n - start``.
        start: The first position that is dealt; those before it were, in an iteration before this one.
    """
    total = _total(n - start, world.world_size, even)
    stride = world.world_size * batch_size
    whole = total // stride
    first = start + world.rank * batch_size
    at_once = max(1, _CHUNK // batch_size)
    offsets = first + np.arange(batch_size)
    # A range, not an array: nothing here grows with the number of items.
    mine = range(world.worker, whole, world.num_workers)
    for done in range(0, len(mine), at_once):
        steps = np.array(mine[done : done + at_once], np.int64)
        # axes: step, place in the batch
        yield (steps[:, None] * stride + offsets[None, :]).reshape(-1) % max(1, n)
    if total > whole * stride and whole % world.num_workers == world.worker:
        rest = (start + _rest(total, whole * stride, world, batch_size, even)) % max(1, n)
        if len(rest):
            yield rest


def share_of(n: int, step: int, rank: int, world_size: int, batch_size: int, even: Even, start: int = 0) -> Positions:
    """The positions that one rank takes at one step of the epoch: shape (m,).

    ``m`` is ``batch_size``, but for the last step of an epoch, where it can be less, or 0 with ``even="none"``.
    """
    total, before = _total(n - start, world_size, even), step * world_size * batch_size
    if total - before >= world_size * batch_size:
        mine = before + rank * batch_size + np.arange(batch_size)
    else:
        mine = _rest(total, min(before, total), World(rank, world_size), batch_size, even)
    return (start + mine) % max(1, n)


def step_count(n: int, world_size: int, batch_size: int, even: Even, start: int = 0) -> int:
    """How many steps the job makes from ``start`` to the end of the epoch; an incomplete one at the end counts.

    With ``even="none"`` the last step may have nothing for the last ranks.
    """
    return -(-_total(n - start, world_size, even) // (world_size * batch_size))


def rank_samples(n: int, world: World, batch_size: int, even: Even, start: int = 0) -> int:
    """How many samples the rank gets from ``start`` to the end of the epoch, all its workers together."""
    total = _total(n - start, world.world_size, even)
    stride = world.world_size * batch_size
    whole = total // stride
    return whole * batch_size + len(_rest(total, whole * stride, world, batch_size, even))


def _total(n: int, world_size: int, even: Even) -> int:
    if even == "repeat":
        return -(-n // world_size) * world_size
    return n - n % world_size if even == "drop" else n


def _rest(total: int, start: int, world: World, batch_size: int, even: Even) -> Positions:
    """The rank's part of the last, incomplete step, which begins at ``start`` of ``total``."""
    left = total - start
    if even == "none":
        first = min(world.rank * batch_size, left)
        return start + np.arange(first, min(first + batch_size, left))
    share = left // world.world_size  # divides: `total` is a multiple of the ranks
    return start + world.rank * share + np.arange(share)


def place_of(position: int, world_size: int, num_workers: int, batch_size: int) -> tuple[int, int]:
    """(rank, worker) that a position of the epoch is dealt to, with ``even="none"``; needs no number of items."""
    step, within = divmod(position, world_size * batch_size)
    return within // batch_size, step % num_workers
