"""Manifests: of sources and datasets, saved, loaded and in the place of sources, on both servers."""

from __future__ import annotations

import dataclasses
import pickle
import re
import resource
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from aistore.sdk.dataset.data_shard import DataShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from aisdatapipes import (
    AISBatchIterDataset,
    AISIterDataset,
    AISMapDataset,
    AISMix,
    AISMultiShardStream,
    AISParallelMapDataset,
    AISShardReader,
    BucketNotFound,
    ClientConfig,
    ConfigError,
    DynamicBatchSampler,
    InvalidURL,
    Manifest,
    ObjectNotFound,
    UnreadableManifest,
    World,
)
from aisdatapipes.devserver import DevCluster
from aisdatapipes.flow.listing import Listing
from aisdatapipes.store.source import Source
from aisdatapipes.wire.manifest import decoded_manifest, encoded_manifest
from tests.datasets.samples import OldStyle, numbered

METHODS = ("fork", "spawn", "forkserver")
OBJECTS = {f"d{i // 10}/{i:03d}": bytes([i]) * i for i in range(37)}
SAMPLES = sorted(OBJECTS.items())
# No slashes in a row and no bytes beyond UTF-8, which file systems below a real cluster repair or refuse; no control
# characters, which it stores and does not list.
ODD = ["a b", "a#b", "a%20b", "a?b=c", "d/é漢.jpg", "d/..x", "q'uote\"", "~"]
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there


def saved_and_loaded(manifest, path, config):
    manifest.save(path)
    return Manifest.load(path, config=config)


def told(manifest):
    return list(manifest.names), manifest.sizes.tolist(), manifest.fingerprint, len(manifest)


def listing_of(dataset):
    return dataset._listing() if callable(dataset._listing) else dataset._listing


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def made_up(names, sizes=None, counts=None, buckets=("b",)):
    """A manifest of names that nobody listed."""
    from aisdatapipes.model.url import AISURL

    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    sources = [Source(ClientConfig(NOBODY), AISURL.parse(f"ais://{bucket}")) for bucket in buckets]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    found = np.array(sizes if sizes is not None else [-1] * len(names), np.int64)
    return Manifest(Listing(sources, counts or [len(names)], b"".join(encoded), ends, found))


# ---- what it holds


def test_a_manifest_has_names_and_sizes_in_the_order_of_the_listing(bucket):
    """Names, sizes, length and fingerprint are those of a dataset's listing."""
    bucket.fill(OBJECTS)
    manifest = Manifest.of(bucket.sdk)
    assert list(manifest.names) == [name for name, _ in SAMPLES]
    assert manifest.sizes.tolist() == [len(data) for _, data in SAMPLES]
    assert (len(manifest), manifest.fingerprint) == (37, listing_of(AISIterDataset(bucket.sdk)).fingerprint)


def test_names_are_a_sequence_and_sizes_cannot_be_written_to():
    """Indices from both ends, slices, membership; a size that somebody sets would belie the fingerprint."""
    manifest = made_up(["a", "b", "c"], [1, 2, 3])
    names = manifest.names
    assert (names[0], names[-1], names[1:], "b" in names, "d" in names) == ("a", "c", ["b", "c"], True, False)
    with pytest.raises(IndexError):
        names[3]
    with pytest.raises(ValueError, match="read-only"):
        manifest.sizes[0] = 7


def test_repr_says_what_it_is_of():
    """Count, places and fingerprint; of many places the first."""
    manifest = made_up(["a"] * 7, counts=[1] * 7, buckets=[f"b{i}" for i in range(7)])
    assert repr(manifest) == (
        "<Manifest: 7 objects of ais://b0/, ais://b1/, ais://b2/, ais://b3/, ais://b4/, ..., "
        f"fingerprint {manifest.fingerprint}>"
    )


