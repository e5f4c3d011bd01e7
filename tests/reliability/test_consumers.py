"""Consumers that misbehave: they stall, break off, fail, share, fork and copy. The data stays right, or it is said."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from aistore.sdk import Client
from torch.utils.data import DataLoader, IterableDataset

from aisdatapipes import AISIterDataset, AISShardReader, ClientConfig, ConfigError, CorruptSample, FetchPlan
from aisdatapipes.devserver import DevCluster, serving
from aisdatapipes.flow.listing import listed
from aisdatapipes.store import engine, pool
from aisdatapipes.store.source import source_of
from tests.conftest import Server, TestBucket
from tests.reliability.iterations import DATASETS, HANG, OBJECTS, chain, epoch, filled, forked, plain

KINDS = pytest.mark.parametrize("kind", DATASETS)


@pytest.fixture
def slow_bucket(embedded_bucket):
    """Objects of which each takes a moment."""
    filled(embedded_bucket)
    embedded_bucket.server.embedded.faults.add("delay", "get", seconds=0.02)
    yield embedded_bucket
    embedded_bucket.server.embedded.faults.clear()


def _one_by_one(bucket):
    return AISIterDataset(f"{bucket.url}o/", config=bucket.server.config, fetch=FetchPlan("get", width=1))


# ---- forks


@KINDS
def test_a_fork_in_the_middle(embedded_bucket, kind):
    """In a child the old iterator is a `ConfigError`, a new one gives everything; the parent goes on. Each counts its own."""
    dataset = DATASETS[kind](filled(embedded_bucket))
    expected = epoch(dataset)
    counted = dataset.stats()["objects"]
    dataset.set_epoch(0)
    old = iter(dataset)
    found = [plain(next(old)) for _ in range(40)]

    def in_child():
        nonlocal old
        with pytest.raises(ConfigError, match="another process"):
            next(old)
        old = None
        gc.collect()
        assert epoch(dataset) == expected
        assert dataset.stats()["objects"] == counted

    status = forked(in_child)
    found += map(plain, old)
    assert (status, found) == (0, expected)
    assert dataset.stats()["objects"] == 2 * counted


def test_a_listing_does_not_survive_a_fork(embedded_bucket):
    """A page that the parent asked for does not come to the child: that is an error there, not a hang."""
    cluster = embedded_bucket.server.embedded
    embedded_bucket.put("o", b"")
    cluster.faults.add("empty_page", times=1)
    cluster.faults.add("delay", "list", skip=1, seconds=1)
    try:
        chunks = listed(source_of(embedded_bucket.url, embedded_bucket.server.config))
        first = next(chunks)

        def in_child():
            with pytest.raises(ConfigError, match="another process"):
                next(chunks)

        assert (first.names, forked(in_child)) == ([], 0)
        assert [chunk.names for chunk in chunks] == [["o"]]
    finally:
        cluster.faults.clear()


def test_a_fork_while_a_thread_lists(embedded_bucket):
    """A child that is forked while a thread has the listing's lock makes the listing itself."""
    embedded_bucket.put("o", b"x")
    parent, listing, go_on = os.getpid(), threading.Event(), threading.Event()

    def wait_in_parent(_name):
        if os.getpid() == parent:
            listing.set()
            assert go_on.wait(HANG)
        return True

    dataset = AISIterDataset(embedded_bucket.url, config=embedded_bucket.server.config, name_filter=wait_in_parent)
    thread = threading.Thread(target=dataset.__len__)
    thread.start()
    assert listing.wait(HANG)
    status = forked(lambda: list(dataset) == [("o", b"x")] or os._exit(2))
    go_on.set()
    thread.join()
    assert (status, list(dataset)) == (0, [("o", b"x")])


# ---- threads


@KINDS
def test_threads_share_a_dataset(bucket, kind):
    """Loops of several threads over one dataset do not see each other."""
    dataset = DATASETS[kind](filled(bucket))
    expected = epoch(dataset)
    dataset.set_epoch(0)
    iterators = [iter(dataset) for _ in range(4)]
    heads = [[plain(next(iterator))] for iterator in iterators]
    with ThreadPoolExecutor(len(iterators)) as threads:
        rests = list(threads.map(lambda iterator: [plain(sample) for sample in iterator], iterators))
    found = [sorted(head + rest) for head, rest in zip(heads, rests, strict=True)]
    assert found == [sorted(expected)] * len(iterators)


def test_two_threads_in_one_iterator(slow_bucket):
    """Who asks an iterator that another thread waits in gets a `ConfigError` that says so; the other one its samples."""
    iterator = iter(_one_by_one(slow_bucket))
    first = next(iterator)
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(list, iterator)
        error = None
        while error is None and not rest.done():
            try:
                mine = next(iterator)
            except ConfigError as caught:
                error = caught
            else:
                first = (*first, mine)
        assert "another thread" in str(error)
        assert rest.result()


@pytest.mark.parametrize("close", ["iterator", "dataset"])
def test_closed_from_another_thread(slow_bucket, close):
    """An iteration that another thread closes ends behind the sample that it waits for."""
    dataset = _one_by_one(slow_bucket)
    iterator = iter(dataset)
    found = [next(iterator)]
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(list, iterator)
        time.sleep(0.1)
        (iterator if close == "iterator" else dataset).close()
        found += rest.result()
    assert 1 <= len(found) < len(OBJECTS)
    assert list(iterator) == []


# ---- copies


COPIES = {"deep": copy.deepcopy, "pickled": lambda dataset: pickle.loads(pickle.dumps(dataset))}


