"""Reads from a cluster that misbehaves: the right bytes, or an error that names the object, in bounded time."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import xxhash

from aisdatapipes.devserver import DevCluster
from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.model.errors import (
    BucketNotFound,
    CorruptBody,
    Denied,
    ObjectNotFound,
    StoreError,
    Truncated,
    Unavailable,
)
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.answers import error_of
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import object_size
from aisdatapipes.store.part import PartInMemory
from aisdatapipes.store.pool import new_transport
from aisdatapipes.store.read import Read
from aisdatapipes.store.transport import Reply

DATA = bytes(range(256)) * 40
QUICK = RetryPolicy(attempts=6, first_delay=0.01, max_delay=0.05, deadline=10)


@pytest.fixture
def faults(embedded_server):
    yield embedded_server.embedded.faults
    embedded_server.embedded.faults.clear()


@pytest.fixture
def place(embedded_bucket, faults):
    """(cluster, URL of an object of it)."""
    embedded_bucket.put("o", DATA)
    config = ClientConfig(embedded_bucket.endpoint, retry=QUICK, read_timeout=2)
    cluster = Cluster(config, new_transport(config))
    cluster.open()
    yield cluster, AISURL.parse(f"{embedded_bucket.url}o")
    cluster.transport.close()


def read_of(place, **options):
    """A read that goes to the owner first, as all reads do."""
    cluster, url = place
    return Read(cluster, url, *cluster.owners_of([url]), **options)


def part_of(place, start, length):
    cluster, url = place
    return PartInMemory(cluster, url, *cluster.owners_of([url]), start, memoryview(bytearray(length)))


def data_of(cluster, url, **options):
    read = read_of((cluster, url), **options)
    read.wait()
    return read.data


ONCE = [
    ("status", {"status": 503, "retry_after": 0}),
    ("status", {"status": 503}),
    ("status", {"status": 429, "retry_after": 1}),
    ("status", {"status": 500}),
    ("status", {"status": 409}),
    ("status", {"status": 400, "message": "t[x]: failed to EC-recover b/o, err: failed to read a replica"}),
    ("reset", {}),
    ("reset", {"after": 100}),
    ("cut", {"after": 0}),
    ("cut", {"after": 1000}),
    ("corrupt", {}),
    ("wrong_length", {"by": 1}),
    ("wrong_length", {"by": -1}),
    ("idle_close", {}),
    ("refuse_direct", {}),
]


@pytest.mark.parametrize(("fault", "options"), ONCE, ids=str)
def test_what_passes_is_not_seen(place, faults, fault, options):
    """After a few misbehaviours of a target the right bytes are there, and the tries are counted."""
    struck = faults.add(fault, times=3, **options)
    read = read_of(place)
    read.wait()
    assert (read.data, struck.struck >= 1) == (DATA, True)


@pytest.mark.parametrize(
    ("fault", "options", "error", "status"),
    [
        ("status", {"status": 503}, Unavailable, 503),
        ("status", {"status": 429, "retry_after": 0}, Unavailable, 429),
        ("status", {"status": 403}, Denied, 403),
        ("status", {"status": 400}, StoreError, 400),
        ("status", {"status": 501}, StoreError, 501),
        ("reset", {}, Unavailable, None),
        ("cut", {"after": 10}, Truncated, None),
        ("corrupt", {}, CorruptBody, 200),
    ],
)
def test_what_stays_is_named(place, faults, fault, options, error, status):
    """A misbehaviour that stays is the error of its kind, with the object, the status and the number of tries."""
    faults.add(fault, **options)
    read = read_of(place)
    with pytest.raises(error) as caught:
        read.wait()
    assert type(caught.value) is error
    assert (caught.value.url, caught.value.status, caught.value.attempts) == (place[1], status, read.attempts)
    assert str(place[1]) in str(caught.value)


def test_the_deadline_ends_it(place, faults):
    """However many attempts are allowed, the deadline ends them."""
    cluster, url = place
    cluster.config = replace(cluster.config, retry=RetryPolicy(10**6, 0.01, 0.02, deadline=0.5))
    faults.add("status", status=503)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        data_of(cluster, url)
    assert time.monotonic() - began < 15


def test_a_range(place, faults):
    """A part is the part, also after misbehaviour, and knows the size of the whole."""
    for fault in ("reset", "cut"):
        faults.add(fault, times=2)
        part = part_of(place, 100, 50)
        part.wait()
        assert (bytes(part.memory), part.total) == (DATA[100:150], len(DATA))
        faults.clear()
    part = part_of(place, len(DATA) - 5, 50)
    part.wait()
    assert bytes(part.memory[: part.held]) == DATA[-5:]


def test_redirects_lead_nowhere_else(place, faults):
    """A redirect to a server that is not of the cluster is not followed."""
    cluster, url = place
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        cluster._direct_allowed = False
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        cluster.config = replace(cluster.config, retry=RetryPolicy(2, 0.01, 0.01, 10))
        faults.add("redirect_elsewhere", url=address)
        with pytest.raises(Unavailable, match="no node of this cluster"):
            data_of(cluster, url)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_a_redirect_loop_ends(place, faults):
    """A cluster that sends one round in circles is unavailable."""
    cluster, url = place
    cluster._direct_allowed = False
    faults.add("redirect_loop")
    with pytest.raises(Unavailable, match="redirects in a row"):
        data_of(cluster, url)


def test_refused_directly_means_the_proxy_for_good(place, faults, embedded_server):
    """Where owners do not talk to strangers the endpoint is asked from then on."""
    fault = faults.add("refuse_direct")
    for _ in range(3):
        assert data_of(*place) == DATA
    assert fault.struck == 1


def test_a_stale_map_is_mended(embedded_bucket, embedded_server, faults):
    """With an old map every object is read all the same."""
    objects = embedded_bucket.fill({f"o{i}": f"{i}".encode() for i in range(30)})
    faults.add("stale_map", times=1)
    config = ClientConfig(embedded_bucket.endpoint, retry=QUICK)
    cluster = Cluster(config, new_transport(config))
    cluster.open()
    found = {name: data_of(cluster, AISURL.parse(embedded_bucket.url + name)) for name in objects}
    cluster.transport.close()
    assert found == objects


def test_a_target_that_dies_and_comes_back(embedded_bucket, embedded_server):
    """Reads wait for a target that is restarted."""
    objects = embedded_bucket.fill({f"o{i}": f"{i}".encode() for i in range(12)})
    config = ClientConfig(embedded_bucket.endpoint, retry=RetryPolicy(1000, 0.01, 0.1, 30))
    cluster = Cluster(config, new_transport(config))
    cluster.open()
    embedded_server.embedded.kill(0)
    timer = threading.Timer(0.5, embedded_server.embedded.revive, [0])
    timer.start()
    found = {name: data_of(cluster, AISURL.parse(embedded_bucket.url + name)) for name in objects}
    timer.join()
    cluster.transport.close()
    assert found == objects


def test_what_is_missing(place):
    """A missing object and a missing bucket are told apart, by reading and by asking for the size."""
    cluster, url = place
    for ask in (data_of, object_size):
        with pytest.raises(ObjectNotFound):
            ask(cluster, AISURL.parse(f"{url}-missing"))
        with pytest.raises(BucketNotFound):
            ask(cluster, AISURL.parse("ais://no-such-bucket/o"))
    assert object_size(cluster, url) == len(DATA)


NAMES = ["a//b", "%2F", "a b", "a#b?c&d=e", "é漢", "~!$&'()*+,;=:@", "\udcff\udcfe"]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_odd_names(embedded_bucket, embedded_server, name, direct):
    """Any name is read, straight from its owner and by the endpoint's redirect."""
    embedded_server.embedded.put(embedded_bucket.name, name, name.encode("utf-8", "surrogateescape"))
    config = ClientConfig(embedded_bucket.endpoint, retry=RetryPolicy(attempts=2, first_delay=0.01))
    cluster = Cluster(config, new_transport(config))
    cluster.open()
    cluster._direct_allowed = direct
    read = Read(cluster, AISURL.parse(embedded_bucket.url + name))
    read.wait()
    cluster.transport.close()
    assert (read.data, read.attempts) == (name.encode("utf-8", "surrogateescape"), 1)


