"""Mixes: exact proportions over all ranks and workers, resumed at every cut, whatever the sources are."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter

import pytest
from torch.utils.data import DataLoader, TensorDataset

from aisdatapipes import (
    AISIterDataset,
    AISMapDataset,
    AISMix,
    AISMultiShardStream,
    AISShardReader,
    ConfigError,
    NotResumable,
    World,
)
from aisdatapipes.testing import check_dataset, check_order, check_resume
from tests.datasets.samples import numbered

STOPS = ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]
OBJECTS = {"a": 15, "b": 7, "c": 4}
WEIGHTS = {"a": 0.6, "b": 0.3, "c": 0.1}
LENGTHS = dict(zip(STOPS, [24, 40, 26], strict=True))


@pytest.fixture
def objects(embedded_bucket):
    return filled(embedded_bucket)


def filled(bucket):
    bucket.fill({f"{source}/{i:02d}": f"{source}{i}".encode() for source, n in OBJECTS.items() for i in range(n)})
    return bucket


def source(bucket, name, cls=AISIterDataset, **options):
    return cls(f"{bucket.url}{name}/", config=bucket.server.config, **options)


def mixed(bucket, *, cls=AISIterDataset, of=None, **options):
    """Three datasets, two of which are shuffled."""
    of = of or {"shuffle": True}
    datasets = {source(bucket, name, cls, **(of if name != "c" else {})): WEIGHTS[name] for name in OBJECTS}
    return AISMix(datasets, **options)


def names(samples):
    return [name for name, _ in samples]


@pytest.mark.parametrize("stop", STOPS)
def test_laws_of_order_and_resume(bucket, stop):
    """Ranks and workers share the epoch, and it goes on at any cut and on any world; on both clusters."""
    filled(bucket)

    def make(world):
        return mixed(bucket, stop=stop, even="none", world=world)

    check_order(make)
    check_resume(make, cuts=[0, 1, 9, LENGTHS[stop] - 1])


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_laws_of_batches(objects, even):
    """Whole batches are dealt, and what ranks do about a remainder is the mix's to say."""
    check_order(lambda world: mixed(objects, even=even, world=world), even=even)
    if even == "none":
        check_resume(lambda world: mixed(objects, even=even, world=world, batch_size=3), batch_size=3, ranks=(2,))


@pytest.mark.parametrize("stop", STOPS)
def test_proportions_and_lengths(objects, stop):
    """At any time each dataset has given its share, to within less than one, while it has something left."""
    dataset = mixed(objects, stop=stop)
    found = names(dataset)
    assert LENGTHS[stop] == len(dataset) == len(found)
    had, left = Counter(), Counter(OBJECTS)
    for number, name in enumerate(found, 1):
        had[name[0]] += 1
        left[name[0]] -= 1
        if stop != STOPS[2] or all(left.values()):
            assert all(abs(had[one] - number * weight) < 1 for one, weight in WEIGHTS.items())


