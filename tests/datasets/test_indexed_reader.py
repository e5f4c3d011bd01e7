"""The shard reader with an index: samples are dealt, shuffled and resumed one by one, and are those of the stream."""

from __future__ import annotations

import itertools

import pytest
from samples import numbered, shard
from torch.utils.data import DataLoader

from aisdatapipes import AISShardReader, ConfigError, CorruptBody, CorruptShard, NotResumable, World
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexjob import indexed_by_server
from aisdatapipes.model.url import AISURL
from aisdatapipes.testing import check_order, check_resume
from aisdatapipes.wire.tar import END, entry

SHARDS = {"a.tar": numbered(0, 20), "b.tar": shard(), "c.tar": numbered(20, 7), "d/e.tar": numbered(27, 30)}
TOTAL = 57


@pytest.fixture
def shards(bucket):
    bucket.fill(SHARDS)
    return bucket


def made(bucket, cls=AISShardReader, **options):
    return cls(bucket.url, config=bucket.server.config, **options)


def numbers(samples):
    return [int(sample["cls"]) for _, sample in samples]


def let_index(bucket):
    cluster = Clusters(bucket.server.config)
    url = AISURL.parse(f"{bucket.url}a.tar")
    indexed_by_server(cluster.of(url), url)


@pytest.mark.parametrize("index", ["client", "server"])
def test_samples_are_those_of_the_stream(shards, index):
    """All of them, in order; and each epoch again."""
    expected = list(made(shards, index="off"))
    dataset = made(shards, index=index)
    assert (expected, expected, TOTAL) == (list(dataset), list(dataset), len(dataset))
    assert AISShardReader.ZeroDict is type(next(iter(dataset))[1])


@pytest.mark.parametrize("index", ["client", "server"])
def test_requests_for_indexes_are_counted(shards, index):
    """They are requests, but nobody got an object by them."""
    dataset = made(shards, index=index)
    len(dataset)
    stats = dataset.stats()
    assert len(SHARDS) <= stats["requests"]
    assert (stats["objects"], stats["bytes"]) == (0, 0)


def test_auto_takes_what_is_there(shards):
    """First nothing: shards are dealt whole; then the server's: samples are."""
    before, expected = made(shards, shuffle=True), list(range(TOTAL))
    order = numbers(before)
    assert (expected, False) == (sorted(order), before._samples_are_items)
    let_index(shards)
    after = made(shards, shuffle=True)
    shuffled = numbers(after)
    assert (expected, True, True) == (sorted(shuffled), after._samples_are_items, shuffled != order)
    before.set_epoch(0)
    assert order == numbers(before)  # who has begun without goes on without


def test_auto_does_not_trust_this_machine_alone(embedded_bucket):
    """An index that other machines may not have counts for one rank only."""
    embedded_bucket.fill(SHARDS)
    list(made(embedded_bucket, index="client"))
    assert made(embedded_bucket)._samples_are_items
    assert not made(embedded_bucket, world=World(0, 2))._samples_are_items
    assert made(embedded_bucket, world=World(0, 2), index="client")._samples_are_items


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_workers_partition_the_samples(shards, ranks, shuffle):
    """Every sample once over all of them, in batches that do not depend on the number of workers."""
    seen = []
    for rank in range(ranks):
        options = {"index": "client", "shuffle": shuffle, "batch_size": 4, "even": "none", "world": World(rank, ranks)}
        batches = []
        for workers in (0, 2):
            dataset = made(shards, **options)
            loader = DataLoader(dataset, batch_size=4, num_workers=workers)
            batches.append([[int(label) for label in batch["cls"]] for _, batch in loader])
            assert sum(map(len, batches[-1])) == len(dataset)
        assert batches[0] == batches[1]
        seen += itertools.chain.from_iterable(batches[0])
    assert list(range(TOTAL)) == sorted(seen)


def test_ranks_of_equal_length(shards):
    """With "repeat" every rank has as many samples, whatever the shards."""
    lengths = [len(made(shards, index="client", world=World(rank, 4))) for rank in range(4)]
    assert [15] * 4 == lengths


def test_resume_at_every_cut_and_on_another_world(embedded_bucket):
    """The state counts samples, and goes on at the next one with any number of ranks."""
    embedded_bucket.fill(SHARDS)
    options = {"index": "client", "shuffle": True, "seed": 3}
    every = numbers(made(embedded_bucket, **options))
    for cut in (0, 1, 19, 20, TOTAL - 1):
        dataset = made(embedded_bucket, **options)
        iterator = iter(dataset)
        taken = numbers(itertools.islice(iterator, cut))
        state = dataset.state_dict()
        iterator.close()
        assert state == dataset.state_dict(batches=cut)
        again = made(embedded_bucket, **options)
        again.load_state_dict(state)
        assert every == taken + numbers(again)
        ranks = [made(embedded_bucket, even="none", world=World(rank, 2), **options) for rank in range(2)]
        for rank in ranks:
            rank.load_state_dict(state)
        assert sorted(every[cut:]) == sorted(numbers(ranks[0]) + numbers(ranks[1]))


