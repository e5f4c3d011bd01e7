"""Manifests of shards that keep where the samples are: datasets plan by them without an index."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import pytest
from samples import numbered, shard
from torch.utils.data import DataLoader

from aisdatapipes import (
    AISShardMapDataset,
    AISShardReader,
    ConfigError,
    CorruptBody,
    CorruptShard,
    Manifest,
    UnreadableManifest,
    World,
)
from aisdatapipes.wire.manifest import decoded_manifest, encoded_manifest

SHARDS = {
    "a/0.tar": numbered(0, 5),
    "a/1.tar": shard(),
    "a/2.tar": numbered(5, 7),
    "b/0.tar": shard(("x", {"txt": b"T"})),
}
TOTAL = 13


@pytest.fixture
def shards(bucket):
    bucket.fill(SHARDS)
    return bucket


def saved_and_loaded(manifest, folder, bucket):
    manifest.save(folder / "saved.npz")
    return Manifest.load(folder / "saved.npz", config=bucket.server.config)


def made(bucket, folder, index="client", **options):
    return saved_and_loaded(
        Manifest.of(bucket.url, config=bucket.server.config, index=index, **options), folder, bucket
    )


@pytest.mark.parametrize("index", ["client", "server"])
def test_no_index_is_read(shards, tmp_path, index):
    """The samples of the shards, their order and their state, and not a request before the first sample's."""
    plain = AISShardReader(shards.url, config=shards.server.config, index=index, shuffle=True)
    manifest = made(shards, tmp_path, index)
    assert (TOTAL, f"with {TOTAL} samples" in repr(manifest)) == (len(manifest.table), True)
    reader = AISShardReader(manifest, shuffle=True)
    assert (TOTAL, 0, plain.state_dict(batches=3)) == (
        len(reader),
        reader.stats()["requests"],
        reader.state_dict(batches=3),
    )
    assert list(plain) == list(reader)
    assert reader.stats()["requests"] <= TOTAL
    assert list(AISShardReader(shards.url, config=shards.server.config, index="off")) == list(AISShardReader(manifest))
    mapped = AISShardMapDataset(manifest)
    assert (TOTAL, 0) == (len(mapped), mapped.stats()["requests"])
    assert [key for key, _ in AISShardReader(manifest)] == [mapped[i][0] for i in range(TOTAL)]


def test_it_is_the_table_that_indexes_make(embedded_bucket, tmp_path):
    """Of all shards, of some, and of several manifests: the same fingerprint, so the same states."""
    embedded_bucket.fill(SHARDS)
    config, url = embedded_bucket.server.config, embedded_bucket.url
    manifest = made(embedded_bucket, tmp_path)
    parts = [Manifest.of(f"{url}{folder}/", config=config, index="client") for folder in "ba"]
    for given, sources, options in (
        (manifest, url, {}),
        (manifest, url, {"name_filter": r"[b0]"}),
        (manifest, url, {"name_filter": r"1|2"}),
        (manifest, url, {"name_filter": r"nothing"}),
        (parts, [f"{url}b/", f"{url}a/"], {}),
        ([manifest, manifest], [url, url], {}),
        (Manifest.of(manifest, index="server"), url, {}),
    ):
        expected = AISShardReader(sources, config=config, index="client", **options)
        found = AISShardReader(given, index="client", **options)
        assert expected._table.fingerprint == found._table.fingerprint
        assert expected._table.extensions == found._table.extensions
        assert list(expected) == list(found)
        requests = 0 if given != [manifest, manifest] else None  # shards that are there twice are looked up again
        assert requests in (None, AISShardReader(given, **options).stats()["requests"])


def test_of_a_dataset_is_what_it_goes_by(embedded_bucket, tmp_path):
    """A reader's and a map dataset's table; none of one that streams."""
    embedded_bucket.fill(SHARDS)
    options = {"config": embedded_bucket.server.config}
    reader = AISShardReader(embedded_bucket.url, index="client", **options)
    mapped = AISShardMapDataset(embedded_bucket.url, index="client", **options)
    for dataset in (reader, mapped):
        loaded = saved_and_loaded(Manifest.of(dataset), tmp_path, embedded_bucket)
        assert dataset._table.fingerprint == loaded.table.fingerprint
    assert Manifest.of(AISShardReader(embedded_bucket.url, index="off", **options)).table is None
    with pytest.raises(ConfigError, match="takes what the dataset has"):
        Manifest.of(reader, index="client")


