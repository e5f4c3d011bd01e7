"""The ordered window: order, limits, errors and ends, with jobs that end as they please."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.window import AHEAD_WIDTHS, Window, ordered
from aisdatapipes.model.errors import ConfigError, StoreError
from tests.reliability.iterations import forked

HANG = 30  # seconds


@dataclass
class Place:
    """Where jobs run: a thread that ends them in random order, and counts."""

    seed: int = 0
    wait_for: int = 1  # jobs gathered before one is ended
    under_way: int = 0
    most: int = 0
    held: int = 0
    most_held: int = 0
    cancelled: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.lock = threading.Lock()
        self._random = random.Random(self.seed)
        self._jobs = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join(HANG)
        assert not self._thread.is_alive()

    def add(self, job):
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self._jobs.append(job)

    def _work(self):
        while not self._ending.is_set():
            with self.lock:
                job = self._jobs.pop(self._random.randrange(len(self._jobs))) if self._jobs else None
                self.under_way -= job is not None
            if job is None:
                time.sleep(0.0005)
            else:
                if self._random.random() < 0.05:
                    time.sleep(0.001)
                job.done(job)


class Job:
    early, weight, waited_s, outgrown = False, 1, 0.0, False

    def __init__(self, place, number, size=1, *, known=True, error=None):
        self.place, self.number, self.size, self.known, self.error = place, number, size, known, error
        self.attempts = 1
        self.ended = 0

    @property
    def retries(self):
        return self.attempts - 1

    @property
    def cost(self):
        return self.size if self.known else -1

    @property
    def held(self):
        return 0 if self.error else self.size

    def start(self, done):
        def end(job):
            self.ended += 1
            done(job)

        self.done = end
        self.place.add(self)

    def cancel(self):
        self.place.cancelled.append(self.number)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 99))
def test_results_come_in_order(n, width, seed):
    """Whatever ends first, jobs come out in the order of their source, each once, never more than ``width`` at once."""
    with Place(seed) as place:
        jobs = [Job(place, i) for i in range(n)]
        found = [job.number for job in ordered(iter(jobs), width, 1 << 30, Meter())]
    assert (found, {job.ended for job in jobs} <= {1}, place.most <= width) == (list(range(n)), True, True)


@pytest.mark.parametrize("window", [1, 10, 55, 200])
def test_bytes_are_bounded(window):
    """Jobs that were begun and not taken never hold more than the window, but for a single larger one."""
    sizes = [random.Random(3).randrange(1, 80) for _ in range(150)]
    taken = -1
    worst = []
    with Place() as place:
        built = []

        class Watched(Job):
            def start(self, done):
                built.append(self.number)
                out = [sizes[i] for i in built if i > taken]
                worst.append(sum(out) if len(out) > 1 else 0)
                super().start(done)

        for job in ordered((Watched(place, i, s) for i, s in enumerate(sizes)), 8, window, Meter()):
            taken = job.number
    assert (taken, max(worst) <= window) == (len(sizes) - 1, True)


def test_unknown_sizes_are_learnt():
    """Of jobs whose size nobody knows a few are begun, then as many as the sizes seen allow; a failure teaches nothing."""
    with Place() as place:
        jobs = [Job(place, 0, 25, known=False, error=StoreError("gone"))]
        jobs += [Job(place, i, 25, known=False) for i in range(1, 60)]
        started = []
        for job in jobs:
            job.start = lambda done, job=job: (started.append(job.number), Job.start(job, done))
        jobs[0].start = lambda done: (started.append(0), done(jobs[0]))  # before any other can teach anything
        most = 0
        for job in ordered(iter(jobs), 50, 100, Meter()):
            most = max(most, len(started) - job.number)
    assert (len(started), most <= 6) == (60, True)


def test_errors_stay_in_their_place():
    """A failed job comes out where it stands, and the following ones after it."""
    with Place() as place:
        jobs = [Job(place, i, error=StoreError("no") if i % 7 == 3 else None) for i in range(100)]
        found = [(job.number, job.error is None) for job in ordered(iter(jobs), 10, 1000, Meter())]
    assert found == [(i, i % 7 != 3) for i in range(100)]


@pytest.mark.parametrize("bad", [0, 1, 5, 40, 99])
def test_a_source_that_raises(bad):
    """What the source raises comes after all that it gave before, and comes once."""
    with Place() as place:

        def source():
            for i in range(100):
                if i == bad:
                    raise ZeroDivisionError("of the source")
                yield Job(place, i)

        found = []
        results = ordered(source(), 8, 1000, Meter())
        with pytest.raises(ZeroDivisionError, match="of the source"):
            found.extend(job.number for job in results)
        assert (found, next(results, "ended")) == (list(range(bad)), "ended")


def test_an_early_end_cancels():
    """Closed early, a window stops what is under way and waits for nothing."""
    with Place() as place:
        place.add = lambda job: None if job.number else Place.add(place, job)
        results = ordered((Job(place, i) for i in range(100)), 4, 1000, Meter())
        assert next(results).number == 0  # the others are started when it is asked for the next one
        results.close()
    assert sorted(place.cancelled) == [1]


def test_jobs_that_end_while_they_are_started():
    """A thousand jobs wait for one; when it ends, each of them ends as it is started, as on a closed transport."""
    first, ends = [], threading.Event()

    class Sudden(Job):
        def start(self, done):
            if self.number >= width:
                done(self)
            else:
                first.append(lambda: done(self))

    width = 64
    window = Window(iter([Sudden(Place(), i) for i in range(1100)]), width, 1 << 30, Meter())
    for _ in range(AHEAD_WIDTHS + 1):
        window.fill()
    assert len(first) == width  # they hold all places; the others are built and wait
    threading.Thread(target=lambda: [end() for end in first] and ends.set()).start()
    found = []
    while run := window.take():
        found += [job.number for job in run]
        window.fill()
    assert ends.wait(HANG)
    window.cancel()
    assert found == list(range(1100))


def test_an_iterator_does_not_survive_a_fork():
    """In a child an iterator that the parent began is a `ConfigError`, also while its lock is held; the parent goes on."""
    with Place() as place:
        results = ordered((Job(place, i) for i in range(100)), 4, 1000, Meter())
        next(results)
        lock = results.gi_frame.f_locals["window"]._news

        def in_child():
            with pytest.raises(ConfigError):
                next(results)

        def hold():  # in a thread of its own: whoever has this lock already may take it again
            with lock:
                held.set()
                over.wait(HANG)

        held, over = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        try:
            assert held.wait(HANG)
            assert forked(in_child) == 0
        finally:
            over.set()
            holder.join()
        assert [job.number for job in results] == list(range(1, 100))


def test_the_meter_counts_tries():
    """Requests and repetitions are counted, each job's once."""
    meter = Meter()
    with Place() as place:
        jobs = [Job(place, i) for i in range(10)]
        jobs[3].attempts = 4
        assert len(list(ordered(iter(jobs), 4, 100, meter))) == 10
    assert (meter.requests, meter.retries) == (13, 3)


def test_what_the_consumer_waits_for_is_started():
    """Jobs that are taken early and kept do not keep the next one from starting, though the window is full."""
    with Place() as place:
        jobs = [Job(place, i, 100) for i in range(20)]
        for job in jobs[::2]:
            job.early = True
        window = Window(iter(jobs), 4, 100, Meter())
        kept, found = [], []
        for run in window.runs():
            for job in run:
                found.append(job.number)
                if job.early:
                    kept.append(job)
                else:
                    window.release(job)
        for job in kept:
            window.release(job)
        window.cancel()
    assert found == list(range(20))


def test_windows_of_a_process_share_its_bytes():
    """Of two windows that are open, each holds half as much."""
    with Place() as place:
        place.add = lambda job: None  # nothing ends: what is begun stays
        one, two = (Window((Job(place, i, 10) for i in range(1000)), 64, 200, Meter()) for _ in range(2))
        one.fill()
        two.fill()
        assert (one._used, two._used) == (100, 100)
        two.cancel()
        one.fill()
        assert one._used == 200
        one.cancel()