@pytest.mark.parametrize("kind", [AISIterDataset, AISMapDataset])
def test_of_a_dataset_is_of_what_it_reads(bucket, kind, tmp_path):
    """Its prefixes and filter count, and it lists once for both."""
    bucket.fill(OBJECTS)
    dataset = kind(bucket.sdk, {bucket.sdk: ["d2/", "d0/"]}, name_filter="[05]$")
    manifest = Manifest.of(dataset)
    wanted = ["d2/020", "d2/025", "d0/000", "d0/005"]
    assert list(manifest.names) == wanted
    assert [name for name, _ in dataset] == wanted
    assert dataset.stats()["lists"] == 1
    assert told(saved_and_loaded(manifest, tmp_path / "m", bucket.endpoint)) == told(manifest)
    assert not manifest.refresh()
    with pytest.raises(ConfigError, match="takes what the dataset has"):
        Manifest.of(dataset, name_filter="x")


# ---- saved and loaded


def test_a_loaded_manifest_is_the_saved_one(bucket, tmp_path):
    """From a file and from an object of the cluster, over one that was there; equal manifests are equal bytes."""
    bucket.fill(OBJECTS)
    manifest = Manifest.of([bucket.sdk, f"ais://{bucket.name}/d1/"], config=bucket.endpoint)
    path, url = tmp_path / "train.npz", f"ais://{bucket.name}/lists/train.npz"
    for where in (path, str(path), url, url):
        assert told(saved_and_loaded(manifest, where, bucket.endpoint)) == told(manifest)
    assert bucket.sdk.object("lists/train.npz").get_reader().read_all() == path.read_bytes()
    assert names_in(tmp_path) == ["train.npz"]


def test_an_address_says_the_cluster_of_the_object(embedded_bucket):
    """The HTTP form has an endpoint of its own, for the object alone; ``config`` is for the sources."""
    embedded_bucket.put("a", b"1")
    address = f"{embedded_bucket.endpoint}/v1/objects/{embedded_bucket.name}/lists/m.npz?provider=ais"
    with DevCluster(targets=1) as other:
        other.create_bucket("b")
        other.put("b", "z", b"2")
        manifest = Manifest.of("ais://b/", config=other.endpoint)
        manifest.save(address)
        loaded = Manifest.load(address, config=other.endpoint)
        assert list(AISIterDataset(loaded)) == [("z", b"2")]
    assert embedded_bucket.sdk.object("lists/m.npz").get_reader().read_all()[:2] == b"PK"


def test_odd_names_survive(bucket, tmp_path):
    """What a real cluster can store is read by a manifest's names."""
    bucket.fill({name: name.encode() for name in ODD})
    loaded = saved_and_loaded(Manifest.of(bucket.sdk), tmp_path / "m", bucket.endpoint)
    assert sorted(loaded.names) == sorted(ODD)
    assert sorted(AISIterDataset(loaded)) == sorted((name, name.encode()) for name in ODD)


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(-1, (1 << 63) - 1)), max_size=20), st.integers(0, 20))
def test_names_of_any_bytes_survive(pairs, cut):
    """``//``, ``#``, half characters, empty ones; in one source or two, one of them empty."""
    names = [name.decode("utf-8", "surrogateescape") for name, _ in pairs]
    first = min(cut, len(names))
    manifest = made_up(names, [size for _, size in pairs], [first, len(names) - first], ("b", "c"))
    from aisdatapipes.datasets.manifest import _restored

    saved = decoded_manifest(encoded_manifest(manifest._saved()))
    restored = Manifest(_restored(saved, ClientConfig(NOBODY)))
    assert told(restored) == told(manifest)
    assert list(restored.names) == names
    assert restored.listing.urls(range(len(names))) == manifest.listing.urls(range(len(names)))


def test_a_manifest_pickles():
    """With its filter, if that can be."""
    manifest = made_up(["a", "b"])
    assert told(pickle.loads(pickle.dumps(manifest))) == told(manifest)


def test_nothing_of_endpoint_and_token_is_saved(tmp_path):
    """Whoever gets the file learns neither; whoever loads it sends no token to where a file says."""
    with DevCluster(targets=1, token="T0KEN") as cluster:
        cluster.create_bucket("b")
        cluster.put("b", "a", b"1")
        config = ClientConfig(cluster.endpoint, token="T0KEN")
        manifest = Manifest.of("ais://b/", config=config)
        manifest.save(tmp_path / "m")
        manifest.save("ais://b/m")
        with zipfile.ZipFile(tmp_path / "m") as archive:
            text = b"".join(map(archive.read, archive.namelist()))
        assert b"T0KEN" not in text
        assert b"127.0.0.1" not in text
        assert "T0KEN" not in repr(manifest)
        assert list(AISIterDataset(Manifest.load("ais://b/m", config=config))) == [("a", b"1")]


