"""Shards that are written straight into a bucket: whole or not there, full as was said, and indexed where that can be."""

from __future__ import annotations

import gc
import io
import logging
import tarfile
import tracemalloc

import pytest
from aistore.sdk import Client

from aisdatapipes import (
    AISShardMapDataset,
    AISShardReader,
    BucketNotFound,
    ConfigError,
    Denied,
    InvalidURL,
    ShardWriter,
    Unavailable,
)
from aisdatapipes.devserver import DevCluster, DevProcess
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shardindex import Lack, server_indexes
from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.write import read_object

QUICK = RetryPolicy(attempts=2, first_delay=0.01, max_delay=0.02, deadline=20)


def sample(number, size=10):
    return {"__key__": f"{number:04d}", "bin": bytes([number % 256]) * size, "cls": number}


def names_in(bucket):
    return sorted(entry.name for entry in bucket.sdk.list_all_objects())


def shard_sizes(bucket):
    config = ClientConfig(bucket.endpoint)
    return [len(read_object(AISURL.parse(f"{bucket.url}{name}"), config)) for name in names_in(bucket)]


def writer(bucket, **options):
    return ShardWriter(f"{bucket.url}train-%03d.tar", config=bucket.server.config, **options)


def samples_of(bucket, **options):
    return [(key, dict(fields)) for key, fields in AISShardReader(bucket.url, config=bucket.server.config, **options)]


def test_samples_come_back(bucket):
    """In order, however they are read, with at most maxcount in a shard."""
    with writer(bucket, maxcount=4) as written:
        for number in range(10):
            written.write(sample(number))
    expected = [(f"{n:04d}", {"bin": bytes([n]) * 10, "cls": b"%d" % n}) for n in range(10)]
    assert expected == samples_of(bucket) == samples_of(bucket, index="off")
    names = ["train-000.tar", "train-001.tar", "train-002.tar"]
    assert names == names_in(bucket) == [url.name for url in written.shards]
    assert shard_sizes(bucket) == [url.size for url in written.shards]


def test_the_cluster_has_an_index_at_the_end(bucket):
    """Of every shard, long and foreign names too, so that samples are items."""
    names = ["plain", "d/" * 60 + "long", "größe", "日本" * 20]
    with writer(bucket, maxcount=2) as written:
        for name in names:
            written.write({"__key__": name, "txt": name})
    found = server_indexes(written.shards, Clusters(bucket.server.config), Meter())
    assert [] == [index for index in found if isinstance(index, Lack)]
    dataset = AISShardMapDataset(bucket.url, index="server", config=bucket.server.config)
    assert [(name, name.encode()) for name in names] == [(key, fields["txt"]) for key, fields in dataset]


def test_without_an_index(bucket):
    """Nothing is asked of the cluster but to store."""
    with writer(bucket, index=False) as written:
        written.write(sample(1))
    assert [Lack.ABSENT] == server_indexes(written.shards, Clusters(bucket.server.config), Meter())


def test_a_shard_is_never_larger_than_maxsize(bucket):
    """Headers and end are counted; a sample that fits exactly fits."""
    of_one = 2 * 512 + 512 + 512 + 1024  # two headers, two contents, the end
    with writer(bucket, maxsize=of_one + 2048) as written:
        for number in range(5):
            written.write(sample(number))
    assert [of_one + 2048, of_one + 2048, of_one] == shard_sizes(bucket)
    with ShardWriter(f"{bucket.url}one-%d.tar", maxsize=of_one, config=bucket.server.config) as written:
        written.write(sample(1))
        with pytest.raises(
            ConfigError, match=rf"sample '0002' makes a shard of {of_one + 512} bytes, more than maxsize={of_one}"
        ):
            written.write(sample(2, size=513))
        written.write(sample(3))
    assert [("0001", 1), ("0003", 3)] == [
        (key, int(fields["cls"])) for key, fields in samples_of(bucket, name_filter="^one-")
    ]


def test_the_same_samples_are_the_same_shards(bucket):
    """Byte for byte."""
    for prefix in "ab":
        with ShardWriter(
            f"{bucket.url}{prefix}-%d.tar", maxcount=2, start_shard=7, config=bucket.server.config
        ) as written:
            for number in range(3):
                written.write(sample(number))
    config = bucket.server.config
    a, b = ([read_object(AISURL.parse(f"{bucket.url}{p}-{n}.tar"), config) for n in (7, 8)] for p in "ab")
    assert a == b
    with tarfile.open(fileobj=io.BytesIO(a[0])) as tar:
        assert {0} == {one.mtime for one in tar}


def test_a_block_that_raises_leaves_whole_shards_only(bucket):
    """The one that was begun is not there; those before it are."""

    written = writer(bucket, maxcount=2)

    def write_three():
        with written:
            for number in range(3):
                written.write(sample(number))
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_three()
    assert ["train-000.tar"] == names_in(bucket)
    assert ["0000", "0001"] == [key for key, _ in samples_of(bucket)]
    with pytest.raises(ConfigError, match="it is closed"):
        written.write(sample(4))


def test_nothing_was_written(bucket):
    """Then there is no shard."""
    with writer(bucket) as written:
        pass
    assert ([], []) == (written.shards, names_in(bucket))


def test_a_sample_that_is_refused_is_not_there(bucket):
    """Not even half of it, and the writer goes on."""
    with writer(bucket) as written:
        written.write(sample(1))
        with pytest.raises(ConfigError, match="sample '0002', field 'jpg'"):
            written.write({"__key__": "0002", "cls": 2, "jpg": object()})
        with pytest.raises(ConfigError, match="sample '0001': this shard has a sample of that key"):
            written.write(sample(1))
        written.write(sample(3))
    assert ["0001", "0003"] == [key for key, _ in samples_of(bucket)]


