"""A shuffle for what can be read from front to back only: samples are collected, and handed out in another order.

A buffer is filled, shuffled, handed out whole, and filled again. The usual kind, which fills the place of each sample
that it hands out, mixes a little further, but where it stands could only be told by saving all that is in it; this one
is read again from its first sample on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xxhash

from aisdatapipes.flow.reached import Reached
from aisdatapipes.model.errors import AISPipeError
from aisdatapipes.order.permutation import permuted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Buffer:
    """How the samples of one worker are shuffled in an epoch.

    Args:
        size: Samples of each filling; the last one may have fewer.
        seed: Of the job.
        epoch: Each has an order of its own.
        worker: Tells the workers of all ranks apart.
        items: Shards that were done with before this iteration.
    """

    size: int
    seed: int
    epoch: int
    worker: str
    items: int

    def shuffled(self, found: Iterator[T], ahead: Reached, at: Reached) -> Iterator[T]:
        """The samples of ``found``, filling by filling; ``at`` and ``ahead`` begin at the same place.

        ``ahead`` says where ``found`` stands, ``at`` where the filling begins of which ``at.drawn`` samples are handed
        out. An error comes behind the samples that were complete before it.
        """
        going = True
        while going:
            number, error = self._number(at), None
            held: list[T | None] = []
            try:
                going = self._fill(held, found)
            except AISPipeError as failed:
                error = failed
            order = permuted(np.arange(len(held)), len(held), self.seed, self.epoch, np.full(len(held), number))
            for index in order[at.drawn :].tolist():
                sample, held[index] = held[index], None
                at.drawn += 1
                if at.drawn == len(held) and going:  # an epoch is over when the next sample is asked for
                    at.stand_at(ahead)
                yield sample
                del sample  # nobody but the consumer has it
            if error is not None:
                raise error
        at.stand_at(ahead)

    def _fill(self, held: list[T | None], found: Iterator[T]) -> bool:
        """Fill it; False when there is nothing more."""
        for sample in found:
            held.append(sample)
            if len(held) == self.size:
                return True
        return False

    def _number(self, at: Reached) -> int:
        """Of the filling that begins there: each has an order of its own."""
        text = f"{self.worker} {self.items + at.items} {at.passed}"
        return xxhash.xxh64_intdigest(text.encode()) >> 1
