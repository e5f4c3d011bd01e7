"""Samples whose fields lie in shards of several sources, joined by their keys."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

from aisdatapipes import AISShardMapDataset, AISShardReader, ConfigError, CorruptShard, Manifest, World
from aisdatapipes.testing import check_dataset, check_order, check_resume
from tests.datasets.samples import shard

KEYS = [[f"a{i}" for i in range(5)], [f"b{i}" for i in range(7)]]


def images(keys):
    return shard(*((key, {"jpg": b"J" + key.encode() * 40, "json": b"{}"}) for key in keys))


def texts(keys):
    return shard(*((key, {"txt": b"T" + key.encode()}) for key in keys))


def labels(keys):
    return shard(*((key, {"cls": key[1:].encode()}) for key in keys))


EXPECTED = [
    (key, {"jpg": b"J" + key.encode() * 40, "json": b"{}", "txt": b"T" + key.encode(), "cls": key[1:].encode()})
    for keys in KEYS
    for key in keys
]


@pytest.fixture
def shards(bucket):
    return filled(bucket)


def filled(bucket):
    for number, keys in enumerate(KEYS):
        bucket.put(f"img-{number}.tar", images(keys))
        bucket.put(f"txt-{number}.tar", texts(keys[::-1]))  # in another order
    bucket.put("cls-all.tar", labels([key for keys in KEYS for key in keys]))  # in another number of shards
    return bucket


def made(bucket, *, cls=AISShardReader, join=("txt-", "cls-"), index="client", **options):
    columns = [f"{bucket.url}{column}" for column in join]
    return cls(f"{bucket.url}img-", join=columns, index=index, config=bucket.server.config, **options)


@pytest.mark.parametrize("index", ["client", "server"])
def test_samples_have_the_fields_of_all(shards, index):
    """In the order of the first source, whatever the order and the number of shards of the others."""
    dataset = made(shards, index=index)
    assert (EXPECTED, len(EXPECTED)) == (list(dataset), len(dataset))
    at = made(shards, cls=AISShardMapDataset, index=index)
    assert ([EXPECTED[3], EXPECTED[11]], EXPECTED[7]) == (at.__getitems__([3, 11]), at[7])


def test_laws(shards):
    """Shuffled, dealt and resumed as any other samples."""

    def make(world):
        return made(shards, shuffle=True, even="none", world=world)

    check_order(make)
    check_resume(make, cuts=[0, 1, 6, 11])


def test_a_dataset_like_others(embedded_bucket):
    """Epochs, copies by pickle, fork and spawn, loaders, and loops that break off."""
    check_dataset(made(filled(embedded_bucket), shuffle=True))


def test_workers_and_blocks(shards):
    """Workers join nothing anew, and blocks of samples are blocks in all sources."""
    dataset = made(shards, shuffle=True, block_bytes=4096, window_blocks=2)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(EXPECTED) == sorted((key, dict(sample)) for key, sample in loader)


def test_one_column_and_fields(shards):
    """A single source may be given as it is; only the fields that are asked for are read."""
    dataset = AISShardReader(
        f"{shards.url}img-", join=f"{shards.url}txt-", index="client", config=shards.server.config, fields=("txt",)
    )
    assert [(key, {"txt": sample["txt"]}) for key, sample in EXPECTED] == list(dataset)
    assert sum(len(sample["txt"]) for _, sample in EXPECTED) == dataset.stats()["bytes"]


@pytest.mark.parametrize(("missing", "keys"), [("zero", ["x", "y"]), ("skip", ["x"]), ("error", None)])
def test_what_has_no_partner(embedded_bucket, missing, keys, caplog):
    """A sample without one lacks fields, as any other; one that nobody asks for is left out; both are told."""
    embedded_bucket.fill({"img-0.tar": images(["x", "y"]), "txt-0.tar": texts(["w", "x"])})
    dataset = made(embedded_bucket, join=["txt-"], missing=missing)
    if keys is None:
        with pytest.raises(CorruptShard, match="sample 'y' has no field 'txt'"):
            list(dataset)
    else:
        found = list(dataset)
        assert keys == [key for key, _ in found]
        assert [b"Tx", b""][: len(keys)] == [sample["txt"] for _, sample in found]
    assert "1 of 2 samples, such as 'y' of " in caplog.text
    assert "1 of 2 samples, such as 'w' of " in caplog.text


def test_manifests_are_joined(embedded_bucket):
    """Manifests that keep where samples are stand for both sides, and nothing is asked of the cluster."""
    filled(embedded_bucket)
    config = embedded_bucket.server.config
    left, right = (
        Manifest.of(f"{embedded_bucket.url}{name}-", config=config, index="client") for name in ("img", "txt")
    )
    dataset = AISShardReader(left, join=right, fields=("jpg", "txt"))
    assert [(key, {"jpg": one["jpg"], "txt": one["txt"]}) for key, one in EXPECTED] == list(dataset)
    with pytest.raises(ConfigError, match="a manifest of each"):
        Manifest.of(dataset)


def test_keys_that_come_again_in_each_shard(embedded_bucket):
    """Shards at the same place belong together; without that it is an error that names the shards."""
    for number in range(2):
        embedded_bucket.put(f"img-{number}.tar", images(["0", "1"]))
        embedded_bucket.put(f"txt-{number}.tar", shard(*((key, {"txt": f"{number}{key}".encode()}) for key in "10")))
    assert [b"00", b"01", b"10", b"11"] == [sample["txt"] for _, sample in made(embedded_bucket, join=["txt-"])]
    embedded_bucket.put("img-2.tar", images(["0"]))
    with pytest.raises(CorruptShard, match=r"img-2\.tar: .*which sample belongs to '0'.*txt-0\.tar and .*txt-1\.tar"):
        len(made(embedded_bucket, join=["txt-"]))


def test_a_field_in_both(embedded_bucket):
    """It cannot be told which is meant."""
    embedded_bucket.fill({"img-0.tar": images(["x", "y"]), "meta-0.tar": shard(("y", {"json": b"[]"}))})
    with pytest.raises(CorruptShard, match=r"img-0\.tar: .*sample 'y' has a field 'json' here and in .*meta-0\.tar"):
        len(made(embedded_bucket, join=["meta-"]))


def test_a_join_needs_an_index(embedded_bucket):
    """Streams cannot be looked up: that is said at once, or when it is found that there is none."""
    filled(embedded_bucket)
    with pytest.raises(ConfigError, match=r"join needs an index.*'server'"):
        made(embedded_bucket, index="off")
    with pytest.raises(ConfigError, match=r"join needs an index of every shard, index='server'.*no index of"):
        list(made(embedded_bucket, index="auto"))
    with pytest.raises(ConfigError, match="must be provided"):
        made(embedded_bucket, join=[])


def test_a_shard_of_the_other_source_that_was_overwritten(embedded_bucket):
    """Its samples are errors that name it, and the state is of all sources."""
    dataset = made(filled(embedded_bucket), on_error="skip")
    state = dataset.state_dict(epoch=0)
    embedded_bucket.put("txt-1.tar", texts(["q"]))
    assert [key for key, _ in EXPECTED[:5]] == [key for key, _ in dataset]
    other = made(embedded_bucket, join=["txt-"], world=World(0, 1))
    len(other)
    with pytest.raises(ValueError, match="fingerprint"):
        other.load_state_dict(state)
