"""Inputs that cannot work get an error that says which, what, and what to do; at construction where possible."""

from __future__ import annotations

import time

import pytest
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISBatchIterDataset,
    AISFileLister,
    AISFileLoader,
    AISIterDataset,
    AISMapDataset,
    AISShardReader,
    AISSourceLister,
    BucketNotFound,
    ClientConfig,
    ConfigError,
    FetchPlan,
    InvalidURL,
    ObjectNotFound,
    StoreError,
    Unavailable,
)

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
     {"name_filter": "("}],
)  # fmt: skip
def test_options_of_datasets_are_checked(options):
    """Each wrong option is an error at construction."""
    with pytest.raises(ConfigError):
        AISIterDataset("ais://b/", config=ClientConfig(NOBODY), **options)


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
