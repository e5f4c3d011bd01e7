"""Indexes of shards, on both clusters: whose they are, whether they are of the shard as it is, and what they leave out."""

from __future__ import annotations

import io
import tarfile
import threading

import pytest
import xxhash

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.headerpass import HeaderPass, first_part
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.indexjob import indexed_by_server
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.resolve import resolve
from aisdatapipes.flow.shardindex import Lack, made_indexes, server_indexes
from aisdatapipes.model.config import ClientConfig, RetryPolicy
from aisdatapipes.model.errors import (
    BucketNotFound,
    ConfigError,
    CorruptBody,
    CorruptShard,
    Denied,
    NotFound,
    ObjectNotFound,
    StoreError,
    Unavailable,
)
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.shardindex import JobRead
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.shardindex import SERVER, ShardIndex, encoded_index
from aisdatapipes.wire.tar import END, entry, members
from tests.wire import tars

RETRY = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.02, deadline=20)
PLAIN = tars.by_tarfile(
    [("a/1.jpg", b"J" * 700), ("a/1.cls", b"1"), ("a/2.jpg", b""), ("a/2.cls", b"22"), ("./x.txt", b"x")],
    tarfile.USTAR_FORMAT,
)


@pytest.fixture
def cache(tmp_path):
    return IndexCache(tmp_path / "cache")


@pytest.fixture
def clusters(server):
    return Clusters(ClientConfig(server.endpoint, retry=RETRY))


@pytest.fixture
def embedded(embedded_server):
    yield Clusters(ClientConfig(embedded_server.endpoint, retry=RETRY))
    embedded_server.embedded.faults.clear()


def shards_of(bucket, objects, *, sized=True):
    bucket.fill(objects)
    return [
        AISURL.make(f"{bucket.url}{name}", "ais", bucket.name, name, size=len(data) if sized else -1)
        for name, data in objects.items()
    ]


def let_index(clusters, shards):
    indexed_by_server(clusters.of(shards[0]), shards[0])


def content(archive, index):
    return [(name.decode("utf-8", "surrogateescape"), archive[at + 512 :][:size]) for name, at, size in index.entries()]


def streamed(archive):
    return [(one.name, one.data) for one in members([archive], "s")]


def kinds(found):
    return [index if isinstance(index, Lack) else "index" for index in found]


# ---- the server's


def test_no_index_yet(bucket, clusters):
    """Where nobody had the bucket indexed there is none; nothing is an error, and nothing is asked twice."""
    meter = Meter()
    shards = shards_of(bucket, {f"{i}.tar": PLAIN for i in range(5)})
    assert [Lack.ABSENT] * 5 == server_indexes(shards, clusters, meter)
    assert (5, 0) == (meter.requests, meter.retries)


def test_an_index_of_every_owner(bucket, clusters):
    """Each is found at the owner of its shard, and says where every member is; two requests a shard."""
    meter = Meter()
    objects = {f"d/{i:02}.tar": tars.by_tarfile([(f"{i}.jpg", b"J" * i), (f"{i}.cls", b"")], tarfile.USTAR_FORMAT)
               for i in range(12)}  # fmt: skip
    shards = shards_of(bucket, objects)
    let_index(clusters, shards)
    found = server_indexes(shards, clusters, meter)
    assert [streamed(archive) for archive in objects.values()] == [
        content(archive, index) for archive, index in zip(objects.values(), found, strict=True)
    ]
    assert [xxhash.xxh64_hexdigest(archive) for archive in objects.values()] == [index.checksum for index in found]
    assert (24, 0) == (meter.requests, meter.retries)


def test_an_overwritten_shard(bucket, clusters):
    """An index of the shard before is not used, whatever the new size, and whether or not a size was listed."""
    other = PLAIN.replace(b"J" * 700, b"K" * 700)
    shards = shards_of(bucket, {"same.tar": PLAIN, "other.tar": PLAIN, "short.tar": PLAIN, "stays.tar": PLAIN})
    let_index(clusters, shards)
    shards = shards_of(
        bucket, {"same.tar": other, "other.tar": PLAIN + bytes(512), "short.tar": END, "stays.tar": PLAIN}
    )
    unsized = [AISURL.make(url, "ais", bucket.name, url.name) for url in shards]
    expected = [Lack.STALE, Lack.STALE, Lack.STALE, "index"]
    for urls in (shards, unsized):
        found = kinds(server_indexes(urls, clusters, Meter()))
        # A real server drops the index of an object that is overwritten; either way it is not used.
        assert expected == [Lack.STALE if one is Lack.ABSENT else one for one in found]