def test_nobody_listens():
    """An endpoint on which nobody listens is given up within 15 s, by name, whatever the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    config = ClientConfig(endpoint)
    cluster = Cluster(config, new_transport(config))
    began = time.monotonic()
    with pytest.raises(Unavailable, match="is the cluster up") as caught:
        cluster.open()
    cluster.transport.close()
    assert (caught.value.url, time.monotonic() - began < 15) == (endpoint, True)


class Elsewhere(BaseHTTPRequestHandler):
    """A server that is no cluster."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_):
        pass


def test_not_a_cluster():
    """A server that answers something else is not taken for a cluster, and is not asked for long."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        cluster = opened(f"http://127.0.0.1:{server.server_port}", RetryPolicy())
        with pytest.raises(StoreError, match="is this the address of an AIStore cluster") as caught:
            cluster.open()
        cluster.transport.close()
        server.shutdown()
        thread.join()
    assert caught.value.attempts == 3


def test_a_map_that_breaks_on_the_way(embedded_server, faults):
    """It is asked for again."""
    faults.add("wrong_length", "map", by=-1, times=2)
    cluster = opened(embedded_server.endpoint, QUICK)
    cluster.open()
    cluster.transport.close()
    assert cluster.origins == {node.url for node in (*embedded_server.embedded.map.targets,)} | {
        cluster.config.endpoint
    }


def test_no_target_that_could_be_read_from():
    """A cluster whose targets are all in maintenance is waited for as long as one that is not there."""
    with DevCluster(targets=2) as server:
        server.maintain(0)
        server.maintain(1)
        cluster = opened(server.endpoint, QUICK)
        with pytest.raises(Unavailable, match="no target that is not in maintenance") as caught:
            cluster.open()
        assert caught.value.attempts == QUICK.attempts
        server.maintain(0, on=False)
        cluster.open()
        cluster.transport.close()


def opened(endpoint, retry):
    config = ClientConfig(endpoint, retry=retry)
    return Cluster(config, new_transport(config))


def test_a_map_may_change_while_owners_are_computed(place, embedded_server):
    """Placement is always computed with the targets and the digests of one map."""
    cluster, url = place
    full = embedded_server.embedded.map
    maps = [replace(full, targets=full.targets[:n]) for n in (1, 3)]
    ends, interval = threading.Event(), sys.getswitchinterval()

    def flip():
        while not ends.is_set():
            for one in maps:
                cluster._take(one)

    thread = threading.Thread(target=flip)
    thread.start()
    sys.setswitchinterval(1e-6)
    try:
        known = {node.url for node in full.targets}
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert cluster.owners_of([url])[0] in known
    finally:
        sys.setswitchinterval(interval)
        ends.set()
        thread.join()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"message": "caf\xe9"}', "caf"),
        (b'{"message": "why", "tcode": "X"}', "why"),
        (b"<html>\n  busy</html>", "<html> busy</html>"),
        (b"", "the cluster answered 503"),
        (b'{"message": 3}', '{"message": 3}'),
    ],
)
def test_words_of_the_cluster(body, says):
    """Whatever the body of a refusal is, it is a named error with its words."""
    error = error_of(Reply(503, b"", body), "ais://b/o", "cannot read", 1)
    assert (type(error), error.status, says in str(error)) == (Unavailable, 503, True)


@pytest.mark.parametrize(
    ("reason", "kind"), [("no metafile", ObjectNotFound), ("connection reset by peer", Unavailable)]
)
def test_the_reason_is_heard_behind_a_long_name(reason, kind):
    """What is cut out of many words is their middle."""
    words = f"t[x]: failed to EC-recover ais://b/{'n' * 1024}, err: {reason}"
    error = error_of(Reply(400, b"", json.dumps({"message": words}).encode()), "ais://b/o", "cannot read", 1)
    assert (type(error), reason in str(error), len(str(error)) < 700) == (kind, True, True)


def test_the_checksum_is_of_the_content(place):
    """The checksum that a read keeps is the xxh64 of the whole."""
    read = part_of(place, 0, 10)
    read.wait()
    assert read.checksum == xxhash.xxh64_hexdigest(DATA)
