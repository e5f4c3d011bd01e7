"""A cluster that loses a target, or its endpoint, while it is read from; and get-batches that bring nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset
from aisdatapipes.devserver import DevCluster
from aisdatapipes.flow.listing import Listing, listed
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.model.errors import BucketNotFound, ObjectNotFound, Unavailable
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.batch import BatchForm, BatchRead
from aisdatapipes.store.cluster import BATCHES_REST_S, Cluster
from aisdatapipes.store.large import LargeRead
from aisdatapipes.store.pages import object_size
from aisdatapipes.store.part import PartInMemory
from aisdatapipes.store.pool import new_transport
from aisdatapipes.store.read import Read
from aisdatapipes.store.source import source_of

DATA = bytes(range(256)) * 40
QUICK = RetryPolicy(attempts=1000, first_delay=0.01, max_delay=0.05, deadline=20)
SHORT = replace(QUICK, deadline=0.5)


@pytest.fixture
def server():
    with DevCluster(targets=2) as cluster:
        cluster.create_bucket("b")
        for i in range(12):
            cluster.put("b", f"o{i}", DATA)
        yield cluster


def opened(server, retry=QUICK, **options):
    config = ClientConfig(server.endpoint, retry=retry, **options)
    cluster = Cluster(config, new_transport(config))
    cluster.open()
    return cluster


@pytest.fixture
def cluster(server):
    cluster = opened(server)
    yield cluster
    cluster.transport.close()


def urls():
    return [AISURL.make(f"ais://b/o{i}", "ais", "b", f"o{i}", size=len(DATA)) for i in range(12)]


AWAY_S = 1.5  # longer than the pause between two readings of the map


@pytest.fixture
def lost(server):
    """An object of a target that is expelled."""
    url = next(url for url in urls() if server.owner("b", url.name).id == "t1")
    server.expel(0)
    return url


@pytest.fixture
def soon_back(server, lost):
    """An object of a target that is expelled and comes back soon."""
    timer = threading.Timer(AWAY_S, server.readmit, [0])
    timer.start()
    yield lost
    timer.join()


WAYS = {
    "whole": Read,
    "part": lambda cluster, url: PartInMemory(cluster, url, None, 0, memoryview(bytearray(100))),
}


def ended(job):
    """A job, when it has ended."""
    over = threading.Event()
    job.start(lambda _: over.set())
    assert over.wait(30)
    return job


@pytest.mark.parametrize("way", WAYS)
def test_a_listed_object_of_a_target_that_is_away_is_waited_for(cluster, soon_back, way):
    """That it does not exist is believed of a whole cluster only: this one lacks a target, which comes back."""
    read = WAYS[way](cluster, soon_back)
    read.wait()
    assert (read.error, read.attempts > 1) == (None, True)


def test_a_large_object_of_a_target_that_is_away_is_waited_for(cluster, soon_back):
    """So are the parts of one object."""
    read = ended(LargeRead(cluster, soon_back, None, part_bytes=1000, width=4, verify=True))
    assert read.content() == DATA


def test_it_is_waited_for_until_the_deadline(server):
    """Then the error says what is the matter; and the next ones are not waited for once more."""
    url = next(url for url in urls() if server.owner("b", url.name).id == "t1")
    cluster = opened(server, SHORT)
    server.expel(0)
    with pytest.raises(ObjectNotFound, match="does not exist; a target has left the cluster") as caught:
        Read(cluster, url).wait()
    assert caught.value.attempts > 1
    time.sleep(SHORT.deadline)  # the loss is older than that now
    with pytest.raises(ObjectNotFound) as caught:
        Read(cluster, url).wait()
    cluster.transport.close()
    assert caught.value.attempts == 1


def test_what_is_missing_in_a_whole_cluster_is_missing(server, cluster):
    """One answer of the endpoint is enough."""
    for name in ("nothing", "o1"):
        server.faults.add("status", "get", match=f"^b/{name}$", status=404)
        url = AISURL.make(f"ais://b/{name}", "ais", "b", name, size=10)
        with pytest.raises(ObjectNotFound) as caught:
            Read(cluster, url).wait()
        assert (caught.value.attempts, "left the cluster" in str(caught.value)) == (1, False)


def test_what_nobody_listed_is_missing(server, cluster, lost):
    """Of a name that somebody typed nobody knows that it was ever there; of a bucket neither."""
    with pytest.raises(ObjectNotFound) as caught:
        Read(cluster, AISURL.parse(str(lost))).wait()
    assert caught.value.attempts == 1
    for ask in (lambda url: Read(cluster, url).wait(), lambda url: object_size(cluster, url)):
        with pytest.raises(BucketNotFound):
            ask(AISURL.make("ais://none/o", "ais", "none", "o", size=3))


# ---- the endpoint


@pytest.fixture
def two_proxies(server):
    """The cluster seen through a proxy of its map, as a server that is about to vanish."""
    with DevCluster(targets=1) as other:
        other._state.map = replace(server.map, proxies=(*other.map.proxies, *server.map.proxies))
        other._state.buckets = server._state.buckets
        yield other


def test_another_proxy_is_asked_when_the_endpoint_is_gone(server, two_proxies):
    """Whoever knows the map needs the endpoint no more."""
    cluster = opened(two_proxies)
    cluster._direct_allowed = False
    two_proxies.stop()
    read = Read(cluster, urls()[0])
    read.wait()
    cluster.transport.close()
    assert read.data == DATA


def test_the_endpoint_that_comes_back_is_asked_again(server, two_proxies):
    """When the other one goes, it is the endpoint's turn."""
    cluster = opened(two_proxies)
    cluster._direct_allowed = False
    server.faults.add("reset", "redirect")
    first, second = two_proxies._nodes[0], server._nodes[0]
    two_proxies._run(first.stop())
    server.faults.clear()
    Read(cluster, urls()[0]).wait()
    assert cluster.proxies.asked == server.endpoint
    two_proxies._run(first.start())
    server._run(second.stop())
    read = Read(cluster, urls()[1])
    read.wait()
    cluster.transport.close()
    assert (read.data, cluster.proxies.asked) == (DATA, two_proxies.endpoint)