def test_sources_on_two_clusters_are_two_manifests(embedded_bucket, tmp_path):
    """Which file is of which cluster is the caller's to say; a dataset takes the list of them."""
    embedded_bucket.put("a", b"1")
    with DevCluster(targets=1) as other:
        other.create_bucket("b")
        other.put("b", "z", b"2")
        mine = Manifest.of(embedded_bucket.url, config=embedded_bucket.endpoint)
        theirs = Manifest.of("ais://b/", config=other.endpoint)
        both = Manifest.of([theirs, mine])
        with pytest.raises(ConfigError, match="of one cluster, and this one is of 2"):
            both.save(tmp_path / "m")
        assert list(AISIterDataset(both)) == [("z", b"2"), ("a", b"1")]
        dataset = AISIterDataset([theirs, mine])
        assert list(dataset) == [("z", b"2"), ("a", b"1")]
        assert dataset.stats()["lists"] == 0


# ---- in the place of sources


def iterable(manifest, **options):
    return AISIterDataset(manifest, **options)


def old_style(manifest, **options):
    return OldStyle(manifest, **options)


@pytest.mark.parametrize("make", [iterable, old_style, AISMapDataset])
def test_a_dataset_of_a_manifest_lists_nothing(bucket, make, tmp_path):
    """Every object in the order of the listing, in two epochs, and no listing at all."""
    bucket.fill(OBJECTS)
    loaded = saved_and_loaded(Manifest.of(bucket.sdk), tmp_path / "m", bucket.endpoint)
    dataset = make(loaded)
    assert [list(dataset), list(dataset), len(dataset)] == [SAMPLES, SAMPLES, 37]
    assert dataset.stats()["lists"] == 0
    assert listing_of(dataset).fingerprint == loaded.fingerprint
    if make is not AISMapDataset:
        dataset._reset_iterator()
    objects = dataset.get_obj_list() if make is AISMapDataset else dataset._get_worker_iter_info()[0]
    assert next(iter(objects)).get_reader().read_all() == SAMPLES[0][1]


def test_all_datasets_take_one(bucket, tmp_path):
    """Shards, streams of shards, batches, large objects."""
    bucket.fill({"s/0.tar": numbered(0, 4), "s/1.tar": numbered(4, 4), "t/0.tar": numbered(8, 8)})
    shards = [DataShard(bucket.endpoint, bucket.name, prefix=prefix) for prefix in ("s/", "t/")]
    loaded = saved_and_loaded(Manifest.of(shards), tmp_path / "m", bucket.endpoint)
    client = bucket.server.client()
    reader, stream = AISShardReader(loaded), AISMultiShardStream(loaded)
    batch, large = AISBatchIterDataset(loaded, client), AISParallelMapDataset(loaded)
    assert [key for key, _ in reader] == [f"{i:04d}" for i in range(16)]
    assert list(stream) == list(AISMultiShardStream(shards))
    assert list(batch) == list(AISBatchIterDataset(shards, client))
    assert [(name, data.tobytes()) for name, data in large] == list(batch)
    assert [one.stats()["lists"] for one in (reader, stream, batch, large)] == [0, 0, 0, 0]


