"""One test a row of docs/migration.md: what the reference gets wrong, and what happens here instead."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from aistore.sdk import Client
from aistore.sdk.dataset.data_shard import DataShard
from aistore.sdk.errors import AISError, ErrBckNotFound, ErrObjNotFound
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISURL,
    AISBatchIterDataset,
    AISFileLister,
    AISFileLoader,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISParallelMapDataset,
    AISShardReader,
    AISSourceLister,
    BucketNotFound,
    ClientConfig,
    ConfigError,
    CorruptShard,
    DynamicBatchSampler,
    FetchPlan,
    InvalidURL,
    ObjectNotFound,
    RetryPolicy,
    WorkerRequestClient,
    World,
)
from aisdatapipes.wire.tar import END, entry
from tests.datasets.samples import numbered, shard

FEW = {f"{i:02d}": bytes([i]) * (i + 1) for i in range(10)}


def names(dataset):
    return [name for name, _ in dataset]


def tar(*members):
    return b"".join(entry(name, data) for name, data in members) + END


def config(bucket, **retry):
    return ClientConfig(bucket.endpoint, retry=RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.05, **retry))


def in_another_process(code, *args):
    """The last line that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *args], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def faults(embedded_bucket):
    found = embedded_bucket.server.embedded.faults
    found.clear()
    yield found
    found.clear()


@pytest.fixture
def requests(embedded_bucket):
    """Requests by operation since the test began."""
    cluster = embedded_bucket.server.embedded
    before = dict(cluster.requests)
    return lambda operation: cluster.requests[operation] - before.get(operation, 0)


# ---- lister and loader


def test_pipes_work_with_the_current_sdk(bucket):
    """Both pipes construct and read."""
    bucket.fill(FEW)
    pipe = AISFileLoader(AISFileLister(bucket.url, bucket.endpoint), bucket.endpoint)
    assert {url.name: stream.read() for url, stream in pipe} == FEW


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import aisdatapipes, torchdata.datapipes.iter, torchdata.dataloader2",
        "import torchdata.datapipes.iter, torchdata.dataloader2, aisdatapipes",
        "import aisdatapipes, importlib, aisdatapipes.pipes.lister as m; importlib.reload(m)",
    ],
)
def test_both_import_orders_with_torchdata(imports):
    """Whoever comes first, and after a reload, the names are there and ours."""
    code = (
        f"{imports}\nfrom torch.utils.data.datapipes.iter import IterableWrapper as W\n"
        "p = W(['ais://b/']); print(all(type(getattr(p, n)('localhost:1')).__module__.startswith('aisdatapipes') "
        "for n in ('list_files_by_ais', 'load_files_by_ais', 'ais_list_files', 'ais_load_files')))"
    )
    assert in_another_process(code) == "True"


def test_legacy_name_takes_an_etl(embedded_bucket):
    """``load_files_by_ais(etl_name=...)`` gets what the ETL makes of the object."""
    embedded_bucket.put("o", b"abc")
    embedded_bucket.server.embedded.etl("upper-case", bytes.upper)
    pipe = IterableWrapper([embedded_bucket.url + "o"]).load_files_by_ais(
        embedded_bucket.endpoint, etl_name="upper-case"
    )
    assert [stream.read() for _, stream in pipe] == [b"ABC"]


def test_examples_of_the_document_work(bucket):
    """``host:port`` means http, and ``provider:bucket/folder/`` is a URL."""
    bucket.put("folder/o", b"1")
    bare = bucket.endpoint.removeprefix("http://")
    assert list(AISFileLister([f"ais:{bucket.name}/folder/"], bare)) == [f"{bucket.url}folder/o"]
    url = AISURL.parse("aws:bucket-name/folder/")
    assert (url.provider, url.bucket, url.name) == ("aws", "bucket-name", "folder/")


def test_one_url_is_a_source(embedded_bucket):
    """A text is one URL."""
    embedded_bucket.fill(FEW)
    assert len(list(AISFileLister(embedded_bucket.url, embedded_bucket.endpoint))) == len(FEW)


def test_names_survive_lister_and_loader(bucket):
    """``#``, ``?``, ``%`` and blanks arrive as they are."""
    odd = bucket.fill({"a#b": b"1", "c?d=e": b"2", "100%": b"3", " f g": b"4", "%41": b"5"})
    pipe = AISFileLister(bucket.url, bucket.endpoint).ais_load_files(bucket.endpoint)
    assert {url.name: stream.read() for url, stream in pipe} == odd


def test_namespaces_are_kept():
    """The namespace is a part of the URL and of its text."""
    url = AISURL.parse("ais://@uuid#ns/bucket/name")
    assert (url.namespace, url.bucket, url.name, str(url)) == (
        "@uuid#ns",
        "bucket",
        "name",
        "ais://@uuid#ns/bucket/name",
    )


