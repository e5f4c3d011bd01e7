"""Batch samplers: order, ranks and resume of map-style datasets."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
from torch.utils.data import DataLoader

from aisdatapipes import (
    AISIterDataset,
    AISMapDataset,
    AISSampler,
    ConfigError,
    DynamicBatchSampler,
    NotResumable,
    World,
)
from tests.datasets.stateful import plain
from tests.environments import CHECKOUT, path_with, run

OBJECTS = {f"o/{i:02d}": bytes([i]) * (10 + i) for i in range(20)}
ORDER = {"shuffle": True, "seed": 6}


@pytest.fixture
def data(embedded_bucket):
    embedded_bucket.fill(OBJECTS)
    return AISMapDataset(embedded_bucket.sdk, {embedded_bucket.sdk: "o/"})


def dynamic(data, **options):
    return DynamicBatchSampler(data, 75, shuffle=True, seed=6, **options)


def three(data, **options):
    return AISSampler(data, batch_size=3, **(ORDER | options))


KINDS = {"AISSampler": three, "DynamicBatchSampler": dynamic}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_those_of_the_iterable_dataset(bucket, workers):
    """One order for both: an AISMapDataset with the sampler gives what the AISIterDataset gives."""
    bucket.fill(OBJECTS)
    options = ORDER | {"batch_size": 3}
    mapped, iterable = AISMapDataset(bucket.sdk), AISIterDataset(bucket.sdk, **options)
    sampler = AISSampler(mapped, **options)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        iterable.set_epoch(epoch)
        one = DataLoader(mapped, batch_sampler=sampler, num_workers=workers, collate_fn=plain)
        other = DataLoader(iterable, batch_size=3, num_workers=workers, collate_fn=plain)
        assert list(one) == list(other)
        assert len(one) == len(list(one)) == 7


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_len_is_exact(kind, data, ranks, even):
    """The ranks' batches are as many as ``len`` says, before, during and after an epoch."""
    for rank in range(ranks):
        sampler = kind(data, world=World(rank, ranks), even=even)
        for epoch in range(3):
            expected = len(sampler)
            found = []
            for batch in sampler:
                found.append(batch)
                assert len(sampler) == expected
            assert len(found) == expected, (rank, epoch)


def test_ranks_partition_the_batches(kind, data):
    """Of all ranks together each index comes once."""
    shares = [list(kind(data, world=World(rank, 3), even="none")) for rank in range(3)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(20))


def test_every_cut(kind, data):
    """Stopped after any batch, another sampler goes on with the next one, and with the same epochs after it."""
    sampler = kind(data)
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] != epochs[1]
    for cut in range(len(epochs[1]) + 1):
        first = kind(data)
        list(first)
        passing = iter(first)
        assert list(itertools.islice(passing, cut)) == epochs[1][:cut]
        for state in (first.state_dict(), first.state_dict(batches=cut, epoch=1)):
            assert len(json.dumps(state)) < 200
            again = kind(data)
            again.load_state_dict(json.loads(json.dumps(state)))
            expected = [epochs[1][cut:], epochs[2]] if cut < len(epochs[1]) else [epochs[2]]
            assert [list(again) for _ in expected] == expected


def test_twice_and_on_other_worlds(kind, data):
    """Saved on two ranks, resumed on three, saved, finished by one: each index once."""
    found, state = [], None
    for ranks, steps in ((2, 1), (3, 1), (1, 99)):
        states = []
        for rank in range(ranks):
            sampler = kind(data, world=World(rank, ranks), even="none")
            if state is not None:
                sampler.load_state_dict(state)
            passing = iter(sampler)
            some = list(itertools.islice(passing, steps))
            found += itertools.chain(*some)
            states.append(sampler.state_dict())
            if len(some) == steps:
                assert sampler.state_dict(batches=steps) == states[-1]
        state = states[0]
        assert states == [state] * ranks
    assert sorted(found) == list(range(20))


def test_with_workers_batches_are_counted(kind, data):
    """A loader with workers asks for batches ahead: the number of steps says what the training took."""
    whole = list(kind(data))
    sampler = kind(data)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2, collate_fn=plain)
    passing = iter(loader)
    next(passing)
    assert sampler.state_dict()["position"] > sampler.state_dict(batches=1)["position"]
    again = kind(data)
    again.load_state_dict(sampler.state_dict(batches=1))
    assert list(again) == whole[1:]


def test_other_batches_are_refused(data, embedded_bucket):
    """Another dataset, seed or size of dynamic batches is refused."""
    state = three(data).state_dict(batches=2)
    other = AISMapDataset(embedded_bucket.sdk, {embedded_bucket.sdk: "o/1"})
    with pytest.raises(NotResumable, match="of other items"):
        three(other).load_state_dict(state)
    with pytest.raises(NotResumable, match="seed 6, this order has seed 7"):
        three(data, seed=7).load_state_dict(state)
    with pytest.raises(NotResumable, match="of other items"):
        dynamic(data).load_state_dict(state)
    with pytest.raises(NotResumable, match="of other items"):
        DynamicBatchSampler(data, 80, shuffle=True, seed=6).load_state_dict(dynamic(data).state_dict())
    with pytest.raises(ConfigError, match="there are 7 batches"):
        three(data).state_dict(batches=8)
    with pytest.raises(ConfigError, match="map-style dataset is needed"):
        AISSampler(iter(()))


def test_any_dataset_with_a_length():
    """A Subset or a list will do; its length is all that a state knows of it."""
    sampler = AISSampler(range(10), batch_size=4)
    sampler.load_state_dict(sampler.state_dict(batches=1))
    assert list(sampler) == [[4, 5, 6, 7], [8, 9]]
    with pytest.raises(NotResumable, match="of other items"):
        AISSampler(range(11), batch_size=4).load_state_dict(sampler.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sampler", "dynamic"])
@pytest.mark.parametrize(
    "which", ["{}", '{"num_workers": 2}', '{"num_workers": 2, "snapshot_every_n_steps": 4}', "nodes"]
)
@pytest.mark.parametrize("version", [None, "torchdata-0.11.0"])
def test_stateful_loaders(data, embedded_bucket, kind, which, version):
    """Every cut, twice, and the epochs after it, in StatefulDataLoader and nodes."""
    if which == "nodes" and version is None:
        pytest.skip("torchdata 0.9 has no nodes")
    path = path_with(version) if version else str(CHECKOUT)
    where = [f"{embedded_bucket.url}o/", embedded_bucket.endpoint]
    command = [sys.executable, "-W", "ignore", "-m", "tests.datasets.stateful", *where, kind, which]
    assert int(run(command, PYTHONPATH=path)) >= 6