def test_a_token_stays_with_the_endpoint(server):
    """Where there is a token nobody else is asked, whatever the map says."""
    with DevCluster(targets=1, token="secret") as other:
        other._state.map = replace(other.map, proxies=(*other.map.proxies, *server.map.proxies))
        cluster = opened(other, SHORT, token="secret")
    before = server.requests.total()
    with pytest.raises(Unavailable):
        Read(cluster, urls()[0]).wait()
    cluster.transport.close()
    assert (server.requests.total(), cluster.proxies.asked) == (before, cluster.config.endpoint)


# ---- get-batches that bring nothing


def batch_of(cluster):
    batch = BatchRead(cluster, BatchForm())
    for url in urls():
        batch.add(url)
    return batch


def test_a_silent_batch_is_given_up(server):
    """Soon, and once: what it lacks is read one by one, and so is all that comes in the next time."""
    cluster = opened(server, read_timeout=1)
    fault = server.faults.add("delay", "batch", seconds=4)
    first = ended(batch_of(cluster))
    second = ended(batch_of(cluster))
    cluster.transport.close()
    assert (type(first.error), type(second.error), fault.struck) == (Unavailable, Unavailable, 1)
    assert (first.lacking(0), second.lacking(0), second.attempts) == (urls(), urls(), 0)


def test_batches_rest_only_for_a_while(server):
    """A cluster that has got over it is asked for batches again."""
    cluster = opened(server)
    cluster.rest_from_batches()
    assert cluster.batches_rest
    cluster._batches_from -= BATCHES_REST_S
    batch = ended(batch_of(cluster))
    cluster.transport.close()
    assert (batch.error, batch.lacking(0)) == (None, [])


# ---- listings


def listing(server, retry=QUICK):
    source = source_of("ais://b/", ClientConfig(server.endpoint, retry=retry))
    return [url.name for url in Listing.of([source], Meter())]


def names():
    return sorted(url.name for url in urls())


def test_a_listing_waits_for_the_end_of_a_rebalance(server):
    """While objects are moved the cluster leaves some out, and says so."""
    fault = server.faults.add("rebalance", times=30)
    assert (listing(server), fault.struck) == (names(), 30)


def test_a_rebalance_without_end(server):
    """Is an error that says so, within the deadline, and not a listing that lacks objects."""
    server.faults.add("rebalance")
    with pytest.raises(Unavailable, match="the cluster rebalances, and leaves out objects") as caught:
        listing(server, SHORT)
    assert caught.value.url == "ais://b"


def test_a_target_that_goes_while_the_bucket_is_listed(server):
    """The listing is made again until all targets are back."""
    server.faults.add("delay", "list", times=1, seconds=1)
    going, coming = threading.Timer(0.5, server.expel, [0]), threading.Timer(2, server.readmit, [0])
    going.start()
    coming.start()
    found = listing(server)
    going.join()
    coming.join()
    assert (found, server.requests["list"] > 1) == (names(), True)


def test_a_target_that_stays_away_while_the_bucket_is_listed(server):
    """Is an error, also of a listing whose pages are handed on as they come."""
    server.faults.add("delay", "list", times=1, seconds=1)
    patience = replace(QUICK, deadline=2.5)
    going = threading.Timer(0.5, server.expel, [0])
    going.start()
    with pytest.raises(Unavailable, match="a target left or joined the cluster meanwhile"):
        list(listed(source_of("ais://b/", ClientConfig(server.endpoint, retry=patience))))
    going.join()
    with pytest.raises(Unavailable, match="a target left or joined the cluster meanwhile"):
        listing(server, patience)


def test_workers_know_what_their_parent_knew(server):
    """A worker that is forked while a target is away waits for its objects, as its parent would."""
    config = ClientConfig(server.endpoint, retry=QUICK)
    dataset = AISIterDataset("ais://b/", config=config)
    assert len(dataset) == len(urls())
    server.expel(0)
    timer = threading.Timer(AWAY_S + 2, server.readmit, [0])  # workers take a moment to start
    timer.start()
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    found = dict(loader)
    timer.join()
    assert found == {url.name: DATA for url in urls()}
