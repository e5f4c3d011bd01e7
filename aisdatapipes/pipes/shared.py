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
# Columns: the first epoch that counts; the epochs that this row has begun since; the passes that it has begun and
# ended; what it had counted (objects, bytes) when its pass began.
_BASE, _BEGUN, _PASSES, _ENDED, _OBJECTS_BEFORE, _BYTES_BEFORE = range(6)
_FIRST_COUNTER = 6
_OBJECTS, _BYTES = (_FIRST_COUNTER + _COUNTERS.index(name) for name in ("objects", "bytes"))


class Shared:
    """Epochs and counters of one dataset or plan."""

    def __init__(self) -> None:
        self._table = torch.zeros(_ROWS, _FIRST_COUNTER + len(_COUNTERS), dtype=torch.float64)
        self._table.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """The next iteration of every worker is epoch ``epoch``."""
        self._table[:, _BEGUN] = 0
        self._table[0, _BASE] = epoch

    def begin_epoch(self) -> int:
        """The epoch of the iteration that begins now in this process."""
        row = _row()
        epoch = int(self._table[0, _BASE] + self._table[row, _BEGUN])
        self._table[row, _BEGUN] += 1
        self._table[row, _PASSES] += 1
        self._table[row, _OBJECTS_BEFORE] = self._table[row, _OBJECTS]
        self._table[row, _BYTES_BEFORE] = self._table[row, _BYTES]
        return epoch

    def add(self, meter: Meter, before: Meter) -> Meter:
        """Count what was metered since ``before``; returns a copy of ``meter`` to pass on the next time."""
        now = dataclasses.replace(meter)
        delta = [getattr(now, name) - getattr(before, name) for name in _COUNTERS]
        self._table.numpy()[_row(), _FIRST_COUNTER:] += delta  # the same memory; a tenth of torch's time
        return now

    def next_epoch(self) -> int:
        """The epoch of the iteration that this process would begin next."""
        return int(self._table[0, _BASE] + self._table[_row(), _BEGUN])

    def end_pass(self) -> bool:
        """A pass of this process has ended; True when no other worker of the loader is still at its own."""
        self._table[_row(), _ENDED] += 1
        return bool((self._peers()[:, _ENDED] >= self._table[_row(), _ENDED]).all())

    def pass_counts(self) -> tuple[int, int]:
        """(objects, bytes) of the pass that this process is in, of all workers that have begun it."""
        peers = self._peers()
        same = peers[peers[:, _PASSES] == self._table[_row(), _PASSES]]
        objects = (same[:, _OBJECTS] - same[:, _OBJECTS_BEFORE]).sum()
        return int(objects), int((same[:, _BYTES] - same[:, _BYTES_BEFORE]).sum())

    def _peers(self) -> torch.Tensor:
        """The rows of all workers of the loader that this process belongs to."""
        info = get_worker_info()
        return self._table[:1] if info is None else self._table[1 : 1 + min(info.num_workers, _ROWS - 1)]

    def stats(self) -> dict[str, float]:
        """The counters of all processes together."""
        sums = self._table[:, _FIRST_COUNTER:].sum(0).tolist()
        return {name: value if name == "wait_s" else int(value) for name, value in zip(_COUNTERS, sums, strict=True)}


def _row() -> int:
    info = get_worker_info()
    return 0 if info is None else 1 + info.id % (_ROWS - 1)
