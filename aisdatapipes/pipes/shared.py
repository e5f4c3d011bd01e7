"""What the processes of one job know together: where their next iterations begin, and what was counted.

A tensor in shared memory, inherited by workers however they start. Each worker writes to a row of its own, so
nothing is locked; rows outlive the workers, so an epoch that new workers begin is the next one.

A job is one process with the workers of its loader. Any other process that inherits a dataset or a plan (a rank that
a launcher starts, a worker of DataLoader2) counts for itself, from where things stood when it was started.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
import weakref
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from aisdatapipes.flow.meter import Meter, verdict
from aisdatapipes.model.errors import AISPipeError, NotResumable
from aisdatapipes.order.standing import Start, fingerprint_of, numbers_of

_COUNTERS = [field.name for field in dataclasses.fields(Meter)]
_ROWS = 257  # the main process and 256 workers; further workers share rows, and their counts are a little low
# Columns: where the row's next iteration begins (a `Start`, its fingerprint as two numbers); where its last one began,
# in the same form, and when (0: none since an epoch was set or a state loaded); the passes that it has begun and ended;
# what it had counted (objects, bytes) when its pass began. Doubles are exact up to 2**53.
_NEXT, _LAST = slice(0, 10), slice(10, 20)
_NEXT_EPOCH = 0
_STAMP, _PASSES, _ENDED, _OBJECTS_BEFORE, _BYTES_BEFORE = range(20, 25)
_FIRST_COUNTER = 25
_LONG_AGO = 1e-9  # a time before any that the clock shows
_OBJECTS, _BYTES = (_FIRST_COUNTER + _COUNTERS.index(name) for name in ("objects", "bytes"))
# What stands for the beginning where there is none.
_NOT_HERE = Start(-1)


class Shared:
    """Epochs and counters of one dataset or plan."""

    def __init__(self) -> None:
        rows = np.zeros((_ROWS, _FIRST_COUNTER + len(_COUNTERS)))
        rows[:, _NEXT] = _row_of(Start())
        self._own(rows)
        _all.add(self)

    def _own(self, rows: npt.NDArray[np.float64]) -> None:
        """Make it the table of this process and of the workers of its loader, which count from ``rows`` on."""
        self._table = _shared(rows)
        self._view = self._table.numpy()
        self._owner = os.getpid()
        self._inherited: npt.NDArray[np.float64] | None = None  # what was known when this process was started

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        # The new process may be no worker: what it then counts on from is what is known now, not when it begins.
        known = self._view.copy() if get_spawning_popen() is not None else None
        return {"_table": self._table, "_owner": self._owner, "_inherited": known}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._view = self._table.numpy()
        _all.add(self)
        if not self._table.is_shared():  # type: ignore[no-untyped-call]  # a copy, not what a worker inherits
            self._begin_alone(self._view)

    def _settle(self) -> None:
        """In a process that is neither the owner nor a worker of its loader, begin alone."""
        if self._owner == os.getpid() or (get_worker_info() is not None and _parent() == self._owner):
            return
        self._begin_alone(self._view if self._inherited is None else self._inherited)

    def before_fork(self) -> None:
        """See to it that whatever is forked now, a worker or not, finds what it needs.

        A worker looks for what this process owns. Another one counts on from what is known now: by the time that it
        runs, this process may be ahead.
        """
        self._settle()
        self._inherited = self._view.copy()

    def _begin_alone(self, rows: npt.NDArray[np.float64]) -> None:
        """The copy's iterations begin where those of the original would; none of them has begun, nothing is counted."""
        self._own(rows)
        rows = self._view
        last, there_is_one = int(rows[:, _STAMP].argmax()), bool(rows[:, _STAMP].any())
        rows[:, _STAMP:] = 0
        rows[last, _STAMP] = _LONG_AGO if there_is_one else 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration of every worker is epoch ``epoch``; at the position that was loaded, if it is that one."""
        following = self._rows()[:, _NEXT]
        others = following[1:]
        loaded = (others == following[0]).all() or (others == _row_of(_NOT_HERE)).all()
        if not loaded or int(following[0, _NEXT_EPOCH]) != epoch:
            following[:] = _row_of(Start(epoch))
        self._rows()[:, _STAMP] = 0

    def load(self, start: Start, *, everywhere: bool) -> None:
        """The next iteration begins there: that of every worker, or only of this process.

        Workers of a process that goes on by itself have nowhere to begin.
        """
        if not everywhere and get_worker_info() is None:
            self._rows()[:, _NEXT] = _row_of(_NOT_HERE)
        rows = self._rows()[slice(None) if everywhere else slice(_row(), _row() + 1)]
        rows[:, _NEXT] = _row_of(start)
        rows[:, _STAMP] = 0

    def next_start(self) -> Start:
        """Where the iteration begins that this process would begin next."""
        start = _start_of(self._rows()[_row(), _NEXT])
        if start == _NOT_HERE:
            raise NotResumable(
                "the state that was loaded is that of an iteration without workers, and can go on without workers only "
                "(num_workers=0)"
            )
        return start

    def begin(self, start: Start) -> None:
        """An iteration begins there, in this process; the next one is the next epoch."""
        row = self._rows()[_row()]
        row[_NEXT] = _row_of(Start(start.epoch + 1))
        row[_LAST] = _row_of(start)
        row[_STAMP] = time.monotonic()  # the same clock in all processes of a machine
        row[_PASSES] += 1
        row[_OBJECTS_BEFORE] = row[_OBJECTS]
        row[_BYTES_BEFORE] = row[_BYTES]

    def current_start(self, *, under_way: bool = False) -> Start:
        """Where the job's iteration began that some process began last; the next one, if there is none.

        With ``under_way`` it counts only if it has not ended.
        """
        rows = self._rows()  # a state may be asked for after every batch
        row = rows[int(rows[:, _STAMP].argmax())]
        if not row[_STAMP]:
            return self.next_start()
        over = under_way and row[_ENDED] >= row[_PASSES]
        return _start_of(row[_NEXT] if over else row[_LAST])

    def add(self, meter: Meter, before: Meter) -> Meter:
        """Count what was metered since ``before``; returns a copy of ``meter`` to pass on the next time."""
        now = dataclasses.replace(meter)
        delta = [getattr(now, name) - getattr(before, name) for name in _COUNTERS]
        self._rows()[_row(), _FIRST_COUNTER:] += delta
        return now

    def end_pass(self) -> bool:
        """A pass of this process has ended; True when no other worker of the loader is still at its own."""
        row = self._rows()[_row()]
        row[_ENDED] += 1
        return bool((self._peers()[:, _ENDED] >= row[_ENDED]).all())

    def pass_counts(self) -> tuple[int, int]:
        """(objects, bytes) of the pass that this process is in, of all workers that have begun it."""
        peers = self._peers()
        same = peers[peers[:, _PASSES] == self._rows()[_row(), _PASSES]]
        objects = (same[:, _OBJECTS] - same[:, _OBJECTS_BEFORE]).sum()
        return int(objects), int((same[:, _BYTES] - same[:, _BYTES_BEFORE]).sum())

    def _rows(self) -> npt.NDArray[np.float64]:
        """The same memory as an array: no call of torch, as a daemon thread may be in it when the program ends.

        torch lets go of the interpreter while it works; a thread that then does not get it back aborts the program.
        """
        self._settle()
        return self._view

    def _peers(self) -> npt.NDArray[np.float64]:
        """The rows of all workers of the loader that this process belongs to."""
        info = get_worker_info()
        return self._rows()[:1] if info is None else self._rows()[1 : 1 + min(info.num_workers, _ROWS - 1)]

    def stats(self) -> dict[str, Any]:
        """The counters of all processes together, and what follows from them."""
        sums = self._rows()[:, _FIRST_COUNTER:].sum(0).tolist()
        counts = {
            name: value if name.endswith("_s") else int(value) for name, value in zip(_COUNTERS, sums, strict=True)
        }
        return {**counts, "verdict": verdict(counts)}


_all: weakref.WeakSet[Shared] = weakref.WeakSet()


def _before_fork() -> None:
    for one in list(_all):
        one.before_fork()


os.register_at_fork(before=_before_fork)


def _shared(rows: npt.NDArray[np.float64]) -> torch.Tensor:
    """The same numbers, in shared memory.

    numpy copies them: torch may want its threads for that, which a forked process lacks, and would wait for ever.
    """
    try:
        storage = torch.UntypedStorage._new_shared(rows.nbytes)  # type: ignore[no-untyped-call]  # noqa: SLF001
    except (OSError, RuntimeError) as error:
        raise AISPipeError(
            f"no shared memory for what the processes of a job know together: {error}; make room in /dev/shm "
            "(docker run --shm-size=1g, or --ipc=host), or for open files (ulimit -n)"
        ) from error
    table: torch.Tensor = torch.empty(0, dtype=torch.float64).set_(storage).view(rows.shape)
    table.numpy()[:] = rows
    return table


def _parent() -> int | None:
    """The process that started this one, if one of Python's did; with a fork server, not that server."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent is not None else None


def _row() -> int:
    info = get_worker_info()
    return 0 if info is None else 1 + info.id % (_ROWS - 1)


def _row_of(start: Start) -> npt.NDArray[np.float64]:
    *numbers, fingerprint, within_offset, passed_offset, drawn = start
    row = [*numbers, within_offset, passed_offset, drawn, *numbers_of(fingerprint)]
    return np.array(row, np.float64)


def _start_of(row: npt.NDArray[np.float64]) -> Start:
    *numbers, high, low = row.tolist()
    epoch, position, within, taken, passed, *others = map(int, numbers)
    return Start(epoch, position, within, taken, passed, fingerprint_of(high, low), *others)