@pytest.mark.parametrize("wrong", ["", "ais:", "ais://", "s3:///bucket", "bucket/name", "xyz://b/o", "ais://b"])
def test_invalid_urls_are_refused(wrong):
    """At construction where they are there to see, else when reached."""
    with pytest.raises(InvalidURL):
        AISFileLoader([wrong], "localhost:1")
    with pytest.raises(InvalidURL):
        list(AISFileLoader(IterableWrapper([wrong]), "localhost:1"))


def test_loader_length_counts():
    """``length`` is what ``len()`` answers."""
    assert (len(AISFileLoader(["ais://b/o"], "h:1", 5)), len(AISFileLoader(["ais://b/o"], "h:1"))) == (5, 1)


def test_streams_are_seekable(embedded_bucket):
    """A stream is read twice."""
    embedded_bucket.put("o", b"abc")
    ((_, stream),) = AISFileLoader([embedded_bucket.url + "o"], embedded_bucket.endpoint)
    assert (stream.read(), stream.seek(1), stream.read()) == (b"abc", 1, b"bc")


def test_unread_streams_cross_processes(embedded_bucket):
    """A worker's unread streams come out whole."""
    embedded_bucket.fill(FEW)
    pipe = AISFileLister(embedded_bucket.url, embedded_bucket.endpoint).ais_load_files(embedded_bucket.endpoint)
    loader = DataLoader(pipe, batch_size=None, num_workers=1)
    assert {url.name: stream.read() for url, stream in loader} == FEW


def test_many_reads_are_under_way(embedded_bucket, faults):
    """While the cluster holds the first answer back, the others are asked for, and come in order."""
    embedded_bucket.fill(FEW)
    held = faults.add("delay", "get", match="00", times=1, seconds=0.5)
    others = faults.add("delay", "get", seconds=0.0)
    dataset = AISIterDataset(embedded_bucket.sdk)
    iterator = iter(dataset)
    assert next(iterator)[0] == "00"
    assert (held.struck, others.struck) == (1, len(FEW))
    assert names(iterator) == sorted(FEW)[1:]


# ---- source lister


def test_source_lister_takes_every_source(embedded_bucket):
    """Bucket, group, object, DataShard, URL; one or several."""
    bucket = embedded_bucket
    bucket.fill(FEW)
    sources = [
        bucket.sdk.objects(obj_names=["01"]),
        bucket.sdk.object("02"),
        DataShard(bucket.endpoint, bucket.name, prefix="03"),
    ]
    assert [url.name for url in AISSourceLister(sources)] == ["01", "02", "03"]
    assert [url.name for url in AISSourceLister(bucket.sdk)] == sorted(FEW)


def test_source_lister_prefix_narrows_groups(embedded_bucket):
    """``prefix`` counts for groups as well."""
    group = embedded_bucket.sdk.objects(obj_names=["a1", "b1", "a2"])
    assert [url.name for url in AISSourceLister([group], prefix="a")] == ["a1", "a2"]


def test_source_lister_addresses_load(embedded_bucket):
    """Addresses are quoted, and the loader loads them without being told the cluster."""
    embedded_bucket.put("a b#?%", b"1")
    pipe = AISFileLoader(AISSourceLister(embedded_bucket.sdk))
    assert [(str(url).endswith("/a%20b%23%3F%25?provider=ais"), s.read()) for url, s in pipe] == [(True, b"1")]


# ---- all datasets


@pytest.mark.parametrize("make", [AISIterDataset, AISMapDataset])
def test_prefix_map_means_the_bucket(bucket, make):
    """Another object of the SDK for the same bucket is the same key; a text, lists and None are prefixes."""
    bucket.fill({"a/1": b"", "b/1": b"", "c/1": b""})
    other = bucket.server.client().bucket(bucket.name)
    read = lambda value: [name for name, _ in make(bucket.sdk, {other: value})]  # noqa: E731
    assert read("a/") == ["a/1"]
    assert read(["c/", "a/"]) == ["c/1", "a/1"]
    assert read(None) == read("") == ["a/1", "b/1", "c/1"]
    assert read([]) == []


def test_prefix_map_of_another_bucket_is_refused(embedded_bucket):
    """A key that is none of the sources is an error that names them."""
    other = embedded_bucket.server.client().bucket("another")
    with pytest.raises(ConfigError, match=f"another is none of the sources.*{embedded_bucket.name}"):
        AISIterDataset(embedded_bucket.sdk, {other: "a"})


def test_generator_of_sources_serves_two_epochs(embedded_bucket):
    """A one-shot iterable of sources is kept."""
    embedded_bucket.fill(FEW)
    dataset = AISIterDataset(bucket for bucket in [embedded_bucket.sdk])
    assert names(dataset) == names(dataset) == sorted(FEW)


@pytest.mark.parametrize("wrong", [[3], 3, [None], object()])
def test_wrong_source_is_refused_at_construction(wrong):
    """What is no source is named at once."""
    with pytest.raises(ConfigError, match="is no source"):
        AISIterDataset(wrong)


