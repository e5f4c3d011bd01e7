"""The machine's limits: descriptors, shared memory, threads, and thousands of iterators. An error names which it was."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset, ClientConfig, FetchPlan, RetryPolicy, Unavailable
from aisdatapipes.store import pool
from aisdatapipes.store.threads import ThreadTransport
from tests.environments import CHECKOUT, run
from tests.reliability.iterations import OBJECTS, epoch, filled, forked, plain

# A local lack is tried again as any other that may pass: for this long here.
RETRY = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02, deadline=10)
NOBODY = 54321  # a user of whom nothing runs, so that limits of users count the test's process only
NEW_MOUNTS, PRIVATE = 0x00020000, 0x44000  # CLONE_NEWNS; MS_REC | MS_PRIVATE


def _limit_descriptors(more: int) -> None:
    """The process may have so many descriptors more than it has."""
    highest = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _descriptors(spare: int) -> contextlib.AbstractContextManager[None]:
    """So many descriptors more than are open can be opened; all of them again afterwards."""

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        _limit_descriptors(50)
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(held.pop())
        try:
            yield
        finally:
            for fd in held:
                os.close(fd)

    return limited()


def _dataset(bucket, strategy="auto", **options):
    config = ClientConfig(bucket.endpoint, retry=RETRY)
    return AISIterDataset(f"{bucket.url}o/", config=config, fetch=FetchPlan(strategy), **options)


def _outcome(dataset):
    """An epoch, or the error that says why there is none."""
    try:
        return dict(epoch(dataset))
    except Unavailable as error:
        return error


@pytest.mark.parametrize("transport", ["curl", "threads"])
def test_descriptors_run_out(bucket, monkeypatch, transport):
    """With any number of descriptors an epoch is whole or an error that says so; with more again, everything works."""
    if transport == "threads":
        monkeypatch.setattr(pool, "new_transport", ThreadTransport)
    dataset = _dataset(filled(bucket))
    len(dataset)

    def with_descriptors(spare):
        dataset.stats()  # what a process counts in has a descriptor of its own, from its first use on
        with _descriptors(spare):
            outcome = _outcome(dataset)
        assert outcome == OBJECTS or "too many open files" in str(outcome)
        assert dict(epoch(dataset)) == OBJECTS

    statuses = {spare: forked(functools.partial(with_descriptors, spare)) for spare in (0, 1, 2, 3, 4, 5, 7, 12)}
    assert set(statuses.values()) == {0}, statuses


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["get", "batch", "ranges"])
def test_two_thousand_iterators(embedded_bucket, strategy):
    """Thousands of iterators that are open at a time stay within the descriptors that there are, and give what is there.

    As many requests as they may have under way at a time would need twenty times as many.
    """
    dataset = _dataset(filled(embedded_bucket), strategy)
    first = epoch(dataset)[:2]

    def in_child():
        _limit_descriptors(200)
        iterators = [iter(dataset) for _ in range(2000)]
        for number in range(2):
            assert [next(iterator) for iterator in iterators] == [first[number]] * len(iterators)
        assert [len(list(iterator)) for iterator in iterators[::500]] == [len(OBJECTS) - 2] * 4
        dataset.close()
        assert dict(epoch(dataset)) == OBJECTS

    assert forked(in_child) == 0


def test_connections_wait_for_their_turn(embedded_bucket):
    """More requests than connections that a process can afford are not an error: they wait."""
    dataset = _dataset(filled(embedded_bucket), "get")
    expected = epoch(dataset)
    embedded_bucket.server.embedded.faults.add("delay", "get", share=0.5, seconds=0.2)

    def in_child():
        _limit_descriptors(30)
        iterators = [iter(dataset) for _ in range(3)]
        assert [list(map(plain, iterator)) for iterator in iterators] == [expected] * 3
        assert dataset.stats()["retries"] == 0

    try:
        assert forked(in_child) == 0
    finally:
        embedded_bucket.server.embedded.faults.clear()


# ---- shared memory


def _small_shared_memory(size: str) -> None:
    """A /dev/shm of this process's own that is so small; needs a privilege."""
    system = ctypes.CDLL(None, use_errno=True)
    done = (
        system.unshare(NEW_MOUNTS) == 0
        and system.mount(b"none", b"/", None, PRIVATE, None) == 0
        and system.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode()) == 0
    )
    if not done:
        raise PermissionError(os.strerror(ctypes.get_errno()))


@pytest.fixture
def may_mount():
    if forked(lambda: _small_shared_memory("64k")):
        pytest.skip("this process may not mount a /dev/shm of its own")


NO_ROOM = """
import sys
from aisdatapipes import AISPipeError
from tests.reliability.test_limits import no_room, made

if __name__ == "__main__":
    made("ais://b/")
    with no_room[sys.argv[1]]():
        try:
            made("ais://b/")
        except AISPipeError as error:
            print(error)
    if sys.argv[1] == "descriptors":
        made("ais://b/")
"""
no_room = {
    "descriptors": lambda: _descriptors(0),
    "shared memory": lambda: contextlib.nullcontext(_small_shared_memory("16k")),
}


def made(url):
    return AISIterDataset(url, config=ClientConfig("http://127.0.0.1:9"))


@pytest.mark.slow
@pytest.mark.parametrize(("lack", "words"), [
    ("descriptors", "Too many open files.*ulimit -n"), ("shared memory", "No space left on device.*--shm-size"),
])  # fmt: skip
def test_no_room_for_a_dataset(lack, words, request):
    """A dataset that gets no shared memory says so and what to do; where there is room again, the next one is made."""
    if lack == "shared memory":
        request.getfixturevalue("may_mount")
    # In an interpreter of its own: torch hangs over such an error in a child that is forked from a process with threads.
    assert re.search(words, run([sys.executable, "-c", NO_ROOM, lack], PYTHONPATH=str(CHECKOUT)))


class Large:
    """Makes a tensor of a sample, larger than the shared memory that there is."""

    def __call__(self, batch):
        return torch.utils.data.default_collate([torch.zeros(1 << 20) for _ in batch])


def test_no_space_for_a_batch(embedded_bucket, may_mount):
    """A worker whose batch does not fit into /dev/shm ends the loop with an error that names it."""
    dataset = _dataset(filled(embedded_bucket))

    def in_child():
        _small_shared_memory("1m")
        loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=Large(), timeout=30)
        with pytest.raises(RuntimeError, match=r"(?i)shared memory|bus error"):
            list(loader)

    assert forked(in_child) == 0


# ---- threads


@pytest.mark.parametrize("transport", ["curl", "threads"])
def test_no_thread(embedded_bucket, monkeypatch, transport):
    """Where no thread can be started an epoch is an error that says so; when there are some again, it works."""
    if os.getuid():
        pytest.skip("a limit on threads can be told apart from all else of this user by another user only: needs root")
    if transport == "threads":
        monkeypatch.setattr(pool, "new_transport", ThreadTransport)
    dataset = _dataset(filled(embedded_bucket))

    def in_child():
        os.setuid(NOBODY)
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (1, most))
        with pytest.raises(Unavailable, match="start new thread"):
            epoch(dataset)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        assert dict(epoch(dataset)) == OBJECTS

    assert forked(in_child) == 0
