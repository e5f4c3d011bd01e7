"""Listings, objects, batches and shards, against an embedded cluster and its faults."""

from __future__ import annotations

import io
import multiprocessing
import random
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.listing import Listing, listed
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.samples import Shard, samples
from aisdatapipes.flow.shards import streamed
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.model.config import ClientConfig, FetchPlan, RetryPolicy
from aisdatapipes.model.errors import BucketNotFound, ConfigError, CorruptBody, ObjectNotFound, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.pool import cluster_of
from aisdatapipes.store.source import source_of

RETRY = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.02, deadline=10)
CONTENT = random.Random(0).randbytes


@pytest.fixture
def cluster(embedded_server):
    yield embedded_server.embedded
    embedded_server.embedded.faults.clear()


@pytest.fixture
def config(embedded_server):
    return ClientConfig(embedded_server.endpoint, retry=RETRY)


def urls_of(bucket, names, size=True):
    for name in names:
        data = bucket.server.embedded.get(bucket.name, name) if size else b""
        yield AISURL.make(f"{bucket.url}{name}", "ais", bucket.name, name, size=len(data) if size else -1)


def fetch(urls, config, meter=None, tolerance=None, **plan):
    found = fetched(urls, Clusters(config), FetchPlan(**plan), meter or Meter(), tolerance or Tolerance())
    return [(url.name, data) for url, data in found]


# ---- listings


def test_pages(embedded_bucket, config, cluster):
    """Every object is listed once, whatever the pages look like: also empty ones that have a token."""
    objects = embedded_bucket.fill({f"d{i % 3}/{i:05}": b"x" * (i % 5) for i in range(200)})
    cluster.faults.add("empty_page", times=2)
    source = source_of(embedded_bucket.url, config)
    chunks = list(listed(source))
    found = {name: size for chunk in chunks for name, size in zip(*chunk, strict=True)}
    assert found == {name: len(data) for name, data in objects.items()}


def test_pages_that_lead_to_themselves(embedded_bucket, config, cluster):
    """A page whose token leads to the same page again would be listed for ever: it is asked for again, and an error."""
    embedded_bucket.put("o", b"")
    cluster.faults.add("empty_page")
    quick = replace(config, retry=RetryPolicy(attempts=3, first_delay=0.01))
    with pytest.raises(CorruptBody, match=f"ais://{embedded_bucket.name}: cannot list: .* leads to itself") as caught:
        list(listed(source_of(embedded_bucket.url, quick)))
    assert caught.value.attempts == 3


def test_prefixes_and_filters(embedded_bucket, config):
    """Prefix by prefix, and only names that the filter keeps."""
    embedded_bucket.fill(dict.fromkeys(("a/1", "a/2.txt", "b/1", "b/2.txt", "c/1"), b""))
    source = source_of(embedded_bucket.url, config).with_prefixes(["b/", "a/"])
    listing = Listing.of([source], Meter(), lambda name: name.endswith(".txt"))
    assert [url.name for url in listing] == ["b/2.txt", "a/2.txt"]


def test_odd_names_are_listed_and_read(embedded_bucket, config, cluster):
    """What is listed can be read, whatever it is called, one by one and in batches."""
    names = sorted(
        ["a b", "a#b?c", "%41", "é", "\udcff", "x//y", "q'\"q"], key=lambda n: n.encode("utf-8", "surrogateescape")
    )
    for name in names:
        cluster.put(embedded_bucket.name, name, repr(name).encode())
    listing = Listing.of([source_of(embedded_bucket.url, config)], Meter())
    expected = [(name, repr(name).encode()) for name in names]
    for strategy in ("get", "batch"):
        assert fetch(iter(listing), config, strategy=strategy) == expected