def test_scheme_in_a_bucket_name_is_refused(embedded_bucket):
    """``bucket("ais://ImageNet")`` is told that the scheme is too much."""
    with pytest.raises(InvalidURL, match="contains a scheme"):
        AISIterDataset(embedded_bucket.server.client().bucket("ais://ImageNet"))


def test_object_is_a_source(embedded_bucket):
    """One object is a dataset of one."""
    embedded_bucket.fill(FEW)
    assert list(AISIterDataset(embedded_bucket.sdk.object("03"))) == [("03", FEW["03"])]


def test_one_listing_for_everything(embedded_bucket, requests):
    """len, bool, list and a second epoch list once together."""
    embedded_bucket.fill(FEW)
    dataset = AISIterDataset(embedded_bucket.sdk)
    assert (bool(dataset), len(dataset), len(list(dataset)), len(list(dataset))) == (True, 10, 10, 10)
    assert requests("list") == 1


def test_one_listing_for_all_workers(embedded_bucket, requests):
    """Workers that start before anything was listed make one listing between them."""
    embedded_bucket.fill(FEW)
    loader = DataLoader(AISIterDataset(embedded_bucket.sdk), batch_size=None, num_workers=3)
    assert [sorted(names(loader)) for _ in range(2)] == [sorted(FEW)] * 2
    assert requests("list") == 1


def test_groups_cost_no_requests(embedded_bucket, requests):
    """A group needs no HEAD and no listing; what is missing is said when it is read."""
    embedded_bucket.fill(FEW)
    dataset = AISMapDataset(embedded_bucket.sdk.objects(obj_names=["01", "gone"]))
    assert (len(dataset), dataset[0]) == (2, ("01", FEW["01"]))
    assert (requests("list"), requests("head")) == (0, 0)
    with pytest.raises(ObjectNotFound, match="gone"):
        dataset[1]


def test_empty_page_does_not_end_the_listing(embedded_bucket, faults):
    """An empty page with a token is followed."""
    embedded_bucket.fill(FEW)
    faults.add("empty_page", "list", times=1)
    assert names(AISIterDataset(embedded_bucket.sdk)) == sorted(FEW)


def test_listing_is_small(embedded_bucket):
    """16 bytes and the name for each object, also when pickled."""
    group = embedded_bucket.sdk.objects(obj_names=[f"{i:08d}" for i in range(20_000)])
    dataset = AISMapDataset(group)
    listing = dataset._listing
    assert len(listing.blob) + listing.ends.nbytes + listing.sizes.nbytes == 20_000 * (16 + 8)
    bucket_only = AISMapDataset(embedded_bucket.sdk)
    bucket_only._catalog._listing = type(listing)(
        bucket_only._catalog.sources, [20_000], listing.blob, listing.ends, listing.sizes
    )
    assert len(pickle.dumps(bucket_only)) < 20_000 * 24 + 80_000  # and a table for 256 workers


def test_sources_are_left_alone(embedded_bucket):
    """The caller's bucket keeps its client."""
    embedded_bucket.fill(FEW)
    before = embedded_bucket.sdk.client
    list(DataLoader(AISIterDataset(embedded_bucket.sdk), batch_size=None))
    assert embedded_bucket.sdk.client is before


def test_defaults_are_not_shared(embedded_bucket):
    """What one dataset is given does not reach another."""
    embedded_bucket.fill(FEW)
    one, other = AISIterDataset(embedded_bucket.sdk), AISIterDataset(embedded_bucket.sdk)
    one._prefix_map[embedded_bucket.sdk] = "x"
    assert other._prefix_map == {}


@pytest.mark.parametrize(
    "method",
    ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)],
)
def test_errors_survive_workers(bucket, method):
    """Class, message and attributes come out of a worker."""
    dataset = AISIterDataset(bucket.sdk.objects(obj_names=["gone"]))
    with pytest.raises(ObjectNotFound, match="gone") as caught:
        list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=method))
    error = caught.value
    assert (error.url, error.status, error.attempts > 0) == (bucket.url + "gone", 404, True)


def test_errors_are_the_sdks_too(bucket):
    """Handlers for the SDK's classes keep working."""
    with pytest.raises(ErrObjNotFound) as caught:
        AISMapDataset(bucket.sdk.objects(obj_names=["gone"]))[0]
    assert isinstance(caught.value, (AISError, FileNotFoundError))
    with pytest.raises(ErrBckNotFound) as missing:
        AISMapDataset(bucket.server.client().bucket("nosuch"))
    assert (missing.value.status_code, isinstance(missing.value, BucketNotFound)) == (404, True)


@pytest.mark.parametrize("fault", ["corrupt", "cut"])
def test_damaged_bodies_are_read_again(embedded_bucket, faults, fault):
    """A body with a wrong byte, or too few, is asked for again."""
    embedded_bucket.fill(FEW)
    struck = faults.add(fault, "get", times=1)
    dataset = AISIterDataset(embedded_bucket.sdk, config=config(embedded_bucket))
    assert dict(dataset) == FEW
    assert (struck.struck, dataset.stats()["retries"]) == (1, 1)


