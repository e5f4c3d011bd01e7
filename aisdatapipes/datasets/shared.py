"""What the processes of one job know together: how many epochs were begun, and what was counted.

A tensor in shared memory, inherited by workers however they start. Each worker writes to a row of its own, so
nothing is locked; rows outlive the workers, so an epoch that new workers begin is the next one.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.utils.data import get_worker_info

from aisdatapipes.flow.meter import Meter

_COUNTERS = [field.name for field in dataclasses.fields(Meter)]
_ROWS = 257  # the main process and 256 workers; further workers share rows, and their counts are a little low
# Columns: the first epoch that counts, how many this row has begun since, and how many passes it has ended.
_BASE, _BEGUN, _ENDED = 0, 1, 2
_FIRST_COUNTER = 3


class Shared:
    """Epochs and counters of one dataset."""

    def __init__(self) -> None:
        self._table = torch.zeros(_ROWS, _FIRST_COUNTER + len(_COUNTERS), dtype=torch.float64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """The next iteration of every worker is epoch ``epoch``."""
        self._table[:, _BEGUN] = 0
        self._table[0, _BASE] = epoch

    def begin_epoch(self) -> int:
        """The epoch of the iteration that begins now in this process."""
        row = _row()
        epoch = int(self._table[0, _BASE] + self._table[row, _BEGUN])
        self._table[row, _BEGUN] += 1
        return epoch

    def add(self, meter: Meter, before: Meter) -> Meter:
        """Count what was metered since ``before``; returns a copy of ``meter`` to pass on the next time."""
        now = dataclasses.replace(meter)
        delta = [getattr(now, name) - getattr(before, name) for name in _COUNTERS]
        self._table[_row(), _FIRST_COUNTER:] += torch.tensor(delta, dtype=torch.float64)
        return now

    def end_pass(self) -> bool:
        """A pass of this process has ended; True when no other worker of the loader is still at its own."""
        self._table[_row(), _ENDED] += 1
        info = get_worker_info()
        if info is None:
            return True
        rows = self._table[1 : 1 + min(info.num_workers, _ROWS - 1), _ENDED]
        return bool((rows >= self._table[_row(), _ENDED]).all())

    def stats(self) -> dict[str, float]:
        """The counters of all processes together."""
        sums = self._table[:, _FIRST_COUNTER:].sum(0).tolist()
        return {
            name: value if name == "wait_s" else int(value)
            for name, value in zip(_COUNTERS, sums, strict=True)
        }


def _row() -> int:
    info = get_worker_info()
    return 0 if info is None else 1 + info.id % (_ROWS - 1)