def test_manifests_and_other_sources_mix(bucket):
    """In the order given; only the others are listed."""
    bucket.fill(OBJECTS)
    manifest = Manifest.of(bucket.sdk, {bucket.sdk: "d1/"})
    parts = ["d3/", "d0/"]
    dataset = AISIterDataset(
        [f"{bucket.url}{parts[0]}", manifest, f"{bucket.url}{parts[1]}"], config=bucket.server.config
    )
    wanted = [name for part in ("d3/", "d1/", "d0/") for name, _ in SAMPLES if name.startswith(part)]
    assert [name for name, _ in dataset] == wanted
    assert dataset.stats()["lists"] == 1
    assert list(Manifest.of([manifest, manifest]).names) == [name for name, _ in SAMPLES if name.startswith("d1/")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_workers_inherit_it(bucket, method):
    """fork, spawn and forkserver: every sample once, in every epoch, and nothing is listed."""
    bucket.fill(OBJECTS)
    manifest = Manifest.of(bucket.sdk, name_filter=lambda name: not name.endswith("7"))
    # A function that does not pickle stays with the manifest, also where that is a key.
    dataset = AISIterDataset(manifest, {manifest: ["d0/", "d1/", "d2/"]}, batch_size=5, name_filter="/0")
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context=method)
    wanted = [name for name, _ in SAMPLES if not name.endswith("7") and name < "d3"]
    assert [[name for names, _ in loader for name in names] for _ in range(2)] == [wanted, wanted]
    assert dataset.stats()["lists"] == 0


def test_ranks_with_one_manifest_share_the_epoch(bucket):
    """Rank 0 saves, all load: shares partition the epoch, in an order that is the manifest's."""
    bucket.fill(OBJECTS)
    url = f"{bucket.url}lists/m.npz"
    Manifest.of(bucket.sdk).save(url)
    bucket.put("d0/new", b"after the listing")
    shares = []
    for rank in range(3):
        loaded = Manifest.load(url, config=bucket.endpoint)
        dataset = AISIterDataset(loaded, shuffle=True, seed=1, even="none", world=World(rank, 3))
        shares.append([name for name, _ in dataset])
    assert sorted(name for share in shares for name in share) == [name for name, _ in SAMPLES]


def test_an_object_that_is_gone_is_named(bucket):
    """A manifest is a snapshot: what was deleted meanwhile is an error of that object, or skipped."""
    bucket.fill({"a": b"1", "b": b"2"})
    manifest = Manifest.of(bucket.sdk)
    bucket.sdk.object("a").delete()
    with pytest.raises(ObjectNotFound, match=f"ais://{bucket.name}/a"):
        list(AISIterDataset(manifest))
    assert list(AISIterDataset(manifest, on_error="skip")) == [("b", b"2")]


@pytest.mark.parametrize("prefixes", ["d1/", ["d3/", "d1/", "d1/01"], [], None, "", "nobody"])
@pytest.mark.parametrize("name_filter", [None, "[05]$", lambda name: "1" in name])
def test_prefixes_and_filters_choose_of_it_what_they_choose_of_a_bucket(embedded_bucket, prefixes, name_filter):
    """Names, order and fingerprint are those of the listing with these arguments, and the manifest stays whole."""
    embedded_bucket.fill(OBJECTS)
    sdk = embedded_bucket.sdk
    manifest = Manifest.of(sdk)
    whole = told(manifest)
    wanted = listing_of(AISIterDataset(sdk, {sdk: prefixes}, name_filter=name_filter))
    for key in (manifest, sdk, embedded_bucket.url):
        dataset = AISIterDataset(manifest, {key: prefixes}, name_filter=name_filter)
        found = listing_of(dataset)
        assert (found.fingerprint, list(found)) == (wanted.fingerprint, list(wanted))
        assert dataset.stats()["lists"] == 0
    assert told(manifest) == whole


def test_prefixes_beyond_the_manifest_are_refused(embedded_bucket):
    """It cannot say what it does not have; that is no empty dataset."""
    embedded_bucket.fill(OBJECTS)
    manifest = Manifest.of(f"{embedded_bucket.url}d1/", config=embedded_bucket.endpoint)
    assert len(AISIterDataset(manifest, {embedded_bucket.sdk: "d1/01"})) == 10
    for prefix in ("d2/", "d", ""):
        with pytest.raises(ConfigError, match=f"only names with d1/, so it cannot say which begin with '{prefix}'"):
            AISIterDataset(manifest, {embedded_bucket.sdk: prefix})
    with pytest.raises(ConfigError, match="ais://other is none of the sources"):
        AISIterDataset(manifest, {"ais://other": ""})
    with pytest.raises(ConfigError, match="is none of the sources"):
        AISIterDataset(embedded_bucket.sdk, {manifest: "d1/"})


