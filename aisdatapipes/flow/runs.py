"""Which bytes of some shards are read by one request: arithmetic on columns, a row a field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Two fields are read together if no more than that lies between them: receiving it takes less than a request.
JOINED_OVER = 64 << 10

Numbers = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """Runs of bytes, in the order in which they are needed.

    Attributes:
        shards: Index of the shard of each: shape (R,).
        starts: First byte of each: shape (R,).
        ends: First byte behind each: shape (R,).
        of_fields: Which of them each field is in: shape (F,); -1 for an empty field, of which nothing is read.
    """

    shards: Numbers
    starts: Numbers
    ends: Numbers
    of_fields: Numbers


def joined(shards: Numbers, starts: Numbers, sizes: Numbers, limit: int, *, together: bool) -> Runs:
    """The runs in which some fields are read.

    Args:
        shards: Index of the shard of each field, in the order in which they are needed: shape (F,).
        starts: First byte of each: shape (F,).
        sizes: Bytes of each: shape (F,).
        limit: Bytes of a run, about: one that is as long takes no field in that begins later.
        together: All fields that lie close together make a run, in whichever order they are needed; else those that
            come one behind the other do.
    """
    of_fields = np.full(len(sizes), -1, np.int64)
    wanted = np.flatnonzero(sizes)
    if not len(wanted):
        return Runs(wanted, wanted, wanted, of_fields)
    if together:
        wanted = wanted[np.lexsort((starts[wanted], shards[wanted]))]
    shard, start, end = shards[wanted], starts[wanted], starts[wanted] + sizes[wanted]
    gaps = start[1:] - end[:-1]
    near = (shard[1:] == shard[:-1]) & (gaps <= JOINED_OVER) & (start[1:] >= start[:-1])
    firsts = np.concatenate([[0], np.flatnonzero(~near) + 1])
    firsts = _divided(firsts, start, limit)
    run_of = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(wanted)))
    of_fields[wanted] = run_of
    order = np.arange(len(firsts))
    if together:
        # By the first field that needs each.
        _, first_needs = np.unique(of_fields[sizes > 0], return_index=True)
        order = np.argsort(first_needs)
        ranks = np.argsort(order)
        of_fields[wanted] = ranks[run_of]
    return Runs(shard[firsts][order], start[firsts][order], np.maximum.reduceat(end, firsts)[order], of_fields)


def _divided(firsts: Numbers, start: Numbers, limit: int) -> Numbers:
    """Where runs begin if those that begin at ``firsts`` are divided at about each ``limit`` bytes."""
    lengths = np.diff(firsts, append=len(start))
    piece = (start - np.repeat(start[firsts], lengths)) // limit
    divided = np.flatnonzero(np.diff(piece)) + 1
    return np.union1d(firsts, divided)