FAR = bytes(65 << 10)  # labels on both sides of it are not read together
FAR_SHARDS = {
    f"{first}.tar": shard(*((f"{i:04d}", {"bin": FAR, "cls": str(i).encode()}) for i in range(first, first + 12)))
    for first in range(0, 36, 12)
}


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"shuffle": True, "block_bytes": 1 << 18}], ids=str)
def test_laws_of_labels_that_are_picked(embedded_bucket, options):
    """The same for labels that are picked out of their shards: shares, and every cut."""
    embedded_bucket.fill(FAR_SHARDS)

    def make(world, even="none"):
        return made(embedded_bucket, index="client", fields=("cls",), seed=5, even=even, world=world, **options)

    check_order(make)
    check_resume(make)


@pytest.mark.parametrize("shuffle", [False, True])
def test_labels_cost_two_requests_a_shard(bucket, shuffle):
    """Whether they come in order or not; for one of many workers they are read one by one."""
    bucket.fill(FAR_SHARDS)
    options = {"index": "client", "fields": ("cls",), "shuffle": shuffle, "even": "none"}
    for world, requests in ((World(), 2 * len(FAR_SHARDS)), (World(0, 8), 5)):
        dataset = made(bucket, world=world, **options)
        number = len(dataset)
        before = dataset.stats()["requests"]
        assert number == len(list(dataset))
        assert dataset.stats()["requests"] - before == requests


@pytest.mark.parametrize("options", [
    {"block_bytes": 8 << 10, "window_blocks": 2}, {"block_bytes": 1, "window_blocks": 1}, {"block_bytes": 1 << 30},
    {"block_bytes": 20 << 10, "window_blocks": 3, "fields": ("cls",)}, {},
], ids=str)  # fmt: skip
def test_laws_of_order_and_resume(embedded_bucket, options):
    """Shuffled one by one or by blocks: shares make up the epoch, every cut goes on, on any world."""
    embedded_bucket.fill(SHARDS)

    def make(world, even="none"):
        return made(embedded_bucket, index="client", shuffle=True, seed=5, even=even, world=world, **options)

    check_order(make)
    check_order(lambda world: make(world, "repeat"), even="repeat", worlds=[(4, 1)])
    check_resume(make, cuts=(0, 1, 16, 40, TOTAL - 1))


def test_blocks_do_not_depend_on_workers(shards):
    """The batches of a rank are the same for any number of workers, and so is the plan's."""
    batches = []
    for workers in (0, 2, 3):
        dataset = made(shards, index="client", shuffle=True, block_bytes=8 << 10, window_blocks=2, batch_size=4)
        loader = DataLoader(dataset, batch_size=4, num_workers=workers)
        batches.append([[int(label) for label in batch["cls"]] for _, batch in loader])
    assert batches[0] == batches[1] == batches[2]
    assert list(range(TOTAL)) == sorted(itertools.chain.from_iterable(batches[0]))
    one_by_one = numbers(made(shards, index="client", shuffle=True, batch_size=4))
    assert one_by_one != list(itertools.chain.from_iterable(batches[0]))


def test_a_block_is_one_request(embedded_bucket):
    """Whatever the order of its samples; and two where it lies in two shards."""
    embedded_bucket.fill({f"{number}.tar": numbered(32 * number, 32) for number in range(4)})
    size = 8 * sum(map(len, (numbered(32 * number, 32) for number in range(4)))) // 128
    for blocks, requests in ((1, 16), (16, 4)):
        dataset = made(embedded_bucket, index="client", shuffle=True, block_bytes=size + 1, window_blocks=blocks)
        len(dataset)
        before = dataset.stats()["requests"]
        order = numbers(dataset)
        assert (list(range(128)), requests) == (sorted(order), dataset.stats()["requests"] - before)
        assert order != sorted(order)


def test_a_state_of_other_blocks_does_not_fit(embedded_bucket):
    """Another size of blocks, another window or none: an error that says which, and not another sample."""
    embedded_bucket.fill(SHARDS)
    options = {"index": "client", "shuffle": True}
    state = made(embedded_bucket, block_bytes=1024, window_blocks=3, **options).state_dict(batches=5)
    made(embedded_bucket, block_bytes=1024, window_blocks=3, **options).load_state_dict(state)
    for other in ({}, {"block_bytes": 1024}, {"block_bytes": 1023, "window_blocks": 3}):
        with pytest.raises(NotResumable, match="block_bytes=1024 and window_blocks=3"):
            made(embedded_bucket, **other, **options).load_state_dict(state)
    with pytest.raises(NotResumable, match="blocks must be two numbers"):
        made(embedded_bucket, **options).load_state_dict(state | {"blocks": [1]})