@pytest.mark.parametrize("how", COPIES)
@KINDS
def test_a_copy_in_the_middle(embedded_bucket, kind, how):
    """A copy made in the middle of an iteration is a dataset of its own, and does not disturb the iteration."""
    dataset = DATASETS[kind](filled(embedded_bucket))
    expected = epoch(dataset)
    dataset.set_epoch(0)
    iterator = iter(dataset)
    found = [plain(next(iterator)) for _ in range(40)]
    copied = COPIES[how](dataset)
    assert epoch(copied) == expected
    found += map(plain, iterator)
    assert found == expected
    copied.set_epoch(5)
    begun = iter(copied), iter(dataset)
    assert all(next(one) for one in begun)
    assert (copied.state_dict(batches=0)["epoch"], dataset.state_dict(batches=0)["epoch"]) == (5, 1)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_with_workers(bucket, how):
    """The workers of a copy's loader hear of its epochs, count for it, and leave no file when it is gone."""
    dataset = AISIterDataset(f"{filled(bucket).url}o/", config=bucket.server.config, shuffle=True, batch_size=4)
    copied = COPIES[how](dataset)
    loader = DataLoader(copied, batch_size=4, num_workers=2, persistent_workers=True)
    orders = []
    for number in (5, 6, 5):
        copied.set_epoch(number)
        orders.append([name for names, _ in loader for name in names])
    assert orders[0] == orders[2] != orders[1]
    assert (copied.stats()["objects"], copied.stats()["lists"]) == (3 * len(OBJECTS), 1)
    assert dataset.stats()["objects"] == 0
    del loader  # its workers persist as long as it does


def test_an_iterator_is_not_copied(embedded_bucket):
    """An iterator that is pickled or copied is refused in words that say what to copy instead."""
    iterator = iter(DATASETS["get"](filled(embedded_bucket)))
    next(iterator)
    for how in COPIES.values():
        with pytest.raises(TypeError, match="copy the dataset"):
            how(iterator)


# ---- stalls, early ends, and failures of the user's own code


def test_a_consumer_that_stalls(monkeypatch):
    """Whoever does not read for longer than every timeout of client and server misses nothing, whatever is read."""
    monkeypatch.setattr(serving, "IDLE_SECONDS", 1)
    monkeypatch.setattr(engine, "LINGER", 0.3)
    with DevCluster() as cluster:
        sdk = Client(cluster.endpoint).bucket("stalled").create()
        bucket = TestBucket(Server("embedded", cluster.endpoint, cluster), "stalled", sdk)
        bucket.server.config = ClientConfig(cluster.endpoint, connect_timeout=0.5, read_timeout=1)
        datasets = {kind: make(filled(bucket)) for kind, make in DATASETS.items()}
        expected = {kind: epoch(dataset) for kind, dataset in datasets.items()}
        for dataset in datasets.values():
            dataset.set_epoch(0)
        iterators = {kind: iter(dataset) for kind, dataset in datasets.items()}
        found = {kind: [plain(next(iterator))] for kind, iterator in iterators.items()}
        piped = iter(chain(bucket))
        first = next(piped)
        for _ in range(2):
            time.sleep(2.5)
            for kind, iterator in iterators.items():
                found[kind] += (plain(sample) for sample in itertools.islice(iterator, 100))
        for kind, iterator in iterators.items():
            found[kind] += map(plain, iterator)
        assert found == expected
        assert dict([first, *piped]) == OBJECTS
        pool.close_all()


@KINDS
@pytest.mark.parametrize("workers", [0, 2])
def test_an_early_break(bucket, kind, workers):
    """A loop that is left after a sample leaves nothing behind, and the next one gives everything."""
    dataset = DATASETS[kind](filled(bucket))
    expected = sorted(epoch(dataset))
    for _ in range(3):
        for _sample in DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=plain):
            break
    dataset.set_epoch(0)
    assert sorted(DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=plain)) == expected


class Oops(Exception):
    """What a user's code raises."""


def fails(*_):
    raise Oops("the user's own words")


class Transforming(IterableDataset):
    """A user's dataset around ours."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __iter__(self):
        return map(fails, self._dataset)


def _failing(bucket, where):
    """(a dataset, options of its loader) where the user's code raises."""
    objects, config = _one_by_one(bucket), bucket.server.config
    if where == "collate":
        return objects, {"batch_size": 4, "collate_fn": fails}
    made = {
        "transform": lambda: Transforming(objects),
        "map": lambda: chain(bucket).map(fails),
        "decode": lambda: AISShardReader(f"{bucket.url}s/", config=config, decode=fails),
        "name_filter": lambda: AISIterDataset(bucket.url, config=config, name_filter=fails),
        "on_error": lambda: AISIterDataset(bucket.url, config=config, on_error=fails),
    }
    return made[where](), {"batch_size": None, "collate_fn": plain}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("where", ["collate", "transform", "map", "decode", "name_filter", "on_error"])
def test_the_users_own_code_fails(embedded_bucket, where, workers):
    """What a user's code raises arrives as it is, from wherever it is called, and nothing stays under way."""
    dataset, options = _failing(filled(embedded_bucket), where)
    expected = CorruptSample if where == "decode" else Oops
    if where == "on_error":
        embedded_bucket.server.embedded.faults.add("status", "*", match="o/", status=404)
    try:
        for _ in range(1 if workers else 2):  # torch takes seconds to end workers of a loop that failed
            with pytest.raises(expected, match="the user's own words"):
                list(DataLoader(dataset, num_workers=workers, timeout=HANG if workers else 0, **options))
    finally:
        embedded_bucket.server.embedded.faults.clear()
