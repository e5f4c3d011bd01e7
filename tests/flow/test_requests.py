"""Which request brings what, and that the objects keep their order whatever comes first."""

from __future__ import annotations

import gc
import itertools
import os
import random
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.config import ClientConfig, FetchPlan, RetryPolicy
from aisdatapipes.model.errors import ConfigError, ObjectNotFound, StoreError, Unavailable
from aisdatapipes.model.url import AISURL
from aisdatapipes.store import pool
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.threads import ThreadTransport

RETRY = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.02, deadline=10)
STRATEGIES = ("auto", "get", "batch", "ranges")
SMALL = {f"{i:03}": bytes([i % 256]) * (i % 50) for i in range(300)}


@pytest.fixture
def cluster(embedded_server):
    yield embedded_server.embedded
    embedded_server.embedded.faults.clear()


@pytest.fixture
def config(embedded_server):
    return ClientConfig(embedded_server.endpoint, retry=RETRY)


def urls_of(bucket, objects):
    return [
        AISURL.make(f"{bucket.url}{name}", "ais", bucket.name, name, size=len(data)) for name, data in objects.items()
    ]


def fetch(urls, config, meter=None, **plan):
    found = fetched(urls, Clusters(config), FetchPlan(**plan), meter or Meter())
    return [(url.name, data) for url, data in found]


def test_small_objects_come_in_batches(embedded_bucket, config, cluster):
    """Small objects of a long sequence share requests; the first ones do not wait for company."""
    objects = embedded_bucket.fill(SMALL)
    meter, before = Meter(), dict(cluster.requests)
    assert fetch(iter(urls_of(embedded_bucket, objects)), config, meter) == list(objects.items())
    gets, batches = (cluster.requests[what] - before.get(what, 0) for what in ("get", "batch"))
    assert (0 < gets < 64, 0 < batches < 8, meter.requests == gets + batches) == (True, True, True)


def test_few_objects_are_no_batch(embedded_bucket, config, cluster):
    """A pass over a handful is faster object by object."""
    objects = embedded_bucket.fill(dict(itertools.islice(SMALL.items(), 64)))
    before = cluster.requests.get("batch", 0)
    assert fetch(urls_of(embedded_bucket, objects), config) == list(objects.items())
    assert cluster.requests.get("batch", 0) == before


@pytest.mark.parametrize(("delayed", "batches"), [("map", False), ("*", True)])
def test_larger_objects_come_in_batches_from_far_away(embedded_bucket, embedded_server, cluster, delayed, batches):
    """Far away is where every answer takes its time; a slow first one may be this machine's own."""
    objects = embedded_bucket.fill({f"{i:02}": bytes([i]) * (40 << 10) for i in range(99)})
    config = ClientConfig(embedded_server.endpoint, retry=RetryPolicy(deadline=60 + batches))  # a cluster of its own
    cluster.faults.add("delay", delayed, seconds=0.1)
    before = cluster.requests.get("batch", 0)
    assert fetch(iter(urls_of(embedded_bucket, objects)), config) == list(objects.items())
    assert (cluster.requests.get("batch", 0) > before) is batches


def test_a_cluster_without_batches_is_read_all_the_same(embedded_bucket, config, cluster):
    """``auto`` soon stops to ask for what the cluster does not know, and counts what was slower for it."""
    objects = embedded_bucket.fill(SMALL)
    refused = cluster.faults.add("refuse_batch", status=404)
    meter = Meter()
    pool.close_all()  # what this process knows of the cluster is forgotten with it
    assert fetch(iter(urls_of(embedded_bucket, objects)), config, meter, batch_objects=64) == list(objects.items())
    asked = refused.struck
    again = fetch(iter(urls_of(embedded_bucket, objects)), config, batch_objects=64)
    assert (again, refused.struck, meter.fallbacks > 200) == (list(objects.items()), asked, True)
    pool.close_all()


FAULTS = [
    ("batch_short", {"count": 5}),
    ("batch_misordered", {}),
    ("status", {"status": 429, "retry_after": 0}),
    ("status", {"status": 503}),
    ("status", {"status": 404}),
    ("reset", {}),
    ("reset", {"after": 3000}),
    ("cut", {"after": 0}),
    ("cut", {"after": 1}),
    ("cut", {"after": 5000}),
    ("wrong_length", {"by": -700}),
    ("corrupt", {"at": 600}),
    ("drip", {"piece": 20_000, "seconds": 0.001}),
]


