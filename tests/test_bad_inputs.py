"""Inputs that cannot work get an error that says which, what, and what to do; at construction where possible."""

from __future__ import annotations

import secrets
import time

import pytest
import urllib3
from aistore.sdk.dataset.data_shard import DataShard
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISBatchIterDataset,
    AISFileLister,
    AISFileLoader,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISShardMapDataset,
    AISShardReader,
    AISSourceLister,
    BucketNotFound,
    ClientConfig,
    ConfigError,
    CorruptShard,
    Denied,
    FetchPlan,
    InvalidURL,
    Manifest,
    ObjectNotFound,
    RetryPolicy,
    StoreError,
    Unavailable,
)
from aisdatapipes.devserver import DevCluster
from aisdatapipes.store.answers import error_of
from aisdatapipes.store.transport import Reply
from tests.devserver.conftest import tar_of

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there
PATIENCE = 15.0  # seconds: what the first contact with an endpoint may take


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("bucket/object", "no scheme"),
        ("ftp://bucket/object", "unknown provider 'ftp'"),
        ("ais://", "the bucket is empty"),
        ("ais:///object", "the bucket is empty"),
        ("ais://buc ket/o", "no bucket name"),
        ("ais://.hidden/o", "no bucket name"),
        ("ais://@uuid", "a namespace is followed by a bucket"),
        ("http://host:1/other/path", "not an object of AIStore"),
    ],
)
@pytest.mark.parametrize("pipe", [AISFileLister, AISFileLoader])
def test_urls_that_cannot_work_are_refused_at_construction(pipe, url, what):
    """The message quotes the URL and says what is wrong."""
    with pytest.raises(InvalidURL, match=what) as caught:
        pipe([url], "localhost:1")
    assert url in str(caught.value)


@pytest.mark.parametrize("pipe", [AISFileLister, AISFileLoader])
@pytest.mark.parametrize("source", [None, 3, b"ais://b/", [], ()])
def test_sources_that_are_none_are_refused_at_construction(pipe, source):
    """None, numbers, bytes, and empty lists are no sources of URLs."""
    with pytest.raises(ConfigError, match=pipe.__name__):
        pipe(source, "localhost:1")


@pytest.mark.parametrize("item", [None, 3, b"ais://b/o"])
def test_items_of_a_pipe_that_are_no_urls_are_named_when_reached(item):
    """What cannot be seen at construction is said when it is reached."""
    with pytest.raises(InvalidURL, match="a URL is a text"):
        list(AISFileLoader(IterableWrapper([item]), "localhost:1"))


@pytest.mark.parametrize("length", [-2, "x", None])
@pytest.mark.parametrize("pipe", [AISFileLister, AISFileLoader])
def test_negative_lengths_are_refused(pipe, length):
    """A length is 0 or more, or -1 for unknown."""
    with pytest.raises(ConfigError, match="length must be"):
        pipe(["ais://b/o"], "localhost:1", length)


@pytest.mark.parametrize("endpoint", ["", "ftp://h", "http://", "http://h:port", "http://user:pw@h", 3])
def test_endpoints_that_cannot_work_are_refused(endpoint, monkeypatch):
    """An endpoint is host and port, without a password in it."""
    monkeypatch.delenv("AIS_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match="endpoint"):
        AISFileLister(["ais://b/"], endpoint)


@pytest.mark.parametrize("make", [AISIterDataset, AISMapDataset, AISShardReader, AISSourceLister])
@pytest.mark.parametrize("sources", [[], (), None, 3, [None]])
def test_source_lists_that_cannot_work_are_refused(make, sources):
    """Empty lists and what is no source, for every class."""
    with pytest.raises(ConfigError):
        make(sources)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"even": "x"}, {"seed": 1.5}, {"world": 1}, {"on_error": "x"}, {"max_errors": -1}, {"name_filter": 3},
     {"name_filter": "("}, {"fetch": "get"}, {"fetch": {"width": 3}}, {"config": 5}, {"config": "ftp://h"}],
)  # fmt: skip
def test_options_of_datasets_are_checked(options):
    """Each wrong option is an error at construction."""
    with pytest.raises(ConfigError):
        AISIterDataset("ais://b/", **{"config": ClientConfig(NOBODY), **options})


@pytest.mark.parametrize("make", [AISIterDataset, AISMapDataset, Manifest.of])
@pytest.mark.parametrize("prefix_map", ["a", ["a"]])
def test_prefixes_belong_to_sources(make, prefix_map):
    """What is no mapping says of no source what is wanted."""
    with pytest.raises(ConfigError, match="prefix_map is a dict"):
        make("ais://b/", prefix_map, config=ClientConfig(NOBODY))