def test_unreadable_objects_can_be_skipped(embedded_bucket):
    """Skipped and counted, up to ``max_errors``."""
    embedded_bucket.fill(FEW)
    group = embedded_bucket.sdk.objects(obj_names=["01", "gone", "lost", "02"])
    dataset = AISIterDataset(group, on_error="skip")
    assert (names(dataset), dataset.stats()["skipped"]) == (["01", "02"], 2)
    with pytest.raises(ObjectNotFound, match="lost"):
        names(AISIterDataset(group, on_error="skip", max_errors=1))


def test_name_filter(embedded_bucket):
    """A callable or an expression."""
    embedded_bucket.fill(FEW)
    assert names(AISIterDataset(embedded_bucket.sdk, name_filter="^0[12]$")) == ["01", "02"]
    assert names(AISMapDataset(embedded_bucket.sdk, name_filter=lambda name: name > "07")) == ["08", "09"]


# ---- iterable


def test_dataset_pickles_after_use(embedded_bucket):
    """After len, bool, list and iter the dataset pickles, and the copy reads the same."""
    embedded_bucket.fill(FEW)
    dataset = AISIterDataset(embedded_bucket.sdk)
    used = (len(dataset), bool(dataset), list(dataset), next(iter(dataset)))
    assert list(pickle.loads(pickle.dumps(dataset))) == used[2]


def test_two_loops_and_len_do_not_meet(bucket):
    """Two loops at once and len() in between."""
    bucket.fill(FEW)
    dataset = AISIterDataset(bucket.sdk)
    assert [(a, b, len(dataset)) for a, b in zip(names(dataset), dataset, strict=True)] == [
        (name, (name, FEW[name]), 10) for name in sorted(FEW)
    ]