def test_sizes_that_are_found_out_stay_with_the_dataset(bucket):
    """An ObjectGroup tells no sizes; who needs them asks, and the manifest's fingerprint stays true."""
    bucket.fill(OBJECTS)
    group = bucket.sdk.objects(obj_names=["d1/010", "d0/005"])
    manifest = Manifest.of(group)
    of_manifest, of_group = AISMapDataset(manifest), AISMapDataset(group)
    another = Manifest.of(of_group)
    for dataset in (of_manifest, of_group):
        assert list(DynamicBatchSampler(dataset, max_batch_size=12)) == [[0], [1]]
        assert listing_of(dataset).sizes.tolist() == [10, 5]
    for one in (manifest, another):
        assert one.sizes.tolist() == [-1, -1]
        assert one.fingerprint == one.listing.fingerprint


# ---- refresh


def test_refresh_says_what_differs(bucket, tmp_path):
    """Added, removed, changed in size; datasets made before keep what they have."""
    bucket.fill(OBJECTS)
    first = Manifest.of(bucket.sdk)
    manifest = saved_and_loaded(first, tmp_path / "m", bucket.endpoint)
    dataset = AISIterDataset(manifest)
    same = manifest.refresh()
    assert (bool(same), str(same), manifest.fingerprint) == (False, "0 added, 0 removed, 0 changed", first.fingerprint)
    bucket.put("d0/new", b"1")
    bucket.put("d0/003", b"other")
    bucket.sdk.object("d0/004").delete()
    changes = manifest.refresh()
    root = f"ais://{bucket.name}"
    assert (changes.added, changes.removed) == ((f"{root}/d0/new",), (f"{root}/d0/004",))
    assert (changes.changed, bool(changes)) == ((f"{root}/d0/003",), True)
    assert str(changes) == "1 added, 1 removed, 1 changed"
    assert (changes.before, changes.after) == (first.fingerprint, manifest.fingerprint)
    assert told(manifest) == told(Manifest.of(bucket.sdk))
    assert (len(dataset), len(AISIterDataset(manifest))) == (37, 37)
    assert listing_of(dataset).fingerprint == first.fingerprint


def test_refresh_asks_for_what_was_asked_for(embedded_bucket, tmp_path):
    """Prefixes, names given one by one, and a regular expression with its flags are saved."""
    embedded_bucket.fill(OBJECTS)
    sdk = embedded_bucket.sdk
    sources = [sdk, sdk.objects(obj_names=["d3/030", "d1/011"])]
    manifest = Manifest.of(sources, {sdk: ["d1/", "d0/"]}, name_filter=re.compile("D.*[01]$", re.IGNORECASE))
    loaded = saved_and_loaded(manifest, tmp_path / "m", embedded_bucket.endpoint)
    wanted = ["d1/010", "d1/011", "d0/000", "d0/001", "d3/030", "d1/011"]
    assert (list(loaded.names), bool(loaded.refresh()), list(loaded.names)) == (wanted, False, wanted)
    embedded_bucket.fill({"d2/new0": b"", "d1/new0": b"", "d1/new2": b""})
    assert loaded.refresh().added == (f"ais://{embedded_bucket.name}/d1/new0",)


def test_a_function_as_filter_is_asked_for_again(embedded_bucket, tmp_path):
    """No file can hold it; it is not forgotten that there was one, also not by another save."""
    embedded_bucket.fill(OBJECTS)
    manifest = Manifest.of(embedded_bucket.sdk, name_filter=str.isdigit)
    manifest = Manifest.of(embedded_bucket.sdk, name_filter=lambda name: name.endswith("1"))
    assert not manifest.refresh()
    for _ in range(2):
        manifest = saved_and_loaded(manifest, tmp_path / "m", embedded_bucket.endpoint)
        with pytest.raises(ConfigError, match=r"say it, refresh\(name_filter=...\)"):
            manifest.refresh()
    assert not manifest.refresh(name_filter=lambda name: name.endswith("1"))
    with pytest.raises(ConfigError, match="make another one"):
        manifest.refresh(name_filter="x")


