"""Streamed shards whose samples are shuffled in a buffer: the same samples, in another order, and exact states."""

from __future__ import annotations

import itertools
import json

import pytest
from samples import numbered
from torch.utils.data import DataLoader

from aisdatapipes import AISShardReader, ConfigError, CorruptShard, NotResumable, World

FIELDS = ("jpg", "cls")
SHARDS = {f"{number}.tar": numbered(6 * number, 6) for number in range(4)}
ALL = 24
SIZES = (1, 4, 6, 10, 24, 1000)  # in one shard, one shard, over several, all of them


@pytest.fixture
def shards(bucket):
    bucket.fill(SHARDS)
    return bucket


def made(bucket, size=10, **options):
    chosen = {"index": "off", "shuffle": True, "fields": FIELDS, "shuffle_buffer": size, **options}
    return AISShardReader(bucket.url, config=bucket.server.config, **chosen)


def keys(data):
    return [key for key, _ in data]


def after(bucket, cut, size=10, **options):
    """The state behind so many samples, as a file would have kept it."""
    data = made(bucket, size, **options)
    passing = iter(data)
    list(itertools.islice(passing, cut))
    state = json.loads(json.dumps(data.state_dict()))
    passing.close()
    return state


def gone_on(bucket, state, size=10, **options):
    data = made(bucket, size, **options)
    data.load_state_dict(state)
    return data


@pytest.mark.parametrize("size", SIZES)
def test_each_filling_is_shuffled(shards, size):
    """Every filling has the samples that come one after the other without a buffer, in another order."""
    plain, found = keys(made(shards, 0)), list(made(shards, size))
    assert sorted(made(shards, 0)) == sorted(found)
    for at in range(0, ALL, size):
        assert sorted(plain[at : at + size]) == sorted(key for key, _ in found[at : at + size])
    assert (size == 1) is (plain == [key for key, _ in found])


def test_orders(shards):
    """The same in every run; another one in each epoch, with each seed, for each rank, and in each filling."""
    data = made(shards, 6)
    first, second = keys(data), keys(data)
    assert first == keys(made(shards, 6))
    assert first != second
    assert first != keys(made(shards, 6, seed=1))
    # Each shard is one filling, and samples are numbered from 0 on in each: no two are shuffled alike.
    orders = {tuple(int(key) % 6 for key in first[at : at + 6]) for at in range(0, ALL, 6)}
    assert len(orders) == 4
    ranks = [keys(made(shards, 6, world=World(rank, 2))) for rank in range(2)]
    assert sorted(first) == sorted(ranks[0] + ranks[1])


@pytest.mark.parametrize("size", SIZES)
def test_every_cut(shards, size):
    """Saved behind any sample and loaded: exactly what was left, in the same order."""
    whole = list(made(shards, size))
    for cut in range(ALL + 1):
        assert whole[cut:] == list(gone_on(shards, after(shards, cut, size), size))


def test_states_of_states(shards):
    """Saved, loaded, saved again inside the same filling."""
    whole, found, state = keys(made(shards)), [], after(shards, 0)
    while len(found) < ALL:
        data = gone_on(shards, state)
        passing = iter(data)
        found += [key for key, _ in itertools.islice(passing, 3)]
        state = data.state_dict()
        passing.close()
    assert whole == found


def test_places(shards):
    """A filling is the worker's own: its state goes on in the same place only, with the same buffer."""
    state = after(shards, 3)
    with pytest.raises(NotResumable, match=r"shuffle buffer of 10 samples, here it is of 8; .*shuffle_buffer="):
        gone_on(shards, state, 8)
    with pytest.raises(NotResumable, match="it cannot go on as"):
        gone_on(shards, state, world=World(0, 2))
    ranks = [{"world": World(rank, 2), "even": "none"} for rank in range(2)]
    for rank in ranks:
        whole = list(made(shards, **rank))
        for cut in range(len(whole)):
            assert whole[cut:] == list(gone_on(shards, after(shards, cut, **rank), **rank))


def test_between_two_fillings(shards):
    """There everything before is consumed, so another world, and another buffer, can go on."""
    state, found = after(shards, 10), []
    assert {"place", "drawn"}.isdisjoint(state)
    for rank in range(2):
        found += keys(gone_on(shards, state, 4, world=World(rank, 2), even="none"))
    assert sorted(keys(made(shards))[10:]) == sorted(found)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader(shards, workers):
    """The loader's state has the filling of each of its workers."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader():
        return StatefulDataLoader(made(shards), batch_size=None, num_workers=workers)

    whole = keys(loader())
    for cut in (1, 9, 17, 23):
        one = loader()
        passing = iter(one)
        assert whole[:cut] == keys(itertools.islice(passing, cut))
        state = one.state_dict()
        del passing
        again = loader()
        again.load_state_dict(state)
        assert whole[cut:] == keys(again)


def test_epochs_of_workers(shards):
    """Workers fill buffers of their own."""
    loader = DataLoader(made(shards, 5), batch_size=None, num_workers=2)
    first, second = keys(loader), keys(loader)
    assert sorted(keys(made(shards, 0))) == sorted(first) == sorted(second)
    assert first != second


def test_an_error_comes_behind_what_was_whole(embedded_bucket):
    """A filling that cannot be completed is handed out, and then comes the error."""
    embedded_bucket.fill({"0.tar": SHARDS["0.tar"][: 2048 * 4 + 100]})
    passing = iter(made(embedded_bucket))
    # The fourth may go on where the shard breaks off.
    assert ["0000", "0001", "0002"] == sorted(keys(itertools.islice(passing, 3)))
    with pytest.raises(CorruptShard, match="truncated"):
        next(passing)


def test_skipped(embedded_bucket):
    """What on_error leaves out, of shards or of samples, is not in a filling, and states count right."""

    def odd(key, _extension, content):
        if int(key) % 5 == 0:
            raise ValueError("odd")
        return content

    embedded_bucket.fill({**SHARDS, "1.tar": SHARDS["1.tar"][:5000]})
    options = {"on_error": "skip", "decode": odd}
    whole = keys(made(embedded_bucket, 7, **options))
    assert set(map(int, whole)) == {one for one in (*range(8), *range(12, 24)) if one % 5}
    for cut in range(len(whole) + 1):
        assert whole[cut:] == keys(gone_on(embedded_bucket, after(embedded_bucket, cut, 7, **options), 7, **options))


def test_with_an_index_samples_are_shuffled_one_by_one(embedded_bucket):
    """There the buffer has nothing to do."""
    embedded_bucket.fill(SHARDS)
    assert keys(made(embedded_bucket, 0, index="client")) == keys(made(embedded_bucket, 10, index="client"))


@pytest.mark.parametrize("size", [-1, 1.5, True, None, "10"])
def test_what_is_no_size(embedded_bucket, size):
    """It is named at once."""
    with pytest.raises(ConfigError, match="shuffle_buffer must be a number of samples"):
        made(embedded_bucket, size)


def test_a_buffer_without_shuffle(embedded_bucket):
    """That would shuffle what shall not be shuffled."""
    with pytest.raises(ConfigError, match="shuffle_buffer needs shuffle=True"):
        made(embedded_bucket, 10, shuffle=False)