# What the server leaves out, and what only looks like it.
LINK = tars.block(b"l.jpg", 0, b"1", b"a/1.jpg")
FOLDER = tars.block(b"a/", 0, b"5")
UNCOVERED = {
    "a hard link": PLAIN[:1536] + LINK + PLAIN[1536:],
    "a hard link at the end": entry("a/1.jpg", b"") + LINK + END,
    "a member twice": entry("a.x", b"1") + entry("a.x", b"2") + entry("b.x", b"3") + END,
    "many headers of pax": tars.by_tarfile([(f"{i}.x", b"x") for i in range(20)], tarfile.PAX_FORMAT, mtime=1.5),
    "cut in its padding": entry("a.x", b"1")[:600],
}
COVERED = {
    "folders": FOLDER + PLAIN[:1536] + FOLDER + PLAIN[1536:],
    "a long name": tars.by_tarfile([("n" * 200 + ".x", b"x"), ("a.x", b"y")], tarfile.GNU_FORMAT),
    "a name that is no ASCII": tars.by_tarfile([("a.x", b"y"), ("ü.x", b"x")], tarfile.PAX_FORMAT),
    "no end": PLAIN.rstrip(b"\0") + bytes(511),
    "zeros up to a record": PLAIN + bytes(10240),
}


@pytest.mark.parametrize("case", [*UNCOVERED, *COVERED])
def test_what_an_index_leaves_out(bucket, clusters, cache, case):
    """An index is used only if all that is no member of it is no member; else the shard's headers are read."""
    archive = {**UNCOVERED, **COVERED}[case]
    shards = shards_of(bucket, {"s.tar": archive})
    let_index(clusters, shards)
    (found,) = server_indexes(shards, clusters, Meter())
    if case in COVERED:
        assert streamed(archive) == content(archive, found)
    else:
        assert found in (Lack.UNCOVERED, Lack.ABSENT)
        if case != "cut in its padding":
            (index,) = made_indexes(shards, clusters, Meter(), cache)
            assert streamed(archive) == content(archive, index)


def test_a_tar_that_is_none(bucket, clusters, cache, caplog):
    """The cluster says so of its job, which has indexed the others; whoever wants the broken one hears which it is."""
    shards = shards_of(bucket, {"a.tar": PLAIN, "b.tar": b"no tar at all" * 100, "c.tar": PLAIN})
    let_index(clusters, shards)
    assert ["index", Lack.ABSENT, "index"] == kinds(server_indexes(shards, clusters, Meter()))
    assert f"ais://{bucket.name}: not all of its shards could be indexed" in caplog.text
    with pytest.raises(CorruptShard, match="not a tar archive") as caught:
        resolve(shards, "server", clusters, Meter(), cache)
    assert shards[1] == caught.value.url
    assert 2 == len(resolve(shards[::2], "server", clusters, Meter(), cache).table.shards)


def test_an_index_that_is_damaged_on_its_way(embedded_bucket, embedded, embedded_server, caplog):
    """It is not used, and the log says why."""
    (shard,) = shards_of(embedded_bucket, {"s.tar": PLAIN})
    indexes = embedded_server.embedded._state.indexes
    indexes[f"ais/@#/{embedded_bucket.name}/s.tar"] = b"\x01\x00\x01" + bytes(100)
    assert [Lack.ABSENT] == server_indexes([shard], embedded, Meter())
    assert "s.tar: the server's index of it is not used: damaged: its checksum is wrong" in caplog.text