@pytest.mark.parametrize("options", [{"fields": 5}, {"fields": "jpg"}, {"missing": "x"}, {"index": "x"}, {"decode": 5}])
@pytest.mark.parametrize("make", [AISShardReader, AISShardMapDataset])
def test_options_of_shard_datasets_are_checked(make, options):
    """Each wrong option is an error before anything is asked of the cluster."""
    with pytest.raises(ConfigError):
        make("ais://b/", config=ClientConfig(NOBODY), **options)


def test_whatever_says_where_the_cluster_is(bucket):
    """An endpoint, a config, or a client of the SDK, for every dataset."""
    shard = tar_of({"1.cls": b"1"})
    bucket.put("a.tar", shard)
    bucket.put("b.tar", tar_of({"1.jpg": b"J"}))
    url, other = f"{bucket.url}a", f"{bucket.url}b"
    for where in (bucket.endpoint, ClientConfig(bucket.endpoint), bucket.server.client()):
        assert [bytes(data) for _, data in AISIterDataset(url, config=where)] == [shard]
        assert len(AISMapDataset(url, config=where)) == 1
        assert [key for key, _ in AISShardReader(url, config=where)] == ["1"]
        joined = AISShardMapDataset(url, config=where, join=other, index="client")
        assert joined[0] == ("1", {"cls": b"1", "jpg": b"J"})


@pytest.mark.parametrize("make", [lambda: FetchPlan(verify="no"), lambda: ClientConfig(NOBODY, verify="no")])
def test_a_text_is_neither_true_nor_false(make):
    """``verify="no"`` would be true."""
    with pytest.raises(ConfigError, match="True or False, not 'no'"):
        make()


