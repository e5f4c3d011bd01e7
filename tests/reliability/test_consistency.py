"""Objects that change while they are read: one version whole, or a named error, never a mix of two."""

from __future__ import annotations

import threading
import time

import pytest

from aisdatapipes import AISIterDataset, AISShardReader, CorruptBody, FetchPlan, ObjectNotFound
from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.store import pool
from aisdatapipes.testing import AISBucket
from aisdatapipes.wire.tar import END, entry
from tests.cluster import LocalCluster, aisnode
from tests.reliability.meddling import Meddling

RETRY = RetryPolicy(attempts=6, first_delay=0.01, max_delay=0.05, deadline=30)
SIZE = 400_000
# Of two sizes: what is listed with one may have the other when it is read.
VERSIONS = [bytes([version]) * (SIZE + 1000 * (version % 2)) for version in range(1, 9)]
STRATEGIES = ("get", "ranges", "batch", "auto")


def plan(strategy="ranges", **options):
    return FetchPlan(strategy, **{"width": 4, "range_bytes": 40_000, "batch_objects": 4, **options})


def meddled(bucket, before=lambda _: None, **options):
    """A config whose cluster has something happen between two requests."""
    config = ClientConfig(bucket.endpoint, retry=RETRY)
    cluster = pool.cluster_of(config)
    cluster.open()
    cluster.transport = Meddling(cluster.transport, before, **options)
    return config


class Overwriting:
    """Overwrites an object before some of the requests for it, counted from 0, with one version after the other."""

    def __init__(self, bucket, name, before, versions=VERSIONS):
        self._bucket, self._name, self._before, self._versions = bucket, name, before, iter(versions)
        self._count, self._lock = 0, threading.Lock()

    def __call__(self, request):
        with self._lock:
            if f"/{self._bucket.name}/{self._name}?" not in request.url:
                return
            strikes, self._count = self._before(self._count), self._count + 1
            if strikes and (data := next(self._versions, None)) is not None:
                self._bucket.put(self._name, data)


def read(bucket, config, strategy="ranges", **options):
    return list(AISIterDataset(bucket.url, config=config, fetch=plan(strategy, **options)))


@pytest.mark.parametrize("request_number", [1, 3, 9])
def test_overwritten_between_two_ranges(bucket, request_number):
    """The object is read again from the start: what comes out is the new version, whole."""
    bucket.put("o", VERSIONS[0])
    config = meddled(bucket, Overwriting(bucket, "o", lambda number: number == request_number, VERSIONS[1:2]))
    assert read(bucket, config, width=1) == [("o", VERSIONS[1])]


def test_overwritten_again_and_again_between_ranges(bucket):
    """An object that never rests is an error that names it."""
    bucket.put("o", VERSIONS[0])
    endless = (VERSIONS[i % 8] for i in range(1, 10_000))
    config = meddled(bucket, Overwriting(bucket, "o", lambda number: number % 3 == 1, endless))
    with pytest.raises(CorruptBody, match=r"overwritten again and again.*") as caught:
        read(bucket, config, width=1)
    assert caught.value.url == f"{bucket.url}o"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_overwritten_all_the_time(bucket, strategy):
    """However an object is read while somebody writes it, what comes out is one of its versions, or the error."""
    for name in "abcd":
        bucket.put(name, VERSIONS[0])
    config, ends = ClientConfig(bucket.endpoint, retry=RETRY), threading.Event()
    found, errors = set(), []

    def write():
        number = 0
        while not ends.is_set():
            number += 1
            for name in "abcd":
                bucket.put(name, VERSIONS[number % 8])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            try:
                found |= {data for _, data in read(bucket, config, strategy)}
            except CorruptBody as error:
                errors.append(error)
    finally:
        ends.set()
        writer.join()
    assert found <= set(VERSIONS)
    assert found or errors