@pytest.mark.parametrize("entries", [
    [(b"a/1.jpg", 0, 700), (b"a/1.cls", 1536, 1)],
    [(b"a/1.jpg", 0, 700), (b"a/1.cls", 1536, 1), (b"a/2.jpg", 2560, 0), (b"a/2.cls", 3072, 2)],
    [],
])  # fmt: skip
def test_an_index_that_does_not_say_everything(embedded_bucket, embedded, embedded_server, entries):
    """Of an index nothing is believed that the bytes of the shard, where it says nothing, speak against."""
    (shard,) = shards_of(embedded_bucket, {"s.tar": PLAIN})
    wrong = ShardIndex.of(entries, xxhash.xxh64_hexdigest(PLAIN), len(PLAIN))
    embedded_server.embedded._state.indexes[f"ais/@#/{embedded_bucket.name}/s.tar"] = encoded_index(wrong, SERVER)
    assert [Lack.UNCOVERED] == server_indexes([shard], embedded, Meter())


# ---- made here


@pytest.mark.parametrize("case", tars.cases())
def test_indexes_that_are_made_here(bucket, clusters, cache, case):
    """Whatever the archive: the members of the stream, in its order; a second time out of the cache."""
    archive, files = tars.cases()[case]
    shards = shards_of(bucket, {"s.tar": archive}, sized=False)
    for requests in (1, 1):
        meter = Meter()
        (index,) = made_indexes(shards, clusters, meter, cache)
        assert (files, requests) == (content(archive, index), meter.requests)


def test_large_members_are_passed_over(bucket, clusters, cache):
    """Of members larger than what a request is worth only the headers are read; small ones come in long runs."""
    meter = Meter()
    large = [(f"{i}.bin", bytes([i]) * (3 << 20)) for i in range(4)]
    small = [(f"s{i}.txt", b"x" * 100) for i in range(3000)]
    archive = b"".join(entry(name, data) for name, data in [*large, *small, ("z.bin", bytes(1 << 20))]) + END
    (index,) = made_indexes(shards_of(bucket, {"s.tar": archive}), clusters, meter, cache)
    assert [*large, *small, ("z.bin", bytes(1 << 20))] == content(archive, index)
    assert meter.requests < 12


@pytest.mark.parametrize("case", tars.hostile())
def test_what_cannot_be_read_cannot_be_indexed(bucket, clusters, cache, case):
    """The error is that of reading the shard, and names it."""
    archive, words = tars.hostile()[case]
    (shard,) = shards_of(bucket, {"s.tar": archive})
    with pytest.raises(CorruptShard) as caught:
        made_indexes([shard], clusters, Meter(), cache)
    assert (True, shard) == (words.split(",")[0] in str(caught.value), caught.value.url)


def test_a_shard_cut_inside_a_large_member(bucket, clusters, cache):
    """It is noticed although the data of members are not looked at."""
    archive = (entry("a.bin", bytes(5 << 20)) + END)[: 2 << 20]
    with pytest.raises(CorruptShard, match="truncated: 2096640 of 5242880 bytes are there"):
        made_indexes(shards_of(bucket, {"s.tar": archive}), clusters, Meter(), cache)