def test_closing_is_idempotent(bucket):
    """And closes for good."""
    written = writer(bucket)
    written.write(sample(1))
    written.close()
    written.close()
    assert ["train-000.tar"] == names_in(bucket)
    with pytest.raises(ConfigError, match="it is closed"):
        written.write(sample(2))


def test_a_writer_that_was_forgotten(bucket):
    """It says what is lost with it."""
    written = writer(bucket, maxcount=2)
    for number in range(3):
        written.write(sample(number))
    with pytest.warns(ResourceWarning, match="was not closed: its last 1 samples are lost"):
        del written


def test_a_bucket_that_is_not_there(server):
    """It is named when the first shard is stored; nothing is asked before."""
    written = ShardWriter("ais://no-such-bucket-of-ours/%d.tar", maxcount=1, config=server.config)
    written.write(sample(1))
    with pytest.raises(BucketNotFound, match=r"no-such-bucket-of-ours/0\.tar: cannot write"):
        written.write(sample(2))
    with pytest.raises(BucketNotFound):
        written.close()
    with pytest.raises(RuntimeError), written:
        raise RuntimeError  # give up


@pytest.mark.parametrize("fault", ["reset", "cut", "status"])
def test_a_cluster_in_trouble(embedded_bucket, fault):
    """What passes passes; else it is an error, nothing half-written is there, and the same sample can be tried again."""
    faults = embedded_bucket.server.embedded.faults
    config = ClientConfig(embedded_bucket.endpoint, retry=QUICK)
    options = {"status": 503} if fault == "status" else {}
    try:
        with ShardWriter(f"{embedded_bucket.url}%d.tar", maxcount=1, config=config) as written:
            faults.add(fault, "put", times=1, **options)
            written.write(sample(0))
            written.write(sample(1))
            faults.add("status", "put", times=2, status=503)
            with pytest.raises(Unavailable, match=r"1\.tar: cannot write"):
                written.write(sample(2))
            assert ["0.tar"] == names_in(embedded_bucket)
            written.write(sample(2))
    finally:
        faults.clear()
    assert ["0000", "0001", "0002"] == [key for key, _ in samples_of(embedded_bucket)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_cluster_that_does_not_index(embedded_bucket, status, caplog):
    """It is no error, and the log says so."""
    faults = embedded_bucket.server.embedded.faults
    try:
        refused = faults.add("status", "index-shard", status=status)
        with caplog.at_level(logging.INFO, "aisdatapipes"), writer(embedded_bucket) as written:
            written.write(sample(1))
    finally:
        faults.clear()
    assert (1, True) == (refused.struck, "have no index of the cluster's" in caplog.text)
    assert ["0001"] == [key for key, _ in samples_of(embedded_bucket)]


def test_a_token(embedded_server):
    """Without it nothing is stored; with it shards are, and have an index."""
    with DevCluster(targets=2, token="T0KEN") as guarded:
        guarded.create_bucket("b")
        with pytest.raises(Denied), ShardWriter("ais://b/%d.tar", config=guarded.endpoint) as written:
            written.write(sample(1))
        config = ClientConfig(guarded.endpoint, token="T0KEN")
        with ShardWriter("ais://b/%d.tar", config=config) as written:
            written.write(sample(1))
        assert 1 == len(AISShardReader("ais://b/", config=config, index="server"))


def test_memory_is_one_shard():
    """What was stored is let go at once, not when the garbage collector comes by."""
    shard, content = 4 << 20, bytes(1 << 18)
    with DevProcess() as cluster:  # another process, so that what it keeps is not counted here
        Client(cluster.endpoint).bucket("b").create()
        gc.disable()
        tracemalloc.start()
        try:
            with ShardWriter("ais://b/%d.tar", maxsize=shard, config=cluster.endpoint) as written:
                for number in range(80):
                    written.write({"__key__": str(number), "bin": content})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert 5 < len(written.shards)
    assert peak < 1.8 * shard  # the buffer is an eighth larger than the shard, and a sample is copied on its way


@pytest.mark.parametrize(("pattern", "options", "says"), [
    ("ais://b/train.tar", {}, "is no pattern of shards"),
    ("ais://b/train-%s-%d.tar", {}, "is no pattern of shards"),
    ("ais://b/train-%x%%.tar.gz", {}, "plain tars, whose names end in .tar"),
    ("ais://b/train-%z.tar", {}, "is no pattern of shards"),
    ("ais://b/%%-train.tar", {}, "is no pattern of shards"),
    (3, {}, "is no pattern of shards"),
    ("http://h:1/v1/objects/b/%d.tar?provider=ais", {}, "give the endpoint as config="),
    ("ais://b/%d.tar", {"maxcount": 0}, "maxcount must be 1 or more, not 0"),
    ("ais://b/%d.tar", {"maxsize": "1 GB"}, "maxsize must be 1 or more, not '1 GB'"),
    ("ais://b/%d.tar", {"start_shard": -1}, "start_shard must be 0 or more, not -1"),
    ("ais://b/%d.tar", {"config": ""}, "no endpoint"),
])  # fmt: skip
def test_arguments_that_cannot_work(pattern, options, says, monkeypatch):
    """They are refused at construction, by name."""
    monkeypatch.delenv("AIS_ENDPOINT", raising=False)
    with pytest.raises(ConfigError) as caught:
        ShardWriter(pattern, **{"config": "localhost:1", **options})
    assert says in str(caught.value)


def test_a_pattern_that_is_no_url():
    """As everywhere else."""
    with pytest.raises(InvalidURL, match="no scheme"):
        ShardWriter("bucket/%d.tar", config="localhost:1")