def test_ranks_share_the_epoch(bucket):
    """Each object on one rank."""
    bucket.fill(FEW)
    shares = [names(AISIterDataset(bucket.sdk, even="none", world=World(rank, 3))) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(FEW)


def test_len_of_the_loader_is_exact(embedded_bucket):
    """``len(loader)`` is the number of batches, with workers."""
    embedded_bucket.fill(FEW)
    loader = DataLoader(AISIterDataset(embedded_bucket.sdk, batch_size=3), batch_size=3, num_workers=2)
    assert len(loader) == len(list(loader)) == 4


def test_batches_for_any_number_of_workers(embedded_bucket):
    """The same batches with 0, 1, 2 and 3 workers."""
    embedded_bucket.fill(FEW)
    batches = [
        [list(b) for b, _ in DataLoader(AISIterDataset(embedded_bucket.sdk, batch_size=3), batch_size=3, num_workers=n)]
        for n in range(4)
    ]
    assert batches == [batches[0]] * 4


def test_shuffle_by_seed_and_epoch(embedded_bucket):
    """Order is a function of seed and epoch."""
    embedded_bucket.fill(FEW)
    make = lambda seed: AISIterDataset(embedded_bucket.sdk, shuffle=True, seed=seed)  # noqa: E731
    one, same, other = make(1), make(1), make(2)
    first, second = names(one), names(one)
    assert [names(same), names(same)] == [first, second]
    assert len({tuple(first), tuple(second), tuple(names(other))}) == 3
    one.set_epoch(1)
    assert names(one) == second


# ---- map


class Broken(AISMapDataset):
    """A subclass with a defect of its own."""

    def __getitem__(self, index):
        return [][index]


def test_index_error_inside_a_read(embedded_bucket):
    """An IndexError of the user's code keeps its text."""
    embedded_bucket.fill(FEW)
    with pytest.raises(IndexError, match="list index out of range"):
        Broken(embedded_bucket.sdk)[0]


def test_slice_is_refused(embedded_bucket):
    """A slice is told what to use."""
    embedded_bucket.fill(FEW)
    with pytest.raises(ConfigError, match="Subset"):
        AISMapDataset(embedded_bucket.sdk)[0:2]


def test_batch_of_indices_is_one_pass(embedded_bucket, faults):
    """While the first object of a batch is held back, the others are asked for."""
    embedded_bucket.fill(FEW)
    dataset = AISMapDataset(embedded_bucket.sdk)
    order: list[str] = []
    faults.add("delay", "get", match="09", times=1, seconds=0.3)
    order += [name for name, _ in dataset.__getitems__([9, 0, 1])]
    assert order == ["09", "00", "01"]


# ---- shards


def test_len_of_a_shard_reader_counts_samples(bucket):
    """``len()``, ``len(loader)`` and ``list()`` work: samples of this rank."""
    bucket.fill({f"{i}.tar": numbered(10 * i, 3 + i) for i in range(3)})
    reader = AISShardReader(bucket.sdk)
    assert (len(reader), len(list(reader)), len(DataLoader(reader, batch_size=None))) == (12, 12, 12)
    ranks = [AISShardReader(bucket.sdk, even="none", world=World(rank, 2)) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks] == [8, 4]


def test_keys_and_extensions(embedded_bucket):
    """First dot of the last component; lower case."""
    embedded_bucket.put("s.tar", tar(("v1.0/a.seg.PNG", b"1"), ("v1.0/a.png", b"2")))
    assert list(AISShardReader(embedded_bucket.sdk)) == [("v1.0/a", {"seg.png": b"1", "png": b"2"})]


def test_folders_tell_samples_apart(embedded_bucket):
    """Two folders, two samples."""
    embedded_bucket.put("s.tar", tar(("d1/x.jpg", b"1"), ("d2/x.jpg", b"2")))
    assert names(AISShardReader(embedded_bucket.sdk)) == ["d1/x", "d2/x"]


def test_leading_dot_slash(embedded_bucket):
    """``./x`` is ``x``."""
    embedded_bucket.put("s.tar", tar(("./x.jpg", b"1"), ("./x.cls", b"2")))
    assert list(AISShardReader(embedded_bucket.sdk)) == [("x", {"jpg": b"1", "cls": b"2"})]


@pytest.mark.parametrize("member", ["README", "d/README"])
def test_members_without_extension_are_passed_over(embedded_bucket, member):
    """They belong to no sample."""
    embedded_bucket.put("s.tar", tar((member, b"?"), ("x.jpg", b"1")))
    assert names(AISShardReader(embedded_bucket.sdk)) == ["x"]


def test_hidden_files_are_passed_over(embedded_bucket):
    """What macOS leaves behind is no sample."""
    embedded_bucket.put("s.tar", tar(("._x.jpg", b"?"), (".DS_Store", b"?"), ("d/._y.jpg", b"?"), ("x.jpg", b"1")))
    assert names(AISShardReader(embedded_bucket.sdk)) == ["x"]


def test_repeated_member_is_an_error(embedded_bucket):
    """A member that is there twice is said."""
    embedded_bucket.put("s.tar", tar(("x.jpg", b"1"), ("x.jpg", b"2")))
    with pytest.raises(CorruptShard, match="second member"):
        list(iter(AISShardReader(embedded_bucket.sdk)))


def test_key_that_comes_back_is_an_error(embedded_bucket):
    """Members of one sample stand together."""
    embedded_bucket.put("s.tar", tar(("x.jpg", b"1"), ("y.jpg", b"2"), ("x.cls", b"3")))
    with pytest.raises(CorruptShard, match="sample 'x' had ended"):
        names(iter(AISShardReader(embedded_bucket.sdk)))


def test_hard_links_are_followed(bucket):
    """A hard link is the file that it points to."""
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo("a.cls")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"cat"))
        link = tarfile.TarInfo("b.cls")
        link.type, link.linkname = tarfile.LNKTYPE, "a.cls"
        archive.addfile(link)
    bucket.put("s.tar", raw.getvalue())
    assert list(iter(AISShardReader(bucket.sdk))) == [("a", {"cls": b"cat"}), ("b", {"cls": b"cat"})]