def test_what_is_no_plain_tar(bucket, clusters, cache):
    """A compressed shard cannot be read at random: it says so, and what to do."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    shards = shards_of(bucket, {"s.tar.gz": made.getvalue()})
    with pytest.raises(ConfigError, match=r"s\.tar\.gz: it is gzip, and only plain tars"):
        made_indexes(shards, clusters, Meter(), cache)
    assert resolve(shards, "auto", clusters, Meter(), cache).table is None


def test_a_shard_that_is_gone(bucket, clusters, cache):
    """The error names it."""
    shards = [AISURL.make(f"{bucket.url}gone.tar", "ais", bucket.name, "gone.tar", size=1024)]
    with pytest.raises(ObjectNotFound, match=r"gone\.tar"):
        made_indexes(shards, clusters, Meter(), cache)


def test_a_shard_overwritten_during_the_pass(embedded_bucket, embedded, embedded_server, cache):
    """Parts of two versions make no index."""
    old = b"".join(entry(f"{i}.bin", bytes([i]) * (1 << 20)) for i in range(8)) + END
    (shard,) = shards_of(embedded_bucket, {"s.tar": old})
    cluster = embedded.of(shard)
    first = first_part(cluster, shard, *cluster.owners_of([shard]))
    first.wait()
    embedded_bucket.put("s.tar", old.replace(b"\1" * 1024, b"\2" * 1024))
    job, over = HeaderPass(first), threading.Event()
    job.start(lambda _: over.set())
    assert over.wait(20)
    with pytest.raises(CorruptBody, match="overwritten while it was read"):
        job.index()


# ---- resolve


def keys(resolved):
    return None if resolved.table is None else [(one.key, one.fields) for one in resolved.table]


def test_every_mode_finds_the_same_samples(bucket, clusters, cache):
    """Auto takes what is there: nothing, then what was made here, then the server's."""
    objects = {f"{i}.tar": tars.by_tarfile([(f"{i}/a.jpg", b"J"), (f"{i}/a.cls", b"")], 0) for i in range(3)}
    shards = shards_of(bucket, objects)
    nothing = resolve(shards, "auto", clusters, Meter(), cache)
    assert (None, True) == (nothing.table, "index='client'" in nothing.how and "there is none" in nothing.how)
    made = resolve(shards, "client", clusters, Meter(), cache)
    assert "3 shards by an index of this machine's" in made.how
    kept = resolve(shards, "auto", clusters, Meter(), cache)
    assert (keys(made), made.how) == (keys(kept), kept.how)
    server = resolve(shards, "server", clusters, Meter(), cache)
    assert (keys(made), True) == (keys(server), "3 shards by the server's index" in server.how)
    auto = resolve(shards, "auto", clusters, Meter(), cache)
    assert (keys(made), auto.how) == (keys(auto), server.how)
    assert made.table.fingerprint == server.table.fingerprint
    assert resolve(shards, "off", clusters, Meter(), cache).table is None
    assert 6 == sum(len(one.fields) for one in made.table)


def test_auto_takes_all_or_nothing(bucket, clusters, cache):
    """A single shard without an index, and all are streamed: and only the server's job writes anything."""
    shards = shards_of(bucket, {"a.tar": PLAIN, "b.tar": UNCOVERED["a hard link at the end"], "c.tar": PLAIN})
    let_index(clusters, shards)
    found = resolve(shards, "auto", clusters, Meter(), cache)
    assert (None, True) == (found.table, "b.tar (it leaves something out)" in found.how)
    assert cache.empty
    resolve(shards[1:2], "client", clusters, Meter(), cache)
    found = resolve(shards, "auto", clusters, Meter(), cache)
    assert "2 shards by the server's index, 1 shards by an index of this machine's" == found.how


def test_the_server_is_asked_once_and_again_for_what_changed(bucket, clusters, cache):
    """What is indexed is not indexed again; a shard that was overwritten is."""
    steps = []
    shards = shards_of(bucket, {"a.tar": PLAIN, "b.tar": PLAIN, "b.txt": PLAIN})
    for _ in range(2):
        resolve(shards, "server", clusters, Meter(), cache, lambda *told: steps.append(told))
    new = tars.by_tarfile([("new.jpg", b"N")], tarfile.USTAR_FORMAT)
    bucket.put("b.tar", new)
    again = [shards[0], AISURL.make(shards[1], "ais", bucket.name, "b.tar", size=len(new))]
    found = resolve(again, "server", clusters, Meter(), cache)
    assert ("indexes of shards", 0, 3) in steps
    assert ("2 shards by the server's index", "new") == (found.how.split(",")[0], found.table[-1].key)


def test_members_that_make_no_samples(bucket, clusters, cache):
    """The error names the shard; auto leaves it to the stream, which comes to it in its turn."""
    twice = entry("a.x", b"") + entry("b.x", b"") + entry("a.y", b"") + END
    shards = shards_of(bucket, {"s.tar": PLAIN, "t.tar": twice})
    for mode in ("client", "server"):
        with pytest.raises(CorruptShard, match="sample 'a' had ended") as caught:
            resolve(shards, mode, clusters, Meter(), cache)
        assert shards[1] == caught.value.url
    found = resolve(shards, "auto", clusters, Meter(), cache)
    assert (None, True) == (found.table, "sample 'a' had ended" in found.how)


