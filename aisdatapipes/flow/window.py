"""The ordered window: many jobs under way, results in the order of the jobs, memory bounded by bytes.

Two threads meet here. The consumer's thread takes jobs from their source (which may run a user's code) and waits for
the head of the window. The transport's thread reports the end of jobs and starts those that are built already, so
that transfers go on while the consumer computes. Results pass in runs, not one by one: a hand-over of each object
alone would cost more than fetching it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError, StoreError

# The longest run handed over at once, as a share of the width: while a run is consumed nothing new is built.
RUN_SHARE = 4
# Jobs that are built but not started, in widths: what goes on while the consumer computes for long.
AHEAD_WIDTHS = 16


class Job(Protocol):
    """Something that is started, ends once, and then holds its result or its error."""

    error: StoreError | None
    attempts: int

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


def ordered(jobs: Iterator[J], width: int, window_bytes: int, meter: Meter) -> Iterator[J]:
    """The jobs, ended, in their order; the caller looks at ``error``.

    Args:
        jobs: Read ahead by up to ``AHEAD_WIDTHS`` widths.
        width: Jobs under way at the same time.
        window_bytes: Bytes under way or waiting for the consumer; a job larger than that runs alone.
        meter: Gets requests, retries and waiting time.
    """
    window = _Window(jobs, width, window_bytes)
    try:
        while True:
            window.fill()
            began = time.perf_counter()
            run = window.take()
            meter.wait_s += time.perf_counter() - began
            if not run:
                return
            for job in run:
                meter.requests += job.attempts
                meter.retries += max(0, job.attempts - 1)
                yield job
                window.release(job)
    finally:
        window.cancel()


class _Window(Generic[J]):
    def __init__(self, jobs: Iterator[J], width: int, window_bytes: int) -> None:
        self._jobs = jobs
        self._width = width
        self._bytes = window_bytes
        self._pid = os.getpid()
        self._news = threading.Condition(threading.Lock())
        self._order: deque[J] = deque()  # built and not yet taken, in order
        self._built: deque[J] = deque()  # built and not yet started
        self._ended: set[J] = set()
        self._charged: dict[J, int] = {}  # bytes that each job is counted with
        self._used = 0  # their sum
        self._under_way = 0
        self._largest = max(1, window_bytes // 4)  # what a job of unknown size is counted with
        self._seen = 0
        self._over: J | None = None  # built, but the window is full
        self._dry = False  # no more jobs, for the source has ended or failed
        self._failed: Exception | None = None  # what the source raised: its turn is after the jobs before it
        self._starting = False  # somebody is in `_start_built`
        self._waiting = False
        self._cancelled = False

    def fill(self) -> None:
        """Build and start jobs, up to the limits; called by the consumer only."""
        self._check_process()
        for _ in range(self._width):  # a bound: the consumer may have results to take
            if len(self._order) >= self._width * AHEAD_WIDTHS:
                return
            job = self._next_job()
            if job is None:
                return
            cost = job.cost if job.cost >= 0 else self._largest
            with self._news:
                if self._charged and self._used + cost > self._bytes:
                    self._over = job
                    return
                self._charged[job] = cost
                self._used += cost
                self._order.append(job)
                start = self._under_way < self._width
                if start:
                    self._under_way += 1
                else:
                    self._built.append(job)
            if start:
                job.start(self._on_end)

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

    def _check_process(self) -> None:
        # Before any lock is touched: one that another thread held at the fork stays locked for ever.
        if os.getpid() != self._pid:
            raise ConfigError("this iterator was begun in another process: begin a new one after the fork")

    def take(self) -> list[J]:
        """The ended jobs at the head of the window, at least one; empty when there are no more."""
        longest = max(1, self._width // RUN_SHARE)
        with self._news:
            if not self._order:
                if self._failed is not None:
                    raise self._failed
                return []
            while self._order[0] not in self._ended:
                self._waiting = True
                self._news.wait()
            self._waiting = False
            run: list[J] = []
            while self._order and self._order[0] in self._ended and len(run) < longest:
                job = self._order.popleft()
                self._ended.discard(job)
                run.append(job)
            return run

    def release(self, job: J) -> None:
        """The consumer has taken the result: its bytes are free."""
        self._check_process()
        with self._news:
            self._used -= self._charged.pop(job)

    def cancel(self) -> None:
        """Stop what is under way; nothing is waited for."""
        if os.getpid() != self._pid:
            return  # what is under way belongs to the process that began it
        with self._news:
            self._cancelled = True
            left = [job for job in self._order if job not in self._ended]
            self._order.clear()
            self._built.clear()
        for job in left:
            job.cancel()

    def _on_end(self, job: J) -> None:
        with self._news:
            self._under_way -= 1
            if self._cancelled:
                return
            self._ended.add(job)
            held = job.held
            self._used += held - self._charged[job]
            self._charged[job] = held
            if job.cost < 0 and job.error is None:  # a missing object says nothing about the others
                self._largest = max(held, self._largest if self._seen else 1)
                self._seen += 1
            if self._waiting and self._order and self._order[0] in self._ended:
                self._waiting = False
                self._news.notify()
        self._start_built()

    def _start_built(self) -> None:
        """Start what is built while there is room; in a loop, for a job may end while it is started."""
        with self._news:
            if self._starting:
                return  # whoever is at it sees the room
            self._starting = True
        try:
            while True:
                with self._news:
                    if not self._built or self._under_way >= self._width:
                        self._starting = False
                        return
                    job = self._built.popleft()
                    self._under_way += 1
                job.start(self._on_end)
        except BaseException:
            self._starting = False
            raise