@pytest.mark.parametrize("stop", STOPS)
def test_what_each_epoch_has(objects, stop):
    """No sample twice before all of its dataset had their turn, and another order in every pass."""
    dataset = mixed(objects, stop=stop)
    orders = []
    for _ in range(2):
        found = names(dataset)
        for one, length in OBJECTS.items():
            own = [name for name in found if name[0] == one]
            passes = [own[at : at + length] for at in range(0, len(own), length)]
            assert all(len(set(each)) == len(each) for each in passes)
            orders += [tuple(each) for each in passes if one != "c" and len(each) == length]
    assert len(set(orders)) == len(orders)
    dataset.set_epoch(1)
    assert found == names(dataset)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_are_those_of_any_number_of_workers(objects, workers):
    """A loader gives the same batches with workers and without; they list once each, and their counts add up."""
    expected = names(mixed(objects))
    dataset = mixed(objects, batch_size=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    assert expected == [name for batch, _ in loader for name in batch]
    assert (len(expected), 3) == (dataset.stats()["objects"], dataset.stats()["lists"])


def test_a_mix_is_a_dataset_like_others(objects):
    """Epochs, copies by pickle, fork and spawn, loaders, and loops that break off."""
    check_dataset(mixed(objects))


def test_two_loops_do_not_meet(objects):
    """Each iteration of one mix has a place of its own, and a state."""
    dataset = mixed(objects)
    whole = names(mixed(objects))
    first, second = iter(dataset), iter(pickle.loads(pickle.dumps(dataset)))
    taken = names(itertools.islice(first, 5)), names(itertools.islice(second, 2))
    assert ([whole[:5], whole[:2]], 5) == ([*taken], first.state_dict()["taken"])
    assert whole[5:] == names(first)
    dataset.close()
    second.close()


def test_a_state_by_batches_is_loaded_anywhere(objects):
    """What two ranks consumed is arithmetic, and three go on with it."""
    whole = names(mixed(objects, even="none"))
    saved = json.dumps(mixed(objects, batch_size=2, world=World(0, 2), even="none").state_dict(batches=3))
    rest = []
    for rank in range(3):
        dataset = mixed(objects, batch_size=5, world=World(rank, 3), even="none")
        dataset.load_state_dict(json.loads(saved))
        rest += names(dataset)
    assert sorted(whole[12:]) == sorted(rest)


def test_a_state_of_another_mix(objects):
    """Other weights, another rule, other seeds: each is another order, and that is said."""
    state = mixed(objects).state_dict(epoch=0)
    datasets = [source(objects, name, shuffle=name != "c") for name in OBJECTS]
    others = [
        mixed(objects, stop="all_exhausted"),
        mixed(objects, of={"shuffle": True, "seed": 1}),
        mixed(objects, of={"shuffle": False}),
        AISMix(dict(zip(datasets, [0.5, 0.4, 0.1], strict=True))),
    ]
    for dataset in others:
        len(dataset)
        with pytest.raises(NotResumable, match=r"of a mix, also its weights"):
            dataset.load_state_dict(state)
    same = AISMix(dict(zip(datasets, [6, 3, 1], strict=True)))
    same.load_state_dict(state)
    assert names(mixed(objects)) == names(same)


def test_a_plan_says_who_reads_what(objects):
    """The rows of all ranks are the samples that come, in this order."""
    dataset = mixed(objects, batch_size=2)
    plan = dataset.plan(epoch=0, world_size=2)
    assert names(dataset) == [name for row in plan for name in row.items]
    assert "24 samples, mixed 6 : 3 : 1" in plan.headline


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
@pytest.mark.parametrize("ranks", [3, 7])
def test_ranks_read_what_is_planned(objects, even, ranks):
    """Also where ranks wrap around into the first samples, of a dataset that was gone through several times since."""

    def make(rank):
        return mixed(objects, stop="all_exhausted", even=even, batch_size=2, world=World(rank, ranks))

    rows = list(make(0).plan(epoch=0))
    for rank in range(ranks):
        assert [name for row in rows if row.rank == rank for name in row.items] == names(make(rank))


# ---- what its sources are


@pytest.fixture
def shards(bucket):
    bucket.fill({"s/a.tar": numbered(0, 9), "s/b.tar": numbered(9, 8), **{f"o/{i}": b"x" for i in range(6)}})
    return bucket


def test_shards_and_objects(shards):
    """Samples of indexed shards are drawn one by one, as objects are, and all laws hold."""

    def make(world):
        reader = source(shards, "s", AISShardReader, index="client", shuffle=True)
        return AISMix({reader: 3, source(shards, "o"): 1}, even="none", world=world, stop="all_exhausted")

    found = names(make(World()))
    assert {f"{i:04d}" for i in range(17)} == {name for name in found if name[0] != "o"}
    assert (24, 6) == (len(found), sum(name[0] == "o" for name in found))
    check_order(make)
    check_resume(make, cuts=[0, 3, 20])
    assert "s/a.tar: 0000" in [name for row in make(World()).plan() for name in row.items]


def test_shards_in_blocks(shards):
    """A reader that shuffles blocks does so in a mix, pass by pass."""

    def make(world, stop="first_exhausted"):
        options = {"index": "client", "shuffle": True, "block_bytes": 2048, "window_blocks": 2}
        reader = source(shards, "s", AISShardReader, **options)
        return AISMix({reader: 1, source(shards, "o"): 1}, even="none", world=world, stop=stop)

    mix = make(World(), "all_exhausted")
    alone = source(shards, "s", AISShardReader, index="client", shuffle=True, block_bytes=2048, window_blocks=2)
    assert names(alone) == [name for name in names(mix) if name[0] != "o"]
    assert [name.rpartition(" ")[2] for row in mix.plan(epoch=0) for name in row.items if name[0] != "o"] == [
        name for name in names(make(World(), "all_exhausted")) if name[0] != "o"
    ]
    check_order(make)
    check_resume(make, cuts=[0, 3, 9])


def test_shards_without_an_index(shards):
    """Nobody knows where samples are: that is said, at once or when it is found."""
    with pytest.raises(ConfigError, match=r"dataset 0 \(AISShardReader of ais://.*/s/\) cannot be mixed.*'server'"):
        AISMix({source(shards, "s", AISShardReader, index="off"): 1})
    with pytest.raises(ConfigError, match=r"without an index.*index='server'"):
        len(AISMix({source(shards, "s", AISShardReader): 1}))


class Sizes(AISIterDataset):
    """A user's, on top of ours, which leaves some out."""

    def __iter__(self):
        return ((name, len(data)) for name, data in super().__iter__() if not name.endswith("2"))


class FromObjects(AISIterDataset):
    """A user's, as those of the reference are."""

    def __iter__(self):
        self._reset_iterator()
        objects, _ = self._get_worker_iter_info()
        for thing in objects:
            yield thing.name, b""


class Twice(AISIterDataset):
    def __iter__(self):
        return (sample for sample in super().__iter__() for _ in range(2))


class Others(AISIterDataset):
    def __iter__(self):
        return iter([("x", b"")])


class Hasty(AISIterDataset):
    def __iter__(self):
        return iter(list(super().__iter__()))


@pytest.mark.parametrize("cls", [Sizes, FromObjects])
def test_subclasses_are_honoured(objects, cls):
    """Users' own samples are mixed; one that is left out leaves the order as it is."""
    expected = [name for name in names(mixed(objects)) if cls is FromObjects or not name.endswith("2")]
    dataset = mixed(objects, cls=cls)
    assert expected == names(dataset)
    check_order(lambda world: mixed(objects, cls=cls, even="none", world=world))
    check_resume(lambda world: mixed(objects, cls=FromObjects, even="none", world=world), cuts=[0, 5])


@pytest.mark.parametrize("cls", [Twice, Others, Hasty])
def test_subclasses_that_cannot_be_mixed(objects, cls):
    """More samples than items, others than they were asked for, all at once: an error, and no sample is lost."""
    with pytest.raises(ConfigError, match=r"dataset \d .*not one for each of its items"):
        list(mixed(objects, cls=cls))


def test_errors_that_are_borne(objects):
    """An object that is gone leaves a gap in the order, is counted, and moves nothing; without on_error it is raised."""
    dataset, strict = (mixed(objects, of={"shuffle": True, "on_error": on_error}) for on_error in ("skip", "raise"))
    expected = names(strict)
    assert len(dataset) == len(strict)
    gone = [name for name in expected if name[0] == "a"][2]
    objects.sdk.object(gone).delete()
    passing = iter(dataset)
    found = names(itertools.islice(passing, 10))
    state = dataset.state_dict()
    assert (11, 1) == (state["position"], 1 if found + names(passing) == [n for n in expected if n != gone] else 0)
    assert 1 == dataset.stats()["skipped"]
    strict.set_epoch(0)
    with pytest.raises(FileNotFoundError, match=gone):
        list(strict)


# ---- what cannot be mixed


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "1", None, True])
def test_wrong_weights(weight):
    """A weight is a number above 0; the message names the dataset."""
    dataset = AISIterDataset("ais://b/x/", config=config())
    with pytest.raises(ConfigError, match=r"weight of dataset 0 \(AISIterDataset of ais://b/x/\)"):
        AISMix({dataset: weight})