def test_what_is_made_of_manifests_does_not_forget_their_filters(embedded_bucket, tmp_path):
    """A refresh would bring in what they left out: it is asked which names stay, after a save, too."""
    embedded_bucket.fill(OBJECTS)
    some, whole = Manifest.of(embedded_bucket.sdk, name_filter="1$"), Manifest.of(embedded_bucket.sdk)
    made = [Manifest.of([whole, some]), Manifest.of(some, name_filter="^d2"), Manifest.of(AISIterDataset(some))]
    made += [saved_and_loaded(one, tmp_path / "m", embedded_bucket.endpoint) for one in made]
    for manifest in made:
        before = told(manifest)
        with pytest.raises(ConfigError, match="it is made of other manifests"):
            manifest.refresh()
        assert told(manifest) == before
    assert not made[1].refresh(name_filter="^d2.*1$")
    assert not Manifest.of([whole, whole]).refresh()
    assert not Manifest.of(whole, name_filter="1$").refresh()


def test_a_refresh_that_fails_changes_nothing(embedded_bucket):
    """What it held it holds."""
    embedded_bucket.fill(OBJECTS)
    manifest = Manifest.of(embedded_bucket.sdk)
    before = told(manifest)
    embedded_bucket.sdk.delete()
    with pytest.raises(BucketNotFound):
        manifest.refresh()
    assert told(manifest) == before


def test_a_changed_order_is_a_change(embedded_bucket):
    """The same objects in another order have another fingerprint, and so has one that is there twice."""
    from aisdatapipes.flow.changes import changes

    one, two = made_up(["a", "b"], [1, 1]).listing, made_up(["b", "a"], [1, 1]).listing
    twice = made_up(["a", "b", "a"], [1, 1, 1]).listing
    assert [bool(changes(one, other)) for other in (one, two, twice)] == [False, True, True]
    assert [str(changes(one, other)) for other in (two, twice)] == ["0 added, 0 removed, 0 changed"] * 2


# ---- what cannot work


@pytest.mark.parametrize("sources", [None, "", []])
def test_of_nothing_is_refused(sources):
    """As a dataset refuses it."""
    with pytest.raises(ConfigError, match=r"<Manifest\.of>"):
        Manifest.of(sources)


def test_a_file_that_is_none_is_named(tmp_path):
    """The message has the path, what is wrong, and what to do."""
    path = tmp_path / "train.npz"
    made_up(["a", "b"]).save(path)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UnreadableManifest, match="cannot be read as a manifest") as caught:
            Manifest.load(path, config=NOBODY)
        assert str(path) in str(caught.value)
        assert "make it again" in str(caught.value)


def test_a_file_whose_content_was_changed_is_named(tmp_path):
    """Another name or another size, well packed, has another fingerprint."""
    path = tmp_path / "train.npz"
    saved = made_up(["a", "b"], [1, 2])._saved()
    for changes in ({"blob": b"ac"}, {"sizes": np.array([1, 3])}, {"fingerprint": "0" * 16}):
        path.write_bytes(encoded_manifest(dataclasses.replace(saved, **changes)))
        with pytest.raises(UnreadableManifest, match="damaged: its names and sizes have the fingerprint") as caught:
            Manifest.load(path, config=NOBODY)
        assert str(path) in str(caught.value)


def test_a_file_with_impossible_sources_or_filter_is_named(tmp_path):
    """A bucket that is no URL, an expression that is none."""
    from aisdatapipes.wire.manifest import SavedFilter

    path = tmp_path / "train.npz"
    saved = made_up(["a"])._saved()
    source = dataclasses.replace(saved.sources[0], bucket="b/c")
    for changes in (
        {"sources": (source,)},
        {"name_filter": SavedFilter("(")},
        {"name_filter": SavedFilter("a", 1 << 70)},
    ):
        path.write_bytes(encoded_manifest(dataclasses.replace(saved, **changes)))
        with pytest.raises(UnreadableManifest, match="cannot be read as a manifest"):
            Manifest.load(path, config=NOBODY)