def test_several_sources(embedded_bucket, config):
    """A position leads to its source, also past sources without objects."""
    embedded_bucket.fill({"a/1": b"1", "c/1": b"22"})
    sources = [source_of(f"{embedded_bucket.url}{prefix}", config) for prefix in ("z", "a", "z", "c", "z")]
    listing = Listing.of(sources, Meter())
    assert [(url.name, url.size, listing.source_index(i)) for i, url in enumerate(listing)] == [
        ("a/1", 1, 1), ("c/1", 2, 3),
    ]  # fmt: skip
    with pytest.raises(IndexError):
        listing[2]
    assert listing[-1].name == "c/1"


def test_a_missing_bucket(config):
    """Listing a bucket that is not there says so."""
    with pytest.raises(BucketNotFound):
        Listing.of([source_of("ais://no-such-bucket", config)], Meter())


def _in_child(catalog, results):
    results.put([str(url) for url in catalog.listing(Meter())])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_one_listing_for_all_processes(embedded_bucket, config, cluster, method):
    """However workers are started, one of them lists and the others take its listing; no file stays."""
    objects = embedded_bucket.fill({f"{i:02}": b"x" for i in range(20)})
    catalog = Catalog([source_of(embedded_bucket.url, config)])
    context = multiprocessing.get_context(method)
    before = cluster.requests["list"]
    results = context.Queue()
    workers = [context.Process(target=_in_child, args=(catalog, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
        worker.close()
    results.close()
    results.join_thread()
    assert found == [[embedded_bucket.url + name for name in objects]] * 3
    assert cluster.requests["list"] - before == 1
    name = catalog._path.name
    assert list(Path(tempfile.gettempdir()).glob(f"{name}*")) != []
    del catalog, workers, worker
    assert list(Path(tempfile.gettempdir()).glob(f"{name}*")) == []


# ---- objects


def test_every_strategy_gives_the_same(embedded_bucket, config):
    """Whole, in parts, in batches or by size: the same contents in the same order."""
    objects = embedded_bucket.fill({f"{i:02}": CONTENT(i * 97) for i in range(40)})
    expected = list(objects.items())
    for strategy in ("get", "ranges", "batch", "auto"):
        meter = Meter()
        urls = urls_of(embedded_bucket, objects)
        assert fetch(urls, config, meter, strategy=strategy, range_bytes=500, batch_objects=7) == expected
        assert (meter.objects, meter.bytes) == (40, sum(map(len, objects.values())))


@pytest.mark.parametrize("size", [0, 700, 2500, 3500])
def test_parts_of_what_was_overwritten(embedded_bucket, config, size):
    """An object that has another size than was listed, read in parts, is read as it is now."""
    embedded_bucket.put("o", CONTENT(3000))
    listed_before = list(urls_of(embedded_bucket, ["o"]))
    now = CONTENT(size)
    embedded_bucket.put("o", now)
    assert fetch(listed_before, config, strategy="ranges", range_bytes=1000) == [("o", now)]


class Overwritten(dict):
    """The objects of a bucket, of which one is overwritten whenever it has been looked up so many times."""

    def __init__(self, bucket, objects, every, times, content=bytes(100)):
        super().__init__(objects)
        self.bucket, self.every, self.left, self.content = bucket, every, times, content
        self.count = 0

    def get(self, key, default=None):
        self.count += key == "o"
        if self.count == self.every and self.left:
            self.count, self.left = 0, self.left - 1
            self.bucket.put("o", self.content)
        return super().get(key, default)


@pytest.mark.parametrize(("times", "found"), [(1, bytes(100)), (3, bytes(100)), (1000, None)])
def test_overwritten_between_two_parts(embedded_bucket, config, cluster, times, found):
    """Parts of two versions are not joined: the object is read anew, and one that never rests is an error."""
    embedded_bucket.put("o", CONTENT(100))
    urls = list(urls_of(embedded_bucket, ["o"]))
    real = cluster._bucket(embedded_bucket.name)
    objects = real.objects
    real.objects = Overwritten(real, objects, 5, times)
    try:
        if found is None:
            with pytest.raises(CorruptBody, match="overwritten again and again"):
                fetch(urls, config, strategy="ranges", width=1, range_bytes=10)
        else:
            assert fetch(urls, config, strategy="ranges", width=1, range_bytes=10) == [("o", found)]
    finally:
        real.objects = objects


def test_a_corrupt_part_is_found(embedded_bucket, config, cluster):
    """With a flipped bit in a part the object is read anew; where that stays, it is an error."""
    content = CONTENT(3000)
    embedded_bucket.put("o", content)
    urls = list(urls_of(embedded_bucket, ["o"]))
    cluster.faults.add("corrupt", times=1)
    assert fetch(urls, config, strategy="ranges", range_bytes=1000) == [("o", content)]
    cluster.faults.add("corrupt")
    with pytest.raises(CorruptBody, match="xxh64"):
        fetch(urls, config, strategy="ranges", range_bytes=1000)


@pytest.mark.parametrize(("strategy", "after"), [("get", 1100), ("ranges", 400)])
def test_a_body_that_breaks_off_is_resumed(embedded_bucket, config, cluster, strategy, after):
    """Each try goes on where the last one broke off: an object comes of answers of which none is complete."""
    content = CONTENT(3000)
    embedded_bucket.put("o", content)
    cluster.faults.add("cut", "get", after=after)
    assert fetch(urls_of(embedded_bucket, ["o"]), config, strategy=strategy, range_bytes=1000) == [("o", content)]


@pytest.mark.parametrize("size", [500, 1000, 3000, 4000])
def test_a_broken_body_is_not_mended_with_another_version(embedded_bucket, config, cluster, size):
    """What came before an object was overwritten is thrown away."""
    embedded_bucket.put("o", CONTENT(3000))
    urls = list(urls_of(embedded_bucket, ["o"]))
    cluster.faults.add("cut", "get", after=1000, times=1)
    real = cluster._bucket(embedded_bucket.name)
    objects = real.objects
    now = b"\0" * size
    real.objects = Overwritten(real, objects, 2, 1, now)
    try:
        assert fetch(urls, config, strategy="get") == [("o", now)]
    finally:
        real.objects = objects


def test_batches_respect_an_etl(embedded_bucket, config, cluster):
    """An ETL is applied whatever the strategy is."""
    cluster.etl("upper", bytes.upper)
    embedded_bucket.fill({"a": b"aa", "b": b"bb", "c": b"cc"})
    urls = [
        AISURL.make(url, "ais", url.bucket, url.name, etl_name="upper" if url.name != "b" else None)
        for url in urls_of(embedded_bucket, ["a", "b", "c"])
    ]
    assert fetch(urls, config, strategy="batch") == [("a", b"AA"), ("b", b"bb"), ("c", b"CC")]


@pytest.mark.parametrize("strategy", ["get", "batch"])
def test_tolerance(embedded_bucket, config, strategy):
    """Missing objects raise where they stand, or are left out and counted, up to the number that is borne."""
    embedded_bucket.fill({"a": b"a", "c": b"c"})
    urls = list(urls_of(embedded_bucket, ["a", "b", "c", "d"], size=False))
    seen = []
    found = fetched(iter(urls), Clusters(config), FetchPlan(strategy), Meter())
    with pytest.raises(ObjectNotFound, match="/b"):
        seen.extend(url.name for url, _ in found)
    assert seen == ["a"]
    meter = Meter()
    kept = [("a", b"a"), ("c", b"c")]
    assert fetch(urls, config, meter, Tolerance("skip"), strategy=strategy) == kept
    assert meter.skipped == 2
    assert fetch(urls, config, None, Tolerance("skip", 2), strategy=strategy) == kept
    with pytest.raises(ObjectNotFound, match="/d"):
        fetch(urls, config, None, Tolerance("skip", 1), strategy=strategy)
    told = []

    def answer(error):
        told.append(type(error))
        return "skip"

    assert fetch(urls, config, None, Tolerance(answer), strategy=strategy) == kept
    assert told == [ObjectNotFound] * 2
    with pytest.raises(ConfigError, match="perhaps"):
        fetch(urls, config, None, Tolerance(lambda _: "perhaps"), strategy=strategy)


def test_a_rate_of_errors():
    """A share bears that share of the items seen, of a hundred at least."""
    meter, tolerance = Meter(), Tolerance("skip", 0.05)
    for _ in range(5):
        tolerance.bear(ObjectNotFound("x"), meter)
    with pytest.raises(ObjectNotFound):
        tolerance.bear(ObjectNotFound("x"), meter)
    meter.objects = 1000
    tolerance.bear(ObjectNotFound("x"), meter)
    assert meter.skipped == 6
    for bad in ({"on_error": "ignore"}, {"max_errors": -1}):
        with pytest.raises(ConfigError):
            Tolerance(**bad)


# ---- batches


@pytest.mark.parametrize("fault", ["batch_short", "batch_misordered", "cut", "status"])
def test_what_a_batch_lacks_is_read_again(embedded_bucket, config, cluster, fault):
    """Short, misordered, broken or refused: every object arrives, once and in order."""
    objects = embedded_bucket.fill({f"{i:02}": CONTENT(50 + i) for i in range(30)})
    struck = cluster.faults.add(fault, "batch")
    found = fetch(urls_of(embedded_bucket, objects), config, strategy="batch", batch_objects=10)
    assert (found, struck.struck > 0) == (list(objects.items()), True)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_cluster_without_batches(embedded_bucket, config, cluster, status):
    """A cluster that knows no get-batch says what to use instead."""
    embedded_bucket.put("o", b"x")
    cluster.faults.add("refuse_batch", status=status)
    with pytest.raises(StoreError, match="strategy='get'"):
        fetch(urls_of(embedded_bucket, ["o"]), config, strategy="batch")


def test_a_batch_from_no_bucket(config):
    """A missing bucket is named by a batch, too."""
    with pytest.raises(BucketNotFound):
        fetch([AISURL.parse("ais://no-such-bucket/o")], config, strategy="batch")


def test_a_stalled_consumer_stalls_no_batch(embedded_bucket, cluster):
    """While the consumer is away everything arrives: afterwards the connections may be gone, and nothing is lost."""
    objects = embedded_bucket.fill({f"{i:02}": CONTENT(5000) for i in range(40)})
    config = ClientConfig(cluster.endpoint, retry=RetryPolicy(attempts=1, deadline=10))  # a transport of its own
    cluster.faults.add("drip", "batch", piece=4096)  # so that it is not there before the consumer leaves
    before = cluster.requests["batch"]
    plan = FetchPlan(strategy="batch", batch_objects=10)
    results = fetched(list(urls_of(embedded_bucket, objects)), Clusters(config), plan, Meter())
    found = [next(results)]
    deadline = time.monotonic() + 10
    while cluster.requests["batch"] < before + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # what is under way has come by then, if it was read
    cluster_of(config).transport.close()
    found += results
    assert [(url.name, data) for url, data in found] == list(objects.items())


@pytest.mark.parametrize("strategy", ["get", "batch"])
def test_stats_blame_a_slow_network(embedded_bucket, config, cluster, strategy):
    """The time that an answer takes is waiting, also where the members of a batch are waited for one by one."""
    objects = embedded_bucket.fill({f"{i:02}": CONTENT(50) for i in range(10)})
    cluster.faults.add("delay", strategy, seconds=0.2)
    meter = Meter()
    fetch(urls_of(embedded_bucket, objects), config, meter, strategy=strategy)
    assert meter.stats()["verdict"].startswith("starved by the network")
    assert meter.wait_s > 0.15


# ---- shards


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def streams(urls, config, **plan):
    return streamed(urls, Clusters(config), FetchPlan(**plan), Meter())


def test_shards_are_their_parts(embedded_bucket, config):
    """The chunks of a shard are the object, and what is not read of one does not disturb the next."""
    objects = embedded_bucket.fill({"a": CONTENT(5000), "b": CONTENT(0), "c": CONTENT(999), "d": CONTENT(3000)})
    for size in (True, False):
        urls = urls_of(embedded_bucket, objects, size)
        assert [b"".join(map(bytes, stream)) for stream in streams(urls, config, range_bytes=700)] == list(
            objects.values()
        )
    some = [
        next(iter(stream), b"")[:5] for stream in streams(urls_of(embedded_bucket, objects), config, range_bytes=700)
    ]
    assert some == [data[:5] for data in objects.values()]


@pytest.mark.parametrize("size", [100, 2000, 9000])
def test_a_shard_that_was_overwritten_since(embedded_bucket, config, size):
    """A shard is read as it is now, though its listing is older."""
    embedded_bucket.put("o", CONTENT(3000))
    urls = list(urls_of(embedded_bucket, ["o"]))
    now = CONTENT(size)
    embedded_bucket.put("o", now)
    assert [b"".join(map(bytes, stream)) for stream in streams(urls, config, range_bytes=1000)] == [now]


def test_a_corrupt_chunk_is_found(embedded_bucket, config, cluster):
    """At the end of a shard its content is compared with what was promised."""
    embedded_bucket.put("o", CONTENT(3000))
    cluster.faults.add("corrupt", times=1)
    with pytest.raises(CorruptBody, match="xxh64"):
        [b"".join(map(bytes, stream)) for stream in streams(urls_of(embedded_bucket, ["o"]), config, range_bytes=1000)]


def test_zip_by_ranges(embedded_bucket, config):
    """A zip is read by its own directory, at random."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(5):
            archive.writestr(f"{i}.txt", CONTENT(3000))
    embedded_bucket.put("s.zip", file.getvalue())
    for stream in streams(urls_of(embedded_bucket, ["s.zip"]), config, range_bytes=1000):
        with zipfile.ZipFile(stream.file()) as archive:
            assert (archive.testzip(), len(archive.namelist())) == (None, 5)


def test_memory_is_the_window(embedded_bucket, config):
    """A shard much larger than the window never is in memory."""
    embedded_bucket.put("o", bytes(24 << 20))
    urls = list(urls_of(embedded_bucket, ["o"]))
    tracemalloc.start()
    try:
        plan = {"range_bytes": 1 << 18, "window_bytes": 1 << 20, "width": 4, "verify": False}
        total = sum(len(chunk) for stream in streams(urls, config, **plan) for chunk in stream)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The embedded cluster is in this process and copies each answer: a few windows, never the shard.
    assert (total, peak < 12 << 20) == (24 << 20, True)


def test_samples_of_shards(embedded_bucket, config):
    """Samples come shard by shard; a shard that is broken is left out with ``skip``, those before and after are not."""
    good = [tar_of({f"{s}{i}.txt": b"t", f"{s}{i}.cls": b"1"}) for s in "ac" for i in range(1)]
    embedded_bucket.fill({"a.tar": good[0], "b.tar": b"no tar" * 200, "c.tar": good[1]})
    urls = list(urls_of(embedded_bucket, ["a.tar", "b.tar", "c.tar"]))
    meter = Meter()
    shards = (Shard(str(stream.url), stream) for stream in streams(urls, config))
    found = [(key, sorted(sample)) for key, sample in samples(shards, None, "zero", meter, Tolerance("skip"))]
    assert (found, meter.skipped) == ([("a0", ["cls", "txt"]), ("c0", ["cls", "txt"])], 1)
    shards = (Shard(str(stream.url), stream) for stream in streams(urls, config))
    with pytest.raises(ValueError, match=r"b\.tar"):
        list(samples(shards, None, "zero", Meter()))
