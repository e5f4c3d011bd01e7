"""The ordered window: many jobs under way, results in the order of the jobs, memory bounded by bytes.

Two threads meet here. The consumer's thread takes jobs from their source (which may run a user's code) and waits for
the head of the window. The transport's thread reports the end of jobs and starts those that are built already, so
that transfers go on while the consumer computes. Results pass in runs, not one by one: a hand-over of each object
alone would cost more than fetching it, and two threads that wake each other all the time wait for the interpreter's
lock instead of working. So a consumer that waits is woken for a run, or when it has waited for `NAP_S`.

Bytes limit what is read ahead, never what the consumer waits for: that is started whatever it costs, so no mixture of
sizes can bring a window to a stop. All windows of a process share their bytes: of two, each has half.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, Protocol, TypeVar

from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import StoreError
from aisdatapipes.store.forks import Home

# The longest run handed over at once, as a share of the width.
RUN_SHARE = 0.75
NAP_S = 0.005  # how long the consumer waits for a run when there are fewer results to take
PATIENCE_S = 0.02  # with a source of jobs, while there are results to take
# The first result shall not wait for all the jobs that come after it: so many are built, and so long it is waited for,
# before the others are.
FIRST_FILL, FIRST_WAIT_S = 2, 0.005
# Jobs that are built but not started, in widths: what goes on while the consumer computes for long.
AHEAD_WIDTHS = 16


class Job(Protocol):
    """Something that is started, ends once, and then holds its result or its error.

    Attributes:
        early: True for a job that the consumer takes when its turn comes, ended or not: it waits for its parts itself.
        weight: How much of the width it takes: its share of what the cluster does at a time.
        attempts: Requests that were sent for it.
        waited_s: Seconds that the consumer waited for parts of a job that it had taken early.
        room: Bytes that the window keeps for it, which it is told before it is started.
        outgrown: True where its result would have been much larger than that, and was given up.
    """

    error: StoreError | None
    early: bool
    weight: int
    attempts: int
    waited_s: float
    room: int
    outgrown: bool

    @property
    def retries(self) -> int:
        """Those of its requests that repeated another."""
        ...

    @property
    def cost(self) -> int:
        """Bytes that the result will occupy; -1 when nobody knows yet."""
        ...

    @property
    def held(self) -> int:
        """Bytes that the result does occupy, once it is there."""
        ...

    def start(self, done: Callable[[Any], None]) -> None:
        """Begin; ``done`` is called once, on another thread."""
        ...

    def cancel(self) -> None:
        """Stop; idempotent."""
        ...


J = TypeVar("J", bound=Job)


def ordered(jobs: Iterator[J], width: int, window_bytes: int, meter: Meter) -> Generator[J, None, None]:
    """The jobs, ended, in their order; the caller looks at ``error``.

    Args:
        jobs: Read ahead by up to ``AHEAD_WIDTHS`` widths.
        width: Jobs under way at the same time, by weight.
        window_bytes: Bytes under way or waiting for the consumer; a job larger than that runs alone.
        meter: Gets requests, retries and waiting time.
    """
    window = Window(jobs, width, window_bytes, meter)
    try:
        for run in window.runs():
            while run:
                yield run[0]
                window.release(run.pop(0))  # nobody has it any more, nor its bytes
    finally:
        window.cancel()


class Window(Generic[J]):
    """Jobs that are begun in the order of their source and taken in this order.

    For those who give jobs back in an order of their own, or before they have ended; `ordered` is simpler.

    Args:
        jobs, width, window_bytes, meter: As in `ordered`.
        first_at_once: The first result is worth more than the others; False where only all of them together count.
    """

    def __init__(
        self, jobs: Iterator[J], width: int, window_bytes: int, meter: Meter, *, first_at_once: bool = True
    ) -> None:
        self._jobs = jobs
        self._width = width
        self._bytes = window_bytes
        self._meter = meter
        self._home = Home()
        self._news = threading.Condition(threading.RLock())  # the collector may cancel this while it is held
        self._order: deque[J] = deque()  # built and not yet taken, in order
        self._built: deque[J] = deque()  # built and not yet started
        self._ahead = 0  # weight of what is in `_order`
        self._ended: set[J] = set()  # of those in `_order`
        self._charged: dict[J, int] = {}  # bytes that each job is counted with
        self._used = 0  # their sum
        self._under_way = 0  # weight of what is started and has not ended
        self._largest = max(1, window_bytes // 4)  # what a job of unknown size is counted with
        self._seen = 0
        self._over: J | None = None  # built, but the window is full
        self._begun = not first_at_once
        self._dry = False  # no more jobs, for the source has ended or failed
        self._failed: Exception | None = None  # what the source raised: its turn is after the jobs before it
        self._starting = False  # somebody is in `_start_built`
        self._waiting = False
        self._run = max(1, int(width * RUN_SHARE))
        self._fewest = 1 if first_at_once else self._run  # ended jobs that a waiting consumer is woken for
        self._cancelled = False
        _open.add(self)

    def runs(self) -> Iterator[list[J]]:
        """The jobs at the head of the window, some at a time, until there are no more; each is to be released.

        Whoever takes them has them alone: a job that is released is to be forgotten, for it keeps its bytes.
        """
        while True:
            self.fill()
            began = time.perf_counter()
            run = self.take()
            given = time.perf_counter()
            self._meter.wait_s += given - began
            if not run:
                return
            yield run
            self._meter.consumer_s += time.perf_counter() - given

    def fill(self) -> None:
        """Build and start jobs, up to the limits; called by the consumer only."""
        self.check_process()
        built, end = 0, time.monotonic() + PATIENCE_S
        while built < self._width and self._ahead < self._width * AHEAD_WIDTHS:  # the consumer may have results to take
            job = self._next_job()
            if job is None or not self._admit(job, whatever=False):
                return
            built += job.weight
            if time.monotonic() > end and self._can_go(self._order[0]):
                return  # a slow source keeps nobody from what is there
            if not self._begun and built >= FIRST_FILL:
                self._begun = True
                if self._head_comes(FIRST_WAIT_S):
                    return

    def _head_comes(self, seconds: float) -> bool:
        """Whether the first job ends so soon; while this waits, the transport has the processor for itself."""
        with self._news:
            self._waiting = True
            self._news.wait_for(lambda: self._can_go(self._order[0]), seconds)
            self._waiting = False
            return self._can_go(self._order[0])

    def _next_job(self) -> J | None:
        job, self._over = self._over, None
        if job is not None or self._dry:
            return job
        try:
            job = next(self._jobs, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, `take` raises it when it is its turn
            self._failed = error
        self._dry = job is None
        return job

    def _admit(self, job: J, *, whatever: bool) -> bool:
        """Start the job, or let it wait for one that ends; False where its bytes have no room yet."""
        cost = job.cost if job.cost >= 0 else self._largest
        with self._news:
            if not whatever and self._charged and self._used + cost > self._bytes // max(1, len(_open)):
                self._over = job
                return False
            job.room = self._charged[job] = cost
            self._used += cost
            self._order.append(job)
            self._ahead += job.weight
            start = self._has_room(job)
            if start:
                self._under_way += job.weight
            else:
                self._built.append(job)
        if start:
            job.start(self._on_end)
        return True

    def _has_room(self, job: J) -> bool:
        return not self._under_way or self._under_way + job.weight <= self._width

    def check_process(self) -> None:
        """Raise `ConfigError` in a process that was forked from the one that this window belongs to."""
        # Before any lock is touched: one that another thread held at the fork stays locked for ever.
        self._home.check()

    def take(self) -> list[J]:
        """The jobs at the head of the window that have ended or are taken early; empty when there are no more."""
        if not self._order and self._over is not None:
            over, self._over = self._over, None
            self._admit(over, whatever=True)  # the consumer waits for it
        with self._news:
            if not self._order:
                if self._failed is not None:
                    raise self._failed
                return []
            self._wait_for_head()
            run: list[J] = []
            for job in itertools.islice(self._order, self._run):
                if not self._can_go(job):
                    break
                run.append(job)
                if job.early:
                    break  # it takes long to consume: build more before
            for job in run:
                self._order.popleft()
                self._ahead -= job.weight
                self._ended.discard(job)
            return run

    def _wait_for_head(self) -> None:
        """Wait, with the lock, until the first job can be taken; for a run of them no longer than `NAP_S`."""
        while not self._can_go(self._order[0]):
            self._waiting = True
            if not self._news.wait(NAP_S if self._fewest > 1 else None):
                self._fewest = 1
        self._waiting = False
        self._fewest = self._run  # from the second time on: nothing delays the first result

    def _can_go(self, job: J) -> bool:
        return job.early or job in self._ended

    def _is_worth_waking(self) -> bool:
        """Whether there is a run to take, or all that comes in the near future."""
        if not self._waiting or not self._order or self._order[0] not in self._ended:
            return False
        return len(self._ended) >= self._fewest or not (self._under_way or self._built)

    def release(self, job: J) -> None:
        """The consumer has taken the result: its bytes are free."""
        self.check_process()
        self._meter.requests += job.attempts
        self._meter.retries += job.retries
        self._meter.wait_s += job.waited_s
        self._meter.consumer_s -= job.waited_s
        with self._news:
            self._used -= self._charged.pop(job)

    def cancel(self) -> None:
        """Stop what is under way; nothing is waited for."""
        _open.discard(self)
        if not self._home.is_here:
            return  # what is under way belongs to the process that began it
        with self._news:
            self._cancelled = True
            left = [job for job in self._order if job not in self._ended]
            left += [job for job in self._charged if job.early]
            self._order.clear()
            self._built.clear()
        for job in left:
            job.cancel()

    def _on_end(self, job: J) -> None:
        with self._news:
            self._under_way -= job.weight
            if self._cancelled:
                return
            if job in self._charged:  # else it was taken early, and is done with
                self._charge(job)
            if not job.early:
                self._ended.add(job)
                if self._is_worth_waking():
                    self._waiting = False
                    self._news.notify()
        self._start_built()

    def _charge(self, job: J) -> None:
        """Count a job that has ended with the bytes that it has, and learn from it."""
        held = job.held
        self._used += held - self._charged[job]
        self._charged[job] = held
        if job.outgrown:
            self._largest = max(self._largest, 2 * job.room)
        elif job.cost < 0 and job.error is None:  # a missing object says nothing about the others
            self._largest = max(held, self._largest if self._seen else 1)
            self._seen += 1

    def _start_built(self) -> None:
        """Start what is built while there is room; in a loop, for a job may end while it is started."""
        with self._news:
            if self._starting:
                return  # whoever is at it sees the room
            self._starting = True
        try:
            while True:
                with self._news:
                    if not self._built or not self._has_room(self._built[0]):
                        self._starting = False
                        return
                    job = self._built.popleft()
                    self._under_way += job.weight
                job.start(self._on_end)
        except BaseException:
            self._starting = False
            raise


# The windows of this process that are open: they share its bytes. A forked child has none.
_open: weakref.WeakSet[Window[Any]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_open.clear)