def config():
    from aisdatapipes import ClientConfig

    return ClientConfig("http://127.0.0.1:9")


def test_wrong_datasets():
    """Nothing, lists, datasets of others, map style, mixes and streams: each is told what would do."""
    one = {"config": config()}
    mix = AISMix({AISIterDataset("ais://b/", **one): 1})
    cases = [
        ({}, "one dataset or more"),
        ([AISIterDataset("ais://b/", **one)], "takes {dataset: weight}"),
        (None, "takes {dataset: weight}"),
        ({"ais://b/": 1}, "not from str"),
        ({TensorDataset(): 1}, "not from TensorDataset"),
        ({mix: 1}, "cannot be a part of another"),
        ({AISMultiShardStream("ais://b/", **one): 1}, "reads shards as streams"),
        ({AISIterDataset("ais://b/", partition_sources_by_worker=True, **one): 1}, "a mix deals samples"),
        ({AISIterDataset("ais://b/", batch_size=4, **one): 1}, "has its own batch_size"),
        ({AISIterDataset("ais://b/", even="drop", **one): 1}, "has its own even"),
        ({AISIterDataset("ais://b/", world=World(0, 2), **one): 1}, "has its own world"),
    ]
    for datasets, what in cases:
        with pytest.raises(ConfigError, match=what):
            AISMix(datasets)
    with pytest.raises(ConfigError, match="stop must be one of"):
        AISMix({AISIterDataset("ais://b/", **one): 1}, stop="never")
    with pytest.raises(ConfigError, match="batch_size must be"):
        AISMix({AISIterDataset("ais://b/", **one): 1}, batch_size=0)


def test_map_style_is_refused(objects):
    """Map-style datasets have their order in a sampler."""
    with pytest.raises(ConfigError, match="not from AISMapDataset"):
        AISMix({source(objects, "a", AISMapDataset): 1})


def test_a_dataset_without_samples(objects):
    """It could never give its share."""
    with pytest.raises(ConfigError, match=r"dataset 1 .*/none/\) has no samples"):
        len(AISMix({source(objects, "a"): 1, source(objects, "none"): 1}))