def test_no_shards(clusters, cache):
    """Nothing is an empty table."""
    for mode in ("auto", "server", "client"):
        assert 0 == len(resolve([], mode, clusters, Meter(), cache).table)


def test_what_an_etl_answers(clusters, cache):
    """It has no index."""
    url = AISURL.make("ais://b/a.tar", "ais", "b", "a.tar", etl_name="e")
    assert resolve([url], "auto", clusters, Meter(), cache).table is None
    with pytest.raises(ConfigError, match="index='off'"):
        resolve([url], "server", clusters, Meter(), cache)


def test_a_bucket_that_is_gone(clusters, cache):
    """To have it indexed is an error that names it."""
    url = AISURL.make("ais://no-such-bucket/a.tar", "ais", "no-such-bucket", "a.tar", size=1024)
    with pytest.raises(BucketNotFound, match="no-such-bucket"):
        resolve([url], "server", clusters, Meter(), cache)


@pytest.mark.parametrize(("status", "kind"), [(401, Denied), (403, Denied), (405, StoreError), (501, StoreError)])
def test_a_cluster_that_does_not_index(embedded_bucket, embedded, embedded_server, cache, status, kind):
    """It is named, with its own words and the way that is left."""
    shards = shards_of(embedded_bucket, {"a.tar": PLAIN})
    embedded_server.embedded.faults.add("status", "index-shard", status=status)
    with pytest.raises(kind, match="index='client' does it here") as caught:
        resolve(shards, "server", embedded, Meter(), cache)
    assert (f"ais://{embedded_bucket.name}", status) == (caught.value.url, caught.value.status)


@pytest.mark.parametrize(("body", "told"), [
    (b'{"kind":"index-shard","uuid":"j","err":"","end_time":0,"aborted":false}', (False, False, "")),
    (b'{"uuid":"j","end_time":17}', (True, False, "")),
    (b'{"end_time":17,"err":"no tar"}', (True, False, "no tar")),
    (b'{"end_time":0,"err":"by user","aborted":true}', (True, True, "by user")),
])  # fmt: skip
def test_states_of_a_job(embedded_bucket, embedded, body, told):
    """Running, done, done with an error, stopped."""
    read = JobRead(embedded.of(AISURL.parse(embedded_bucket.url)), "ais://b", "j")
    assert read.accept(Reply(200, b"", body)) is None
    assert told == (read.over, read.stopped, read.failure)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"end_time":"soon"}', b"\xff"])
def test_an_answer_that_is_no_state(embedded_bucket, embedded, body):
    """It is asked for again, and then an error that names the job."""
    read = JobRead(embedded.of(AISURL.parse(embedded_bucket.url)), "ais://b", "j-17")
    assert "cannot ask after job j-17" in str(read.accept(Reply(200, b"", body)))


def test_a_job_that_nobody_knows(embedded_bucket, embedded, embedded_server, monkeypatch):
    """After a while it is an error, and nothing hangs."""
    (shard,) = shards_of(embedded_bucket, {"a.tar": PLAIN})
    monkeypatch.setattr("aisdatapipes.flow.indexjob._PATIENCE", 0.0)
    embedded_server.embedded.faults.add("status", "cluster", status=404)
    with pytest.raises(NotFound, match="cannot ask after job"):
        indexed_by_server(embedded.of(shard), shard)


def test_a_cluster_in_trouble(embedded_bucket, embedded, embedded_server, cache):
    """Where an index only helps, no trouble with it is an error; who wants it hears of it."""
    shards = shards_of(embedded_bucket, {"a.tar": PLAIN})
    let_index(embedded, shards)
    embedded_server.embedded.faults.add("status", status=503)
    found = resolve(shards, "auto", embedded, Meter(), cache)
    assert (None, True) == (found.table, "the cluster does not give it" in found.how)
    with pytest.raises(Unavailable, match=r"a\.tar: cannot read its index"):
        resolve(shards, "server", embedded, Meter(), cache)