def test_without_a_table(embedded_bucket, tmp_path):
    """What was saved before there were tables, or of a cluster that has no indexes, is a listing as ever."""
    embedded_bucket.fill(SHARDS)
    for options in ({}, {"index": "auto"}):
        manifest = saved_and_loaded(
            Manifest.of(embedded_bucket.url, config=embedded_bucket.server.config, **options), tmp_path, embedded_bucket
        )
        assert manifest.table is None
        reader = AISShardReader(manifest)
        assert (TOTAL, False) == (len(list(reader)), reader._samples_are_items)
    assert AISShardReader(made(embedded_bucket, tmp_path), index="off")._table is None


def test_ranks_and_spawned_workers_go_by_it(embedded_bucket, tmp_path):
    """No rank reads an index, and workers neither."""
    embedded_bucket.fill(SHARDS)
    manifest = made(embedded_bucket, tmp_path)
    keys = []
    for rank in range(2):
        reader = AISShardReader(manifest, shuffle=True, world=World(rank, 2), even="none", batch_size=1)
        loader = DataLoader(reader, batch_size=None, num_workers=2, multiprocessing_context="spawn")
        keys += [key for key, _ in loader]
        assert reader.stats()["requests"] <= len(reader)
    assert sorted(key for key, _ in AISShardReader(manifest)) == sorted(keys)
    assert manifest.table.fingerprint == pickle.loads(pickle.dumps(manifest)).table.fingerprint


def test_a_shard_that_was_overwritten(embedded_bucket, tmp_path):
    """Is an error when it is read, never other bytes; `refresh` finds out, and then it is read."""
    embedded_bucket.fill(SHARDS)
    manifest = made(embedded_bucket, tmp_path)
    embedded_bucket.put("a/2.tar", numbered(20, 7))
    with pytest.raises(CorruptBody, match=r"a/2\.tar.*overwritten since it was indexed"):
        list(AISShardReader(manifest))
    before = manifest.table.fingerprint
    assert not manifest.refresh()  # the same names and sizes
    assert before != manifest.table.fingerprint
    assert "0026" == list(AISShardReader(manifest))[-2][0]
    embedded_bucket.put("a/3.tar", numbered(30, 1))
    assert [f"{embedded_bucket.url}a/3.tar"] == list(manifest.refresh().added)
    assert TOTAL + 1 == len(AISShardReader(manifest))


def test_a_refresh_that_fails_changes_nothing(embedded_bucket, tmp_path):
    """Names, sizes and samples stay together."""
    embedded_bucket.fill(SHARDS)
    manifest = made(embedded_bucket, tmp_path)
    table, names = manifest.table, list(manifest.names)
    embedded_bucket.put("c.tar", b"no tar")
    with pytest.raises(CorruptShard, match=r"c\.tar"):
        manifest.refresh()
    assert (table, names) == (manifest.table, list(manifest.names))


def test_a_changed_table_is_told(embedded_bucket, tmp_path):
    """A byte of a key, or another kind of index, is damage that names the file."""
    embedded_bucket.fill(SHARDS)
    made(embedded_bucket, tmp_path)
    saved = decoded_manifest((tmp_path / "saved.npz").read_bytes())
    for column, value, message in (
        ("keys", b"9" + saved.samples.keys[1:], "fingerprint"),
        ("index", "other", "unknown kind"),
    ):
        samples = dataclasses.replace(saved.samples, **{column: value})
        (tmp_path / "bad.npz").write_bytes(encoded_manifest(dataclasses.replace(saved, samples=samples)))
        with pytest.raises(UnreadableManifest, match=rf"bad\.npz.*{message}"):
            Manifest.load(tmp_path / "bad.npz", config=embedded_bucket.server.config)


def test_bad_index(embedded_bucket):
    """It is told at once; what cannot be indexed is named."""
    with pytest.raises(ConfigError, match="index must be one of"):
        Manifest.of(embedded_bucket.url, config=embedded_bucket.server.config, index="yes")
    embedded_bucket.put("a.txt", b"text")
    with pytest.raises(CorruptShard, match=r"a\.txt"):
        Manifest.of(embedded_bucket.url, config=embedded_bucket.server.config, index="client")


def test_two_manifests_of_different_shards(embedded_bucket):
    """Together they are all of it, in the order given."""
    embedded_bucket.fill(SHARDS)
    config = embedded_bucket.server.config
    both = [Manifest.of(f"{embedded_bucket.url}{one}", config=config, index="client") for one in ("b/", "a/")]
    keys = [[key for key, _ in AISShardReader(one)] for one in both]
    assert list(itertools.chain.from_iterable(keys)) == [key for key, _ in AISShardReader(both)]