def test_blocks_need_an_index(embedded_bucket, caplog):
    """Told at once where there cannot be one; where there is none, shards are shuffled as a whole, and it is told."""
    embedded_bucket.fill(SHARDS)
    with pytest.raises(ConfigError, match="block_bytes needs an index"):
        made(embedded_bucket, index="off", block_bytes=1)
    assert list(range(TOTAL)) == sorted(numbers(made(embedded_bucket, shuffle=True, block_bytes=1)))
    assert "block_bytes has no effect" in caplog.text
    assert list(range(TOTAL)) == numbers(made(embedded_bucket, index="client", block_bytes=1))  # nothing is shuffled


def test_a_state_of_streamed_shards_does_not_fit(embedded_bucket):
    """It counts other things: that is an error, and not another sample."""
    embedded_bucket.fill(SHARDS)
    state = made(embedded_bucket, index="off").state_dict(epoch=0)
    dataset = made(embedded_bucket, index="client")
    dataset.load_state_dict(state)  # nothing is listed yet
    with pytest.raises(NotResumable, match="fingerprint"):
        next(iter(dataset))


def test_missing_and_fields(embedded_bucket):
    """What is left out is counted in len and in states, as everywhere."""
    both, alone = {"x": b"x", "cls": b"1"}, {"cls": b"2"}
    embedded_bucket.put("a.tar", shard(("1", both), ("2", alone), ("3", both), ("4", both)))
    dataset = made(embedded_bucket, index="client", fields=("cls", "x"), missing="skip")
    assert ["1", "3", "4"] == [key for key, _ in dataset]
    assert (4, 1) == (len(dataset), dataset.stats()["skipped"])
    dataset.set_epoch(0)
    iterator = iter(dataset)
    assert ["1", "3"] == [key for key, _ in itertools.islice(iterator, 2)]
    assert 3 == dataset.state_dict()["position"]
    iterator.close()


def test_sources_by_worker(shards):
    """Each worker takes the samples of its sources."""
    options = {"index": "client", "partition_sources_by_worker": True, "config": shards.server.config}
    dataset = AISShardReader([f"{shards.url}a", f"{shards.url}b", f"{shards.url}c", f"{shards.url}d"], **options)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert list(range(TOTAL)) == sorted(numbers(loader))


def test_one_decision_for_all_workers(shards):
    """Workers that start before anybody has asked: one of them finds the indexes, the others take its result."""
    let_index(shards)
    dataset = made(shards, batch_size=1, shuffle=True)
    found = numbers(DataLoader(dataset, batch_size=None, num_workers=3))
    assert (list(range(TOTAL)), 1) == (sorted(found), dataset.stats()["lists"])
    assert found == numbers(made(shards, batch_size=1, shuffle=True))


class Own(AISShardReader):
    """A subclass of old, which deals objects itself."""

    def __iter__(self):
        self._reset_iterator()
        objects, _ = self._get_worker_iter_info()
        return iter([item.name for item in objects])


def test_subclasses_that_ask_for_objects(embedded_bucket):
    """They get them, whatever there is; who wants an index as well hears that it cannot be."""
    embedded_bucket.fill(SHARDS)
    let_index(embedded_bucket)
    assert list(SHARDS) == list(made(embedded_bucket, Own))
    with pytest.raises(ConfigError, match="index='off'"):
        list(made(embedded_bucket, Own, index="server"))


def test_errors_that_are_borne(shards):
    """A shard that was overwritten costs its samples, which are counted; without on_error it is an error."""
    dataset, strict = (made(shards, index="client", on_error=on_error) for on_error in ("skip", "raise"))
    assert TOTAL == len(dataset) == len(strict)
    shards.put("c.tar", numbered(60, 7))
    assert ([*range(20), *range(27, TOTAL)], 7) == (numbers(dataset), dataset.stats()["skipped"])
    with pytest.raises(CorruptBody, match=r"c\.tar.*overwritten since"):
        list(strict)


def test_shards_that_cannot_be_indexed(embedded_bucket):
    """Auto streams them, and the error comes in its turn; else it comes at once."""
    embedded_bucket.fill(
        {"a.tar": numbered(0, 3), "b.tar": entry("a.x", b"") + entry("b.x", b"") + entry("a.y", b"") + END}
    )
    let_index(embedded_bucket)
    iterator = iter(made(embedded_bucket))
    assert ["0000", "0001", "0002"] == [next(iterator)[0] for _ in range(3)]
    iterator.close()
    with pytest.raises(CorruptShard, match="sample 'a' had ended"):
        next(iter(made(embedded_bucket, index="server")))


def test_bad_index(embedded_bucket):
    """It is told at once."""
    with pytest.raises(ConfigError, match="index must be one of"):
        made(embedded_bucket, index="yes")


def test_a_plan_is_of_samples(embedded_bucket):
    """Its rows are the samples that come, by shard and key."""
    embedded_bucket.fill(SHARDS)
    dataset = made(embedded_bucket, index="client", shuffle=True)
    plan = dataset.plan(epoch=0)
    keys = [name.rpartition(" ")[2] for row in plan for name in row.items]
    assert [key for key, _ in dataset] == keys
    assert plan.headline.startswith(f"epoch 0: {TOTAL} samples, shuffled")