def test_an_object_that_is_none_is_named(bucket):
    """In the cluster as in a file: damaged, absent, in no bucket."""
    url = f"{bucket.url}lists/m.npz"
    with pytest.raises(ObjectNotFound, match=r"lists/m\.npz"):
        Manifest.load(url, config=bucket.endpoint)
    bucket.put("lists/m.npz", b"damaged")
    with pytest.raises(UnreadableManifest, match=r"lists/m\.npz: cannot be read as a manifest"):
        Manifest.load(url, config=bucket.endpoint)
    manifest = Manifest.of(bucket.sdk)
    with pytest.raises(BucketNotFound, match="cannot write"):
        manifest.save("ais://no-such-bucket-of-ours/m.npz")


def test_places_that_cannot_hold_one_are_refused(tmp_path, monkeypatch):
    """A bucket, a folder, another scheme; no endpoint; and no half-written file stays."""
    manifest = made_up(["a"])
    for place in ("ais://b", "ais://b/", "ais://b/x/"):
        with pytest.raises(InvalidURL, match="this is no object"):
            manifest.save(place)
    with pytest.raises(InvalidURL, match="unknown provider 'file'"):
        manifest.save("file:///tmp/m")
    with pytest.raises(FileNotFoundError):
        manifest.save(tmp_path / "no" / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        manifest.save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="nothing"):
        Manifest.load(tmp_path / "nothing", config=NOBODY)
    monkeypatch.delenv("AIS_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match="no endpoint"):
        Manifest.load(tmp_path / "nothing")
    assert names_in(tmp_path) == ["folder"]


def test_a_save_that_fails_leaves_the_old_one(tmp_path):
    """A disk that takes no more leaves the old manifest under the name, and nothing beside it."""
    path = tmp_path / "m"
    made_up(["a"]).save(path)
    before, large = path.read_bytes(), made_up([f"{i * i}" for i in range(1000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))
    try:
        with pytest.raises(OSError, match="too large"):
            large.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["m"]


@pytest.mark.slow
def test_a_million_names_are_held_in_arrays(tmp_path):
    """16 bytes an object and its name; saving and loading take a few times that, and a few bytes on disk."""
    count = 1_000_000
    blob = b"".join(b"train/n%08d/%010d.jpg" % (i // 1000, i) for i in range(count))
    ends = np.arange(1, count + 1) * (len(blob) // count)
    sizes = np.arange(count) % 100_000
    source = made_up(["a"]).listing.sources[0]
    manifest = Manifest(Listing([source], [count], blob, ends, sizes))
    path = tmp_path / "m"
    tracemalloc.start()
    try:
        manifest.save(path)
        saving = tracemalloc.get_traced_memory()[1]
        tracemalloc.clear_traces()
        loaded = Manifest.load(path, config=NOBODY)
        held, loading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loaded.fingerprint == manifest.fingerprint
    assert path.stat().st_size / count < 8
    assert held <= (len(blob) + 16 * count) * 1.05
    assert loading <= held * 3
    assert saving <= held * 3
    dataset = AISIterDataset(loaded)
    assert listing_of(dataset).blob is loaded.listing.blob


def test_documents_open_it_with_numpy(tmp_path):
    """The block in docs/manifest.md that reads a manifest without us."""
    made_up(["a", "é", "\udcff"], [1, 2, 3]).save(tmp_path / "train.npz")
    text = (Path(__file__).parents[2] / "docs/manifest.md").read_text()
    (block,) = [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "numpy.load" in one]
    space: dict[str, object] = {}
    exec(block.replace('"train.npz"', repr(str(tmp_path / "train.npz"))), space)
    assert space["names"] == [b"a", "é".encode(), b"\xff"]


def test_what_has_no_listing_of_its_own_is_refused(embedded_bucket):
    """A mix reads other datasets, and each of them has a listing."""
    embedded_bucket.fill({"a": b"A"})
    mix = AISMix({AISIterDataset(embedded_bucket.url, config=embedded_bucket.server.config): 1})
    with pytest.raises(ConfigError, match="AISMix has no listing of its own; make one of each dataset"):
        Manifest.of(mix)
