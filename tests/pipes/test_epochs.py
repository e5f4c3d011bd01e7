"""Whose iterations count as one job's: those of a process and of its loader's workers, and nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import warnings

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import World

ITEMS = [f"ais://b/{i:02d}" for i in range(24)]
EPOCHS = 3
METHODS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]


def planner(world=None):
    return IterableWrapper(ITEMS).ais_plan(shuffle=True, seed=3, world=world)


def epochs_of(rank):
    """The epochs of one of two ranks that has the plan for itself."""
    own = planner(World(rank, 2))
    return [list(own) for _ in range(EPOCHS)]


def read(pipe, workers):
    """The epochs of this process, each in the order of the plan."""
    loader = DataLoader(pipe, batch_size=None, num_workers=workers, multiprocessing_context="fork" if workers else None)
    return [list(loader) for _ in range(EPOCHS)]


def rank(number, pipe, workers, go, results):
    os.environ.update(RANK=str(number), WORLD_SIZE="2")
    go.wait(60)
    results.put(read(pipe or planner(), workers))


def in_process(context, number, pipe, workers, meanwhile=None):
    """What a process reads that is given the pipe; ``meanwhile`` runs here before it begins to read."""
    go, results = context.Event(), context.Queue()
    process = context.Process(target=rank, args=(number, pipe, workers, go, results))
    process.start()
    if meanwhile is not None:
        meanwhile()
    go.set()
    try:
        return results.get(timeout=60)
    finally:
        process.join(30)
        process.kill()  # one that hangs must not keep the tests from ending
        process.join(30)
        process.close()
        results.close()
        results.join_thread()


@pytest.mark.parametrize(
    ("method", "workers"), [("fork", 0), ("fork", 2), pytest.param("spawn", 2, marks=pytest.mark.slow)]
)
def test_ranks_that_inherit_one_plan(method, workers):
    """One launcher starts them (torch.multiprocessing.spawn): each begins with epoch 0, whoever comes first."""
    pipe, context = planner(), multiprocessing.get_context(method)
    for number in (0, 1):
        assert in_process(context, number, pipe, workers) == epochs_of(number)


@pytest.mark.parametrize("method", METHODS)
def test_a_launcher_that_reads_too(method, monkeypatch):
    """It is rank 0, and ahead of the rank that it started: that one begins where it was when it started it."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipe, own = planner(), []
    context = multiprocessing.get_context(method)
    other = in_process(context, 1, pipe, 0, meanwhile=lambda: own.extend(read(pipe, 0)))
    assert (own, other) == (epochs_of(0), epochs_of(1))
    pipe.set_epoch(2)
    assert in_process(context, 1, pipe, 0)[0] == epochs_of(1)[2]


def test_a_plan_made_in_a_forked_process():
    """torch's own threads are not in it, and nothing waits for them."""
    torch.ones(1 << 20).sum()  # these threads are there now
    context = multiprocessing.get_context("fork")
    assert in_process(context, 1, None, 0) == epochs_of(1)


@pytest.fixture(scope="module")
def dataloader2():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata says that it will end
        return pytest.importorskip("torchdata.dataloader2")


@pytest.mark.parametrize("method", METHODS)
def test_dataloader2(dataloader2, method):
    """Its workers are in the same epoch, however far one is ahead of the other."""
    service = dataloader2.MultiProcessingReadingService(2, method, main_prefetch_cnt=0)
    loader = dataloader2.DataLoader2(planner(), reading_service=service)
    try:
        epochs = [list(loader) for _ in range(EPOCHS)]
    finally:
        loader.shutdown()
    two = DataLoader(planner(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert epochs == [list(two) for _ in range(EPOCHS)]