def test_nobody_listens(monkeypatch):
    """An endpoint that nobody listens on is named within 15 s, whatever the deadline."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9") as caught:
        list(AISFileLoader(["ais://b/o"], NOBODY))
    assert "is the cluster up" in str(caught.value)
    assert time.monotonic() - began < PATIENCE


def test_missing_bucket_object_and_member_are_told_apart(bucket):
    """Each has its class, and its URL in the message."""
    with pytest.raises(BucketNotFound, match="ais://nosuchbucket"):
        list(AISFileLister("ais://nosuchbucket/", bucket.endpoint))
    with pytest.raises(ObjectNotFound, match="/gone"):
        list(AISFileLoader(bucket.url + "gone", bucket.endpoint))


def erasure_coded(server):
    """A new bucket whose objects lie in slices or copies on other targets too."""
    coded = {"enabled": True, "data_slices": 1, "parity_slices": 1, "objsize_limit": -1}
    name = f"coded-{secrets.token_hex(4)}"
    control = {"action": "create-bck", "value": {"ec": coded}}
    with urllib3.PoolManager() as http:
        asked = http.request("POST", f"{server.endpoint}/v1/buckets/{name}?provider=ais", json=control)
    assert asked.status == 200
    return server.client().bucket(name)


def test_what_an_erasure_coded_bucket_lacks_is_missing(server):
    """Though the cluster says 400, for it could not be made of copies that nobody has."""
    sdk = erasure_coded(server)
    try:
        sdk.object("here").get_writer().put_content(b"1")
        names = ["here", "gone"]
        for strategy in ("get", "batch", "ranges", "auto"):
            options = {"config": server.config, "fetch": FetchPlan(strategy)}
            dataset = AISMapDataset(sdk.objects(obj_names=names), **options)
            with pytest.raises(ObjectNotFound, match="/gone"):
                dataset.__getitems__([0, 1])
            kept = AISIterDataset(sdk.objects(obj_names=names), on_error="skip", **options)
            assert (dict(kept), kept.stats()["skipped"]) == ({"here": b"1"}, 1)
        with pytest.raises(ObjectNotFound, match=r"/gone\.tar"):
            list(AISFileLoader([f"ais://{sdk.name}/gone.tar"], server.endpoint).ais_read_shards())
    finally:
        sdk.delete(missing_ok=True)


def test_a_missing_member_is_named(bucket):
    """A sample without a field it must have: the shard, the sample, the field, and what else could be done."""
    bucket.put("s.tar", tar_of({"1.jpg": b"J", "1.cls": b"1", "2.cls": b"2"}))
    samples = listed(bucket.url, bucket.server.config).ais_read_shards(fields=("jpg", "cls"), missing="error")
    with pytest.raises(CorruptShard, match=r"sample '2' has no field 'jpg'.*missing='zero'") as caught:
        list(samples)
    assert caught.value.url == bucket.url + "s.tar"


def test_a_missing_shard_of_a_stream_is_named(bucket, caplog):
    """A named shard that is not there is an error; a prefix of none is an end that is said."""
    bucket.put("s.tar", tar_of({"1": b"1"}))
    shards = [bucket.sdk.object("s.tar"), bucket.sdk.object("gone.tar")]
    with pytest.raises(ObjectNotFound, match=r"/gone\.tar") as caught:
        list(AISMultiShardStream(shards))
    assert (caught.value.url, caught.value.status) == (bucket.url + "gone.tar", 404)
    assert not list(AISMultiShardStream([shards[0], DataShard(bucket.endpoint, bucket.name, prefix="none")]))
    assert "none ended after 0 members" in caplog.text


# ---- what the endpoint does not take


@pytest.fixture(scope="module")
def guarded():
    """A cluster that wants a token and speaks plain HTTP."""
    with DevCluster(targets=2, token="right") as cluster:
        cluster.create_bucket("b")
        cluster.put("b", "o", b"1")
        yield cluster


@pytest.fixture(scope="module")
def secure():
    """A cluster that speaks HTTPS."""
    with DevCluster(targets=2, tls=True) as cluster:
        cluster.create_bucket("b")
        cluster.put("b", "o", b"1")
        yield cluster


def listed(url, config):
    return IterableWrapper([url]).list_files_by_ais(url=config).sharding_filter().load_files_by_ais(url=config)


def of_chain(config, workers):
    return DataLoader(listed("ais://b/", config).map(name_of), batch_size=None, num_workers=workers)


def of_loader_alone(config, workers):
    return DataLoader(AISFileLoader(["ais://b/o"], config).map(name_of), batch_size=None, num_workers=workers)


def of_dataset(config, workers):
    return DataLoader(AISIterDataset("ais://b/", config=config), batch_size=None, num_workers=workers)


def name_of(pair):
    return pair[0].name


# One of them with a worker: torch takes five seconds to end one whose dataset has raised.
reading = pytest.mark.parametrize(
    ("read", "workers"), [(of_chain, 0), (of_loader_alone, 0), (of_dataset, 0), (of_chain, 1)]
)


@reading
def test_a_token_that_is_refused(guarded, read, workers):
    """The error is that of permissions, asked for once, names what was asked, and says where a token comes from."""
    with pytest.raises(Denied, match=r"pass a valid token: .*AIS_AUTHN_TOKEN") as caught:
        list(read(ClientConfig(guarded.endpoint, token="wrong"), workers))
    assert caught.value.url in ("ais://b", guarded.endpoint)
    assert (caught.value.status, caught.value.attempts) == (401, 1)


@reading
def test_https_asked_of_an_http_port(guarded, read, workers):
    """The error comes at once, names what was asked, and says which scheme to write."""
    endpoint = guarded.endpoint.replace("http:", "https:")
    with pytest.raises(Unavailable, match="write http:// for a cluster without TLS") as caught:
        list(read(ClientConfig(endpoint), workers))
    assert caught.value.url in ("ais://b", endpoint)
    assert (caught.value.status, caught.value.attempts) == (None, 1)


@reading
def test_http_asked_of_an_https_port(secure, read, workers):
    """A port that closes every connection and has never answered may speak HTTPS: the error says so."""
    endpoint = secure.endpoint.replace("https:", "http:")
    config = ClientConfig(endpoint, retry=RetryPolicy(attempts=2, first_delay=0.01))
    with pytest.raises(Unavailable, match="if it speaks HTTPS, write https://") as caught:
        list(read(config, workers))
    assert caught.value.url in ("ais://b", endpoint)
    assert caught.value.attempts == 2


def test_http_asked_of_the_https_port_of_aistore():
    """AIStore's own answer to that is understood."""
    reply = Reply(400, b"", b"Client sent an HTTP request to an HTTPS server.\n")
    assert "the endpoint speaks HTTPS: write https://" in str(error_of(reply, "ais://b", "cannot list", 1))


def test_server_without_get_batch_is_told(embedded_bucket):
    """A forced get-batch that the server does not know is an error that says what to use instead."""
    embedded_bucket.put("o", b"1")
    faults = embedded_bucket.server.embedded.faults
    faults.add("refuse_batch")
    try:
        with pytest.raises(StoreError, match=r"no get-batch.*strategy='get'"):
            list(AISFileLoader(embedded_bucket.url + "o", embedded_bucket.endpoint, fetch=FetchPlan("batch")))
        with pytest.raises(StoreError, match="no get-batch"):
            list(AISBatchIterDataset(embedded_bucket.sdk, embedded_bucket.server.client()))
    finally:
        faults.clear()