@pytest.mark.parametrize("size", [SIZE, SIZE // 2, 2 * SIZE])
def test_a_broken_body_is_not_mended_with_another_version(embedded_bucket, embedded_server, size):
    """A body breaks off, the object is overwritten, the rest is asked for: all of it is thrown away and read again."""
    faults = embedded_server.embedded.faults
    now = bytes([9]) * size
    for strategy in ("get", "ranges"):
        embedded_bucket.put("o", VERSIONS[0])
        config = meddled(embedded_bucket, Overwriting(embedded_bucket, "o", lambda number: number == 1, [now]))
        faults.add("cut", "get", after=10_000, times=1)
        try:
            assert read(embedded_bucket, config, strategy, width=1) == [("o", now)]
        finally:
            faults.clear()
            pool.close_all()


def test_nothing_tells_versions_apart(bucket):
    """Where a cluster keeps neither versions nor checksums, an object is not read in parts: it could be a mix."""
    bucket.put("o", VERSIONS[0])
    unheard = ("ais-version", "ais-checksum-value", "ais-checksum-type")
    writes = Overwriting(bucket, "o", lambda number: number == 1, VERSIONS[2:3])  # of the same size
    config = meddled(bucket, writes, unheard=unheard)
    ((name, data),) = read(bucket, config, width=1)
    assert (name, data in VERSIONS) == ("o", True)


# ---- deleted between listing and reading


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_deleted_between_listing_and_reading(bucket, strategy):
    """The error names it, in its turn; where errors are borne it is left out and counted, and all others are there."""
    objects = {f"{i:02}": bytes([i]) * 60_000 for i in range(10)}
    bucket.fill(objects)
    config = ClientConfig(bucket.endpoint, retry=RETRY)
    strict, lenient = (
        AISIterDataset(bucket.url, config=config, fetch=plan(strategy), on_error=on_error)
        for on_error in ("raise", "skip")
    )
    assert (len(strict), len(lenient)) == (10, 10)
    bucket.sdk.object("05").delete()
    del objects["05"]
    found = iter(strict)
    assert [next(found) for _ in range(5)] == list(objects.items())[:5]
    with pytest.raises(ObjectNotFound, match="05"):
        next(found)
    assert (list(lenient), lenient.stats()["skipped"]) == (list(objects.items()), 1)


# ---- shards


def shard(version, samples=40):
    """A tar whose samples all have the same length in every version."""
    members = (entry(f"{i:03}.bin", bytes([version]) * 5000) for i in range(samples))
    return b"".join(members) + END


@pytest.mark.parametrize("index", ["client", "server"])
def test_a_shard_that_is_replaced_under_its_index(bucket, index):
    """Not one sample of the new shard by places of the old one: the error names the shard."""
    for name in ("a.tar", "b.tar"):
        bucket.put(name, shard(1))
    config = ClientConfig(bucket.endpoint, retry=RETRY)
    dataset = AISShardReader(bucket.url, config=config, fetch=plan(), index=index)
    assert len(dataset) == 80
    bucket.put("b.tar", shard(2))
    found = []
    with pytest.raises(CorruptBody, match=r"b\.tar.*overwritten since it was indexed"):
        take_all(dataset, found)
    assert found == [bytes([1]) * 5000] * 40


def take_all(dataset, found):
    for _, sample in dataset:
        found.append(sample["bin"])


def test_a_shard_that_is_replaced_while_it_is_streamed(bucket):
    """Samples of one version, then the error: not one sample of the other."""
    bucket.put("a.tar", shard(1))
    config = meddled(bucket, Overwriting(bucket, "a.tar", lambda number: number == 3, [shard(2)]))
    found = []
    dataset = AISShardReader(bucket.url, config=config, fetch=plan(width=1), index="off", fields=("bin",))
    with pytest.raises(CorruptBody, match=r"a\.tar.*overwritten while it was read"):
        take_all(dataset, found)
    assert 0 < len(found) < 40
    assert set(found) == {bytes([1]) * 5000}


# ---- copies of different ages


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(aisnode() is None, reason="needs an aisnode on PATH")
def test_a_target_that_comes_back_with_an_older_copy():
    """It missed an overwriting, and is the owner again: what is read is a version, whole, whichever target gives it."""
    old, new = VERSIONS[:2]
    with LocalCluster(targets=3) as cluster:
        bucket = AISBucket.new(cluster.endpoint, "old")
        names = [f"{i:02}" for i in range(12)]
        for name in names:
            bucket.put(name, old)
        cluster.kill("t2")
        cluster.wait_targets(2)
        for name in names:
            bucket.put(name, new)
        retry = RetryPolicy(attempts=1000, first_delay=0.1, max_delay=1, deadline=60)
        config = ClientConfig(cluster.endpoint, retry=retry)
        dataset = AISIterDataset(bucket.url, config=config, fetch=plan("ranges"))
        assert len(dataset) == 12
        cluster.start("t2")
        cluster.wait_targets(3)
        found, ends_at = set(), time.monotonic() + 5  # while the cluster moves them
        while time.monotonic() < ends_at:
            found |= {data for _, data in dataset}
        cluster.crash()
    assert found <= {old, new}
