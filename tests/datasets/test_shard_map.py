"""Samples of shards by index: those of the shard reader, in any order, from every kind of index."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest
from samples import numbered, shard
from torch.utils.data import DataLoader

from aisdatapipes import AISSampler, AISShardMapDataset, AISShardReader, ConfigError, CorruptBody, DynamicBatchSampler
from aisdatapipes.wire.tar import END, entry

SHARDS = {"a.tar": numbered(0, 20), "b.tar": shard(), "c.tar": numbered(20, 7), "d/e.tar": numbered(27, 30)}
TOTAL = 57


@pytest.fixture
def shards(bucket):
    bucket.fill(SHARDS)
    return bucket


def made(bucket, **options):
    return AISShardMapDataset(bucket.url, config=bucket.server.config, **options)


@pytest.mark.parametrize("index", ["auto", "client", "server"])
def test_samples_are_those_of_the_reader(shards, index):
    """In order one by one, and a batch in any order in one pass; the same from every kind of index."""
    expected = list(AISShardReader(shards.url, config=shards.server.config))
    dataset = made(shards, index=index)
    assert (TOTAL, expected) == (len(dataset), [dataset[position] for position in range(TOTAL)])
    assert [expected[position] for position in (40, 3, 3, -1)] == dataset.__getitems__([40, 3, 3, -1])
    assert AISShardReader.ZeroDict is type(dataset[0][1])


def test_a_batch_is_few_requests(shards):
    """Neighbours in a shard are read together; shards are listed once, and indexed once."""
    dataset = made(shards)
    before = dataset.stats()
    dataset.__getitems__(list(range(20)))
    after = dataset.stats()
    assert [20, 1, 0] == [after[name] - before[name] for name in ("objects", "requests", "lists")]
    assert 1 == after["lists"]


def test_through_a_loader(shards):
    """Every sample once, by workers that inherited the table, or got it by pickle."""
    dataset = made(shards, fields=("cls",))
    for method in ("fork", "spawn"):
        loader = DataLoader(
            dataset, batch_sampler=AISSampler(dataset, shuffle=True, batch_size=8), num_workers=2,
            multiprocessing_context=multiprocessing.get_context(method),
        )  # fmt: skip
        found = [int(label) for _, fields in loader for label in fields["cls"]]
        assert (list(range(TOTAL)), True) == (sorted(found), found != sorted(found))


def test_a_copy_is_the_same(shards):
    """Pickled after use; and nothing is listed or indexed again."""
    dataset = made(shards)
    copy = pickle.loads(pickle.dumps(dataset))
    assert (dataset[5], dataset.identity(), 0) == (copy[5], copy.identity(), copy.stats()["lists"])


def test_fields(shards):
    """Exactly these, in this order, from alternatives; nothing else is read."""
    key, sample = made(shards, fields=("cls", "png;bin", "txt"))[20]
    assert ("0020", [("cls", b"20"), ("png", bytes([20]) * 10), ("txt", b"")]) == (key, list(sample.items()))


def test_lookup_by_key(shards):
    """A key leads to its index."""
    dataset = made(shards)
    assert ([33], []) == (dataset.positions_of("0033"), dataset.positions_of("33"))


def test_batches_by_bytes(shards):
    """Sizes are those of samples, of the fields that are read, and not those of shards."""
    dataset = made(shards, fields=("bin",))
    batches = list(DynamicBatchSampler(dataset, max_batch_size=100))
    assert [*[10] * 5, 7] == [len(batch) for batch in batches]
    assert [] == list(DynamicBatchSampler(dataset, max_batch_size=9))


def test_a_sampler_knows_the_data(shards):
    """A state of other samples does not fit."""
    dataset = made(shards)
    state = AISSampler(dataset, batch_size=4).state_dict(batches=2, epoch=0)
    shards.put("c.tar", numbered(100, 7))
    again = made(shards)
    assert (dataset.identity().number, True) == (again.identity().number, dataset.identity() != again.identity())
    with pytest.raises(ValueError, match="fingerprint"):
        AISSampler(again, batch_size=4).load_state_dict(state)


def test_a_shard_that_was_overwritten(shards):
    """Never other bytes than those that were indexed."""
    dataset = made(shards)
    shards.put("c.tar", numbered(50, 7))
    with pytest.raises(CorruptBody, match=r"c\.tar.*overwritten since it was indexed"):
        dataset[20]
    borne = made(shards, on_error="skip")
    shards.put("c.tar", numbered(60, 7))
    assert ["0019", "0027"] == [key for key, _ in borne.__getitems__([19, 20, 27])]
    assert 1 == borne.stats()["skipped"]


class Keys(AISShardMapDataset):
    """A subclass that says itself what a sample is."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0]


def test_a_subclass_says_what_a_sample_is(shards):
    """Also of a batch."""
    assert ["0003", "0004"] == Keys(shards.url, config=shards.server.config).__getitems__([3, 4])


@pytest.mark.parametrize(("options", "words"), [
    ({"index": "off"}, "needs an index"), ({"index": "both"}, "index must be one of"), ({"missing": "skip"}, "at each index"),
    ({"missing": "none"}, "missing must be one of"), ({"fields": "jpg"}, "fields is a tuple"),
])  # fmt: skip
def test_bad_arguments(embedded_bucket, options, words):
    """They are told at once."""
    with pytest.raises(ConfigError, match=words):
        made(embedded_bucket, **options)


def test_bad_indices(embedded_bucket):
    """Outside of the dataset there is nothing."""
    embedded_bucket.fill(SHARDS)
    dataset = made(embedded_bucket)
    for index in (TOTAL, -TOTAL - 1):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(ConfigError, match="not a slice"):
        dataset[1:2]


def test_progress(embedded_bucket, capsys):
    """Away from a terminal nothing is written that is done at once."""
    embedded_bucket.fill({"a.tar": entry("a.x", b"") + END})
    made(embedded_bucket, show_progress=True, index="server")
    assert "" == capsys.readouterr().err