@pytest.mark.parametrize("times", [1, None])
@pytest.mark.parametrize(("fault", "options"), FAULTS, ids=str)
def test_what_a_batch_lacks_is_read_again(embedded_bucket, config, cluster, fault, options, times):
    """Whatever happens to batches, every object comes once, in order, with its bytes."""
    objects = embedded_bucket.fill(SMALL)
    struck = cluster.faults.add(fault, "batch", times=times, **options)
    found = fetch(iter(urls_of(embedded_bucket, objects)), config, batch_objects=50)
    assert (found, struck.struck > 0) == (list(objects.items()), True)


FAULTS_OF_GETS = [
    ("status", {"status": 503, "retry_after": 0}),
    ("status", {"status": 429, "retry_after": 0}),
    ("status", {"status": 500}),
    ("reset", {}),
    ("reset", {"after": 1000}),
    ("cut", {"after": 0}),
    ("cut", {"after": 700}),
    ("corrupt", {}),
    ("wrong_length", {"by": 1}),
    ("wrong_length", {"by": -1}),
    ("idle_close", {}),
    ("refuse_direct", {}),
    ("drip", {"piece": 500, "seconds": 0.001}),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("fault", "options"), FAULTS_OF_GETS, ids=str)
def test_what_passes_is_not_seen(embedded_bucket, config, cluster, fault, options, strategy):
    """A few misbehaviours of GETs and parts, whoever sends them, change neither the bytes nor their order."""
    objects = embedded_bucket.fill({f"{i:02}": random.Random(i).randbytes(3000 + i) for i in range(12)})
    cluster.faults.add("refuse_batch", status=503)  # what is forced into batches comes by GET in the end
    cluster.faults.add(fault, "get", times=3, **options)
    found = fetch(iter(urls_of(embedded_bucket, objects)), config, strategy=strategy, range_bytes=1000, batch_objects=4)
    assert found == list(objects.items())


def test_changed_objects_come_as_they_are_now(embedded_bucket, config):
    """An object that has another size than was listed is not taken from a batch without a look."""
    objects = embedded_bucket.fill(SMALL)
    urls = urls_of(embedded_bucket, objects)
    changed = embedded_bucket.fill({**objects, "007": b"longer than before", "200": b""})
    assert fetch(iter(urls), config) == list(changed.items())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_missing_objects_raise_where_they_stand(embedded_bucket, config, cluster, strategy):
    """What is gone is an error when it is its turn, not before and not instead of another."""
    objects = embedded_bucket.fill(SMALL)
    urls = urls_of(embedded_bucket, objects)
    cluster.delete(embedded_bucket.name, "123")
    seen = []
    with pytest.raises(ObjectNotFound, match="/123"):
        seen.extend(url.name for url, _ in fetched(iter(urls), Clusters(config), FetchPlan(strategy), Meter()))
    assert seen == list(SMALL)[:123]


SIZES = st.lists(st.sampled_from([0, 1, 100, 5000, 40_000, 70_000, 300_000]), max_size=120)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, window=st.sampled_from([1, 10_000, 100_000, 1 << 26]), width=st.integers(1, 16), data=st.data())
def test_mixed_sizes_keep_their_order(embedded_bucket, config, sizes, window, width, data):
    """Batches, GETs and parts side by side, in windows that hold next to nothing: all objects, in order, no stop."""
    objects = embedded_bucket.fill({f"{i:03}": random.Random(i).randbytes(size) for i, size in enumerate(sizes)})
    urls = urls_of(embedded_bucket, objects)
    plan = {
        "strategy": data.draw(st.sampled_from(STRATEGIES)),
        "batch_objects": data.draw(st.sampled_from([1, 7, 50, 512])),
        "range_bytes": data.draw(st.sampled_from([30_000, 1 << 22])),
        "window_bytes": window,
        "width": width,
    }
    assert fetch(iter(urls), config, **plan) == list(objects.items())


def test_sizes_that_nobody_knows(embedded_bucket, config):
    """Objects of which only the names are known come whole and in order."""
    objects = embedded_bucket.fill(SMALL)
    urls = [AISURL.parse(f"{embedded_bucket.url}{name}") for name in objects]
    for strategy in STRATEGIES:
        assert fetch(iter(urls), config, strategy=strategy, window_bytes=1000) == list(objects.items())


@pytest.mark.parametrize("bad", [0, 1, 8, 30, 299])
def test_a_source_that_raises(embedded_bucket, config, bad):
    """What the source of the URLs raises comes after all objects that it gave before."""
    objects = embedded_bucket.fill(SMALL)

    def source():
        for i, url in enumerate(urls_of(embedded_bucket, objects)):
            if i == bad:
                raise ZeroDivisionError("of the source")
            yield url

    seen = []
    with pytest.raises(ZeroDivisionError, match="of the source"):
        seen.extend(url.name for url, _ in fetched(source(), Clusters(config), FetchPlan(), Meter()))
    assert seen == list(objects)[:bad]


