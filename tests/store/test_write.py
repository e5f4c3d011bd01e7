"""Writing an object: what was written is there, whole, or an error names the object."""

from __future__ import annotations

import random

import pytest

from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.model.errors import BucketNotFound, Denied, StoreError, Unavailable
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.engine import CurlTransport
from aisdatapipes.store.read import Read
from aisdatapipes.store.threads import ThreadTransport
from aisdatapipes.store.write import Write

QUICK = RetryPolicy(attempts=6, first_delay=0.01, max_delay=0.05, deadline=20)
# Nothing; a little; more than a server reads of a body it does not want (256 KiB); more than libcurl sends unasked (1 MiB).
SIZES = [0, 1, 300_000, 5_000_000]


def content(size):
    return random.Random(size).randbytes(size)


@pytest.fixture(params=[CurlTransport, ThreadTransport], ids=["curl", "threads"])
def cluster_at(request):
    """A maker of clusters on either transport, which are closed at the end."""
    made = []

    def make(endpoint, **options):
        config = ClientConfig(endpoint, retry=QUICK, **options)
        made.append(Cluster(config, request.param(config)))
        return made[-1]

    yield make
    for cluster in made:
        cluster.transport.close()


def read(cluster, url):
    one = Read(cluster, url)
    one.wait()
    return one.data


@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read(bucket, cluster_at, size):
    """By the endpoint's redirect to the owner, whatever the size; again over what was there."""
    cluster = cluster_at(bucket.endpoint)
    url = AISURL.parse(f"{bucket.url}a b/#1%20?.npz")
    for data in (b"before", content(size)):
        Write(cluster, url, data).wait()
        assert read(cluster, url) == data


@pytest.mark.parametrize(
    ("fault", "operation", "options"),
    [
        ("reset", "put", {}),
        ("status", "put", {"status": 503}),
        ("status", "redirect", {"status": 429}),
        ("cut", "put", {}),
    ],
    ids=str,
)
def test_a_write_is_made_again(embedded_bucket, cluster_at, fault, operation, options):
    """What may pass passes: the object is there whole."""
    faults = embedded_bucket.server.embedded.faults
    url = AISURL.parse(f"{embedded_bucket.url}o")
    try:
        struck = faults.add(fault, operation, times=2, **options)
        cluster = cluster_at(embedded_bucket.endpoint)
        Write(cluster, url, content(1000)).wait()
        assert struck.struck >= 1
        assert read(cluster, url) == content(1000)
    finally:
        faults.clear()


def test_a_write_that_cannot_be_is_an_error(bucket, cluster_at):
    """No bucket, nobody there, a name that no object can have: the message names the object."""
    cluster = cluster_at(bucket.endpoint)
    for where, error in (("ais://no-such-bucket-of-ours/o", BucketNotFound), (f"{bucket.url}folder/", StoreError)):
        with pytest.raises(error, match="cannot write") as caught:
            Write(cluster, AISURL.parse(where), b"1").wait()
        assert where in str(caught.value)
    with pytest.raises(Unavailable, match="cannot write"):
        Write(cluster_at("http://127.0.0.1:9"), AISURL.parse("ais://b/o"), b"1").wait()


def test_a_write_needs_the_token(embedded_server, cluster_at):
    """It goes to the endpoint alone, and without one the write is denied."""
    from aisdatapipes.devserver import DevCluster

    with DevCluster(targets=2, token="T0KEN") as guarded:
        guarded.create_bucket("b")
        url = AISURL.parse("ais://b/o")
        with pytest.raises(Denied):
            Write(cluster_at(guarded.endpoint), url, b"1").wait()
        cluster = cluster_at(guarded.endpoint, token="T0KEN")
        Write(cluster, url, b"1").wait()
        assert read(cluster, url) == b"1"