@pytest.mark.parametrize("cut", [100, 512, 700, 1536, 2000, 2600])
def test_truncated_shard_is_an_error(bucket, cut):
    """Cut anywhere: the samples before it, then an error; never silently short."""
    whole = tar(*((f"{i}.bin", bytes([i]) * 600) for i in range(3)))
    bucket.put("s.tar", whole[:cut])
    found = []
    complete_end = cut == 1536  # a boundary: the two zero blocks are missing, all members are whole
    if complete_end:
        found = names(iter(AISShardReader(bucket.sdk)))
    else:
        with pytest.raises(CorruptShard, match=r"s\.tar"):
            found.extend(key for key, _ in iter(AISShardReader(bucket.sdk)))
    assert found == [str(i) for i in range(cut // 1536)][: len(found)]


def test_broken_shard_is_named(embedded_bucket):
    """Shard, member and offset are in the message."""
    embedded_bucket.put("bad.tar", tar(("a.jpg", b"1" * 1000), ("b.jpg", b"2" * 1000))[:2000])
    with pytest.raises(CorruptShard, match=r"bad\.tar.*offset 1536"):
        list(iter(AISShardReader(embedded_bucket.sdk)))


@pytest.mark.parametrize("content", [b"", b"this is no tar" * 100, tar(("a.jpg", b"1" * 1000))[:700]])
def test_broken_shard_has_no_length(bucket, content):
    """What cannot be counted is no number; ``list()``, which asks for one first, still tells which shard is broken."""
    bucket.put("bad.tar", content)
    with pytest.raises(CorruptShard, match=r"bad\.tar"):
        list(AISShardReader(bucket.sdk))
    with pytest.raises(TypeError, match=r"no len\(\)"):
        len(AISShardReader(bucket.sdk))


def test_broken_shard_can_be_skipped(embedded_bucket):
    """``on_error="skip"`` goes on with the next shard, and counts."""
    embedded_bucket.fill({"a.tar": b"this is no tar" * 100, "b.tar": numbered(0, 2)})
    reader = AISShardReader(embedded_bucket.sdk, on_error="skip")
    assert (names(iter(reader)), reader.stats()["skipped"]) == (["0000", "0001"], 1)


@pytest.mark.parametrize("form", ["tar.gz", "zip", "no extension"])
def test_compressed_and_zip_shards(bucket, form):
    """Told by their first bytes."""
    plain = numbered(0, 3)
    packed = {"tar.gz": gzip.compress(plain), "no extension": gzip.compress(plain)}
    if form == "zip":
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as archive:
            for i in range(3):
                archive.writestr(f"{i:04d}.bin", bytes([i]) * 10)
                archive.writestr(f"{i:04d}.cls", str(i))
        packed["zip"] = raw.getvalue()
    bucket.put("s" if form == "no extension" else f"s.{form}", packed[form])
    found = [(key, int(sample["cls"])) for key, sample in iter(AISShardReader(bucket.sdk))]
    assert found == [("0000", 0), ("0001", 1), ("0002", 2)]


def test_first_sample_before_the_last_part(embedded_bucket, faults, requests):
    """Samples come while later parts have not even been asked for."""
    embedded_bucket.put("s.tar", numbered(0, 200))
    plan = FetchPlan(range_bytes=4096, window_bytes=8192)
    iterator = iter(AISShardReader(embedded_bucket.sdk, fetch=plan, fields=("bin", "cls")))
    assert next(iterator)[0] == "0000"
    assert requests("get") < 10
    assert len(list(iterator)) == 199


def test_epochs_have_the_same_keys(embedded_bucket):
    """What the first epoch has seen does not change the second."""
    embedded_bucket.fill({"a.tar": shard(("a", {"jpg": b"1"})), "b.tar": shard(("b", {"txt": b"2"}))})
    reader = AISShardReader(embedded_bucket.sdk)
    assert list(iter(reader)) == list(iter(reader))


def test_fields_fix_the_keys(embedded_bucket):
    """The same keys in every shard, so batches across shards collate."""
    embedded_bucket.fill({"a.tar": shard(("a", {"jpg": b"1"})), "b.tar": shard(("b", {"cls": b"2"}))})
    (batch,) = DataLoader(AISShardReader(embedded_bucket.sdk, fields=("jpg", "cls")), batch_size=2)
    assert batch == [("a", "b"), {"jpg": [b"1", b""], "cls": [b"", b"2"]}]


def test_filled_in_keys_have_an_order(embedded_bucket):
    """That of ``fields``."""
    embedded_bucket.put("a.tar", shard(("a", {"c": b"1"})))
    ((_, sample),) = iter(AISShardReader(embedded_bucket.sdk, fields=("z", "c", "a")))
    assert list(sample) == ["z", "c", "a"]


def test_missing_field_can_be_an_error(embedded_bucket):
    """``missing="error"`` tells a missing field from an empty one."""
    embedded_bucket.put("a.tar", shard(("a", {"jpg": b"", "cls": b"1"}), ("b", {"cls": b"2"})))
    reader = iter(AISShardReader(embedded_bucket.sdk, fields=("jpg", "cls"), missing="error"))
    assert next(reader) == ("a", {"jpg": b"", "cls": b"1"})
    with pytest.raises(CorruptShard, match="sample 'b' has no field 'jpg'"):
        next(reader)


# ---- several shards


def stream_of(bucket, *prefixes, **options):
    sources = [DataShard(bucket.endpoint, bucket.name, prefix=prefix) for prefix in prefixes]
    return AISMultiShardStream(sources, **options)


def test_members_in_archive_order(bucket):
    """``f1, f10, f2`` stay as they are packed."""
    bucket.put("a.tar", tar(("f2", b"2"), ("f10", b"10"), ("f1", b"1")))
    assert list(stream_of(bucket, "a.tar")) == [(b"2",), (b"10",), (b"1",)]


def test_one_read_a_shard(embedded_bucket, requests):
    """One listing a source and one GET a shard, however many members; one more for its index, if the length is asked."""
    embedded_bucket.put("a.tar", tar(*((f"{i}", b"x") for i in range(50))))
    assert len([*iter(stream_of(embedded_bucket, "a.tar"))]) == 50
    assert (requests("list"), requests("get")) == (1, 1)
    assert len(list(stream_of(embedded_bucket, "a.tar"))) == 50  # asks for the length
    assert (requests("list"), requests("get")) == (2, 3)


def test_shortest_source_is_named(embedded_bucket, caplog):
    """The end of the shorter source is said; skipping members is refused."""
    embedded_bucket.fill({"a.tar": tar(("1", b"a")), "b.tar": tar(("1", b"b"), ("2", b"c"))})
    assert list(stream_of(embedded_bucket, "a", "b")) == [(b"a", b"b")]
    assert "a ended after 1 members" in caplog.text
    with pytest.raises(ConfigError):
        stream_of(embedded_bucket, "a", on_error="skip")


def test_sources_of_nothing_are_named(embedded_bucket, caplog):
    """Prefixes that match nothing give nothing, and it is said."""
    embedded_bucket.fill({"a.tar": tar(("1", b"a"))})
    assert list(stream_of(embedded_bucket, "no-such", "neither")) == []
    assert "no-such, " in caplog.text
    assert "there is no member in any shard" in caplog.text


def test_tuples_are_dealt(embedded_bucket):
    """Each tuple on one worker of one rank."""
    embedded_bucket.put("a.tar", tar(*((f"{i}", bytes([i])) for i in range(11))))
    shares = [
        list(DataLoader(stream_of(embedded_bucket, "a", world=World(rank, 2)), batch_size=None, num_workers=2))
        for rank in range(2)
    ]
    assert sorted(data for share in shares for (data,) in share) == [bytes([i]) for i in range(11)]


def test_neighbour_of_a_shard(embedded_bucket):
    """A neighbour that is no archive is named; ``name_filter`` leaves it out."""
    embedded_bucket.fill({"a.tar": tar(("1", b"a")), "a.tar.idx": b"index"})
    with pytest.raises(CorruptShard, match=r"a\.tar\.idx"):
        list(stream_of(embedded_bucket, "a.tar"))
    assert list(stream_of(embedded_bucket, "a.tar", name_filter=r"\.tar$")) == [(b"a",)]


def test_dot_slash_members_of_a_stream(embedded_bucket):
    """``./x`` is read like any other."""
    embedded_bucket.put("a.tar", tar(("./x", b"1")))
    assert list(stream_of(embedded_bucket, "a.tar")) == [(b"1",)]


def test_etl_of_a_stream_applies_once(embedded_bucket):
    """The ETL gets the shard, and its members are those of the result."""
    embedded_bucket.put("a.tar", tar(("x", b"abc"), ("y", b"def")))
    embedded_bucket.server.embedded.etl("gunzip-it", lambda data: data.replace(b"abc", b"ABC"))
    source = DataShard(embedded_bucket.endpoint, embedded_bucket.name, prefix="a", etl_name="gunzip-it")
    assert list(AISMultiShardStream([source])) == [(b"ABC",), (b"def",)]


def test_no_data_source_is_refused():
    """An empty list is an error."""
    with pytest.raises(ConfigError, match="must be provided"):
        AISMultiShardStream([])


def test_config_reaches_data_shards(embedded_bucket):
    """``config=`` is used instead of the DataShard's own client."""
    embedded_bucket.put("a.tar", tar(("x", b"1")))
    source = DataShard("http://127.0.0.1:1", embedded_bucket.name, prefix="a")
    assert list(AISMultiShardStream([source], config=embedded_bucket.server.config)) == [(b"1",)]


# ---- batches


def test_missing_object_in_a_batch(bucket):
    """Said, or skipped and counted; never ``b""``."""
    bucket.fill({"a": b"1", "empty": b""})
    group, client = bucket.sdk.objects(obj_names=["a", "gone", "empty"]), bucket.server.client()
    with pytest.raises(ObjectNotFound, match="gone"):
        list(AISBatchIterDataset(group, client))
    lenient = AISBatchIterDataset(group, client, cont_on_err=True)
    assert (list(lenient), lenient.stats()["skipped"]) == ([("a", b"1"), ("empty", b"")], 1)


@pytest.mark.parametrize("fault", ["batch_short", "batch_misordered"])
def test_short_batch_is_completed(embedded_bucket, faults, fault):
    """What an answer lacks, or has in another place, is read by GET."""
    embedded_bucket.fill(FEW)
    faults.add(fault, times=1)
    dataset = AISBatchIterDataset(embedded_bucket.sdk, embedded_bucket.server.client())
    assert list(dataset) == sorted(FEW.items())


def test_batch_of_zero_objects_is_refused(embedded_bucket):
    """``max_batch_size=0`` is an error."""
    with pytest.raises(ConfigError, match="batch_objects"):
        AISBatchIterDataset(embedded_bucket.sdk, embedded_bucket.server.client(), max_batch_size=0)


# ---- parts


def test_empty_object_in_parts(bucket):
    """No bytes are an empty buffer."""
    bucket.put("empty", b"")
    ((_, buffer),) = AISParallelMapDataset(bucket.sdk)
    assert (len(buffer), buffer.tobytes()) == (0, b"")


def test_buffer_needs_no_closing(embedded_bucket):
    """It pickles, and nothing lies in shared memory (the fixture of every test looks)."""
    embedded_bucket.put("o", b"abc")
    _, buffer = AISParallelMapDataset(embedded_bucket.sdk)[0]
    assert pickle.loads(pickle.dumps(buffer)).tobytes() == b"abc"


def test_parts_start_no_process(embedded_bucket, requests):
    """Parts are requests of this process."""
    embedded_bucket.put("o", bytes(1000))
    dataset = AISParallelMapDataset(embedded_bucket.sdk, fetch=FetchPlan(range_bytes=100))
    before = {thread.ident for thread in threading.enumerate()}
    assert len(dataset[0][1]) == 1000
    assert requests("get") == 10
    assert len({thread.ident for thread in threading.enumerate()} - before) <= 1  # the engine's


def test_number_of_parts_is_checked(embedded_bucket):
    """1 works, 0 is refused."""
    embedded_bucket.put("o", b"abc")
    assert AISParallelMapDataset(embedded_bucket.sdk, num_workers=1)[0][1].tobytes() == b"abc"
    with pytest.raises(ConfigError, match="num_workers"):
        AISParallelMapDataset(embedded_bucket.sdk, num_workers=0)


# ---- sampler and client


@pytest.fixture
def tens(embedded_bucket):
    embedded_bucket.fill({f"{i}": b"x" * (10 if i else 0) for i in range(7)})
    return AISMapDataset(embedded_bucket.sdk)


def test_len_of_the_sampler_counts_batches(tens):
    """``len()`` is what comes out."""
    sampler = DynamicBatchSampler(tens, 20)
    assert len(sampler) == len(list(sampler)) == 3


def test_sampler_keeps_empty_objects(tens):
    """An object of zero bytes is in a batch."""
    assert 0 in next(iter(DynamicBatchSampler(tens, 20)))


def test_sampler_deals_batches(tens):
    """Ranks share the batches."""
    ranks = [list(DynamicBatchSampler(tens, 20, even="none", world=World(rank, 2))) for rank in range(2)]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(7))


def test_sampler_shuffles_by_seed_and_epoch(tens):
    """The order is a function of seed and epoch."""
    one, same = (DynamicBatchSampler(tens, 20, shuffle=True, seed=5) for _ in range(2))
    first, second = list(one), list(one)
    assert first != second
    same.set_epoch(1)
    assert list(same) == second


@pytest.mark.parametrize(
    "wrong", [{"max_batch_size": 0}, {"max_batch_size": -1}, {"max_batch_size": 1, "saturation_factor": 2}]
)
def test_sampler_limit_is_checked(tens, wrong):
    """Limits that cannot work are refused at construction."""
    with pytest.raises(ConfigError):
        DynamicBatchSampler(tens, **wrong)


def test_sampler_asks_for_sizes(embedded_bucket, requests):
    """One HEAD for each object of a group, in flight together."""
    embedded_bucket.fill(FEW)
    dataset = AISMapDataset(embedded_bucket.sdk.objects(obj_names=sorted(FEW)))
    assert list(DynamicBatchSampler(dataset, 1000)) == [list(range(10))]
    assert requests("head") == 10
    assert np.array_equal(dataset._listing.sizes, np.arange(1, 11))


def test_session_for_each_thread(embedded_bucket):
    """Threads do not share a session."""
    client = WorkerRequestClient(Client(embedded_bucket.endpoint).bucket("b").client)
    found = [client.session]
    thread = threading.Thread(target=lambda: found.append(client.session))
    thread.start()
    thread.join()
    assert found[0] is client.session is not found[1]


# ---- progress


def test_progress_without_a_terminal(embedded_bucket, capsys):
    """Plain lines on standard error; nothing else."""
    embedded_bucket.fill(FEW)
    list(AISIterDataset(embedded_bucket.sdk, show_progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("AISIterDataset: 10/10 objects, 0.0 MB,")
    assert "\x1b" not in err
    assert "\r" not in err


def test_one_progress_for_all_workers(embedded_bucket, capfd):
    """One closing line for each epoch, with the counts of all workers; also when they end at the same moment."""
    embedded_bucket.fill(FEW)
    dataset = AISIterDataset(embedded_bucket.sdk, show_progress=True)
    loader = DataLoader(dataset, batch_size=None, num_workers=4, persistent_workers=True)
    for _ in range(30):
        list(loader)
    lines = capfd.readouterr().err.strip().splitlines()
    assert [line.split(",")[0] for line in lines] == ["AISIterDataset: 10/10 objects"] * 30


def test_two_passes_with_progress(embedded_bucket, capsys):
    """Two passes at once do not disturb each other."""
    embedded_bucket.fill(FEW)
    dataset = AISIterDataset(embedded_bucket.sdk, show_progress=True)
    assert len(list(zip(dataset, dataset, strict=True))) == 10
    assert "10" in capsys.readouterr().err


def test_no_alive_progress():
    """The package needs no progress library but tqdm."""
    code = "import sys; sys.modules['alive_progress'] = None; import aisdatapipes; print('fine')"
    assert in_another_process(code) == "fine"