def test_a_slow_source_keeps_nobody_waiting(embedded_bucket, config):
    """What is there is handed out while the source of the URLs takes its time over the next ones."""
    objects = embedded_bucket.fill(dict(itertools.islice(SMALL.items(), 60)))
    given = 0

    def source():
        nonlocal given
        for url in urls_of(embedded_bucket, objects):
            threading.Event().wait(0.05)
            given += 1
            yield url

    ahead = [given - at for at, _ in enumerate(fetched(source(), Clusters(config), FetchPlan(), Meter()))]
    assert (len(ahead), max(ahead) < 20) == (60, True)


@pytest.mark.parametrize("taken", [1, 9, 60, 299])
@pytest.mark.parametrize("end", ["close", "drop", "raise"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_early_end_leaves_nothing(embedded_bucket, config, strategy, end, taken):
    """Closed, forgotten or left by an exception in the middle of a batch: nothing is under way afterwards."""
    objects = embedded_bucket.fill(SMALL)
    found = fetched(iter(urls_of(embedded_bucket, objects)), Clusters(config), FetchPlan(strategy), Meter())
    for _ in range(taken):
        next(found)
    if end == "close":
        found.close()
    elif end == "raise":
        with pytest.raises(ZeroDivisionError):
            found.throw(ZeroDivisionError("of the consumer"))
    del found
    gc.collect()
    ours = pool.cluster_of(config).transport
    waited = threading.Event()
    while ours._loop is not None and not waited.wait(0.05):  # it ends when it has nothing to do
        pass


def test_a_batch_does_not_survive_a_fork(embedded_bucket, config, cluster):
    """In a child, objects that have not come yet are an error and not a hang; the parent goes on."""
    objects = embedded_bucket.fill(SMALL)
    cluster.faults.add("delay", "batch", seconds=0.5)
    found = fetched(iter(urls_of(embedded_bucket, objects)), Clusters(config), FetchPlan(), Meter())
    seen = [next(found)[0].name]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            list(found)
        except ConfigError:
            code = 0
        finally:
            os._exit(code)
    seen += [url.name for url, _ in found]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen == list(objects)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interpreter_ends_with_objects_under_way(embedded_bucket, cluster, strategy):
    """Whoever forgets an iterator can still exit, at once and without a word."""
    embedded_bucket.fill(SMALL)
    cluster.faults.add("delay", "*", seconds=0.05)
    code = f"""
from aisdatapipes import AISIterDataset, ClientConfig, FetchPlan
config = ClientConfig({embedded_bucket.endpoint!r})
found = iter(AISIterDataset({embedded_bucket.url!r}, config=config, fetch=FetchPlan({strategy!r})))
print(next(found)[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("000\n", "", 0)


def test_a_closed_transport_is_said(embedded_bucket, config, cluster):
    """Objects that were under way when the process closed its clusters are an error, not a hang."""
    objects = embedded_bucket.fill(SMALL)
    cluster.faults.add("delay", "*", seconds=0.3)
    found = fetched(iter(urls_of(embedded_bucket, objects)), Clusters(config), FetchPlan(), Meter())
    assert next(found)[0].name == "000"
    pool.close_all()
    with pytest.raises((Unavailable, StoreError), match="closed"):
        list(found)


@pytest.fixture
def by_threads(config):
    """The clusters of this process speak through urllib3, as where there is no pycurl."""
    pool.close_all()
    pool._clusters[config] = Cluster(config, ThreadTransport(config))
    yield
    pool.close_all()


@pytest.mark.parametrize("fault", [None, "cut", "batch_short"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_pycurl_it_is_the_same(embedded_bucket, config, cluster, by_threads, strategy, fault):
    """Batches, GETs and parts on many threads: all objects, in order, with their bytes."""
    sizes = [random.Random(i).choice([0, 10, 5000, 40_000, 200_000]) for i in range(150)]
    objects = embedded_bucket.fill({f"{i:03}": random.Random(i).randbytes(size) for i, size in enumerate(sizes)})
    if fault:
        cluster.faults.add(fault, times=5)
    found = fetch(
        iter(urls_of(embedded_bucket, objects)), config, strategy=strategy, range_bytes=9000, batch_objects=40
    )
    assert found == list(objects.items())
