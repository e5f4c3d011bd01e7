"""Resume of the iterable datasets: at the next sample, whatever loader, world or batch size comes after."""

from __future__ import annotations

import itertools
import json
import pickle
import sys

import pytest
from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset, AISMultiShardStream, AISShardReader, ConfigError, NotResumable, World
from tests.datasets.samples import numbered
from tests.environments import CHECKOUT, path_with, run

OBJECTS = {f"o/{i:02d}": bytes([i]) * (i + 1) for i in range(20)}
EPOCH = {"shuffle": True, "seed": 4}


@pytest.fixture
def filled(bucket):
    bucket.fill(OBJECTS)
    return bucket


@pytest.fixture
def objects(embedded_bucket):
    embedded_bucket.fill(OBJECTS)
    return embedded_bucket


def dataset(bucket, kind=AISIterDataset, **options):
    return kind(bucket.sdk, {bucket.sdk: "o/"}, **(EPOCH | options))


def names(samples):
    return [sample if isinstance(sample, str) else sample[0] for sample in samples]


def batched(passing, count=None):
    return [list(batch) for batch in itertools.islice((names for names, _ in passing), count)]


def resumed(state, bucket, kind=AISIterDataset, **options):
    """A new dataset, as in a new process, that goes on from what a file would have kept."""
    later = dataset(bucket, kind, **options)
    later.load_state_dict(json.loads(json.dumps(state)))
    return later


# ---- a loop of this process


def test_every_cut(filled):
    """Stopped after any sample, the epoch goes on with the next one, and the epochs after it are the same too."""
    data = dataset(filled)
    first, second, third = (names(data) for _ in range(3))
    for cut in range(len(second) + 1):
        data = dataset(filled)
        list(data)
        passing = iter(data)
        assert names(itertools.islice(passing, cut)) == second[:cut]
        later = resumed(data.state_dict(), filled)
        rest, following = names(later), names(later)
        if cut == 0:
            # Nothing of the second epoch was asked for: the state is that of its beginning.
            assert (rest, following) == (second, third)
        elif cut < len(second):
            assert (second[:cut] + rest, following) == (second, third)
        else:
            assert rest == third
    assert sorted(first) == sorted(second) == sorted(OBJECTS)


def test_before_after_and_in_between(objects):
    """Before the first sample, after a break, at the end: the state is of what the loop got, not of what was read."""
    data = dataset(objects, shuffle=False)
    assert data.state_dict() == data.state_dict(batches=0)
    assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (0, 0)
    for number, _ in enumerate(data, 1):
        if number < len(OBJECTS):
            assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (0, number)
        else:
            assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (1, 0)
    assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (1, 0)
    for _ in itertools.islice(data, 3):
        pass
    assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (1, 3)
    assert len(json.dumps(data.state_dict())) < 200


def test_it_costs_what_is_left(filled):
    """What was consumed is not read again, nor listed more than once."""
    data = dataset(filled)
    names(itertools.islice(data, 13))
    later = resumed(data.state_dict(), filled, fetch=None)
    assert len(names(later)) == 7
    stats = later.stats()
    assert (stats["objects"], stats["lists"]) == (7, 1)
    assert stats["requests"] <= 7
    assert len(later) == len(OBJECTS)  # of the whole epoch


def test_saved_twice(objects):
    """Saved, loaded, saved again, loaded again: the epoch is whole."""
    whole = names(dataset(objects))
    found, state = [], dataset(objects).state_dict()
    while len(found) < len(whole):
        data = resumed(state, objects)
        found += names(itertools.islice(data, 3))
        state = data.state_dict()
    assert found == whole


def test_skipped_objects_count(objects):
    """What on_error leaves out is consumed: nothing after it is lost or repeated."""
    gone = ["o/03", "o/04", "o/11", "o/19"]
    data = dataset(objects, shuffle=False, on_error="skip")
    len(data)  # listed while they were there
    for name in gone:
        objects.sdk.object(name).delete()
    left = [name for name in OBJECTS if name not in gone]
    states = []
    for name, _ in data:
        states.append((name, data.state_dict()))
    # The listing is that of before: the same dataset goes on.
    for index, (_, state) in enumerate(states):
        copy = pickle.loads(pickle.dumps(data))
        copy.load_state_dict(state)
        assert names(copy) == left[index + 1 :]


def test_an_error_is_met_again(objects):
    """A loop that an error broke off goes on at the object that failed."""
    data = dataset(objects, shuffle=False)
    len(data)
    objects.sdk.object("o/05").delete()
    seen = []
    with pytest.raises(FileNotFoundError):
        seen.extend(data)
    assert (len(seen), data.state_dict()["position"]) == (5, 5)


def test_epoch_of_a_loaded_state(objects):
    """Setting the loaded epoch keeps the position; another epoch begins at its first sample; so does the same again."""
    whole = dataset(objects)
    epochs = []
    for epoch in range(4):
        whole.set_epoch(epoch)
        epochs.append(names(whole))
    state = whole.state_dict(batches=8, epoch=2)
    data = resumed(state, objects)
    data.set_epoch(2)
    assert names(data) == epochs[2][8:]
    data.set_epoch(2)
    assert names(data) == epochs[2]
    data = resumed(state, objects)
    data.set_epoch(3)
    assert names(data) == epochs[3]
    data = resumed(state, objects)
    assert [names(data), names(data)] == [epochs[2][8:], epochs[3]]


def test_a_loaded_dataset_travels(objects):
    """Pickled after the load, the copy goes on there too."""
    whole = names(dataset(objects))
    data = resumed(dataset(objects).state_dict(batches=9), objects)
    assert names(pickle.loads(pickle.dumps(data))) == whole[9:]


def test_two_loops(objects):
    """Of two loops the state is that of the one which began last."""
    data = dataset(objects)
    one, two = iter(data), iter(data)
    next(one), next(two), next(two), next(one)
    assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (1, 2)


# ---- ranks


def test_ranks_in_a_plain_loop(objects):
    """With several ranks the state is that after the last whole batch, the same on every rank."""
    world = [World(rank, 2) for rank in range(2)]
    for taken, position in ((0, 0), (2, 0), (3, 6), (4, 6), (9, 18), (10, 0)):
        states = []
        for one in world:
            data = dataset(objects, world=one, batch_size=3)
            passing = iter(data)
            names(itertools.islice(passing, taken))
            states.append(data.state_dict())
        assert states[0] == states[1]
        assert (states[0]["epoch"], states[0]["position"]) == (int(taken == 10), position)


@pytest.mark.parametrize("legs", [[(2, 3, 3, 2), (3, 0, 1, 1), (1, 0, 3, 99)]])
def test_elastic_chain(filled, legs):
    """2 ranks of 3 workers, then 3 ranks without, then one: every sample once, in the global order."""
    whole = names(dataset(filled, even="none"))
    found, state = [], dataset(filled).state_dict()
    for ranks, workers, batch, steps in legs:
        took = []
        for rank in range(ranks):
            data = resumed(state, filled, world=World(rank, ranks), batch_size=batch, even="none")
            loader = DataLoader(data, batch_size=batch, num_workers=workers)
            took.append(batched(loader, steps))
        # Step by step, rank by rank.
        found += [name for step in itertools.zip_longest(*took, fillvalue=[]) for part in step for name in part]
        made = min(steps, max(map(len, took)))
        states = [
            resumed(state, filled, world=World(rank, ranks), batch_size=batch, even="none") for rank in range(ranks)
        ]
        states = [one.state_dict(batches=made) for one in states]
        assert all(one == states[0] for one in states)
        state = states[0]
    assert found == whole
    assert (state["epoch"], state["position"]) == (1, 0)


# ---- loaders of torch


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_dataloader_with_workers(objects, workers, persistent):
    """In the main process, while workers read ahead: the state is that of the batches the training took."""
    options = {"batch_size": 3, "num_workers": workers, "persistent_workers": persistent and workers > 0}
    loader = DataLoader(dataset(objects, batch_size=3), **options)
    epochs = [batched(loader) for _ in range(3)]
    data = dataset(objects, batch_size=3)
    loader = DataLoader(data, **options)
    for epoch in range(2):
        assert data.state_dict(batches=0)["epoch"] == epoch  # between two epochs it is the next one
        for step, (batch, _) in enumerate(loader, 1):
            assert list(batch) == epochs[epoch][step - 1]
            state = data.state_dict(batches=step)
            if step in (1, 4, 7):
                later = resumed(state, objects, batch_size=3)
                rest = DataLoader(later, batch_size=3, num_workers=1)
                expected = epochs[epoch][step:] or epochs[epoch + 1]
                assert batched(rest, len(expected)) == expected


def test_workers_that_live_on(objects):
    """A state reaches persistent workers that have run already, with the check of what it is of."""
    data = dataset(objects, batch_size=3)
    loader = DataLoader(data, batch_size=3, num_workers=2, persistent_workers=True)
    epochs = [batched(loader) for _ in range(3)]
    state = data.state_dict(batches=4, epoch=1)
    data.load_state_dict(state)
    assert batched(loader) == epochs[1][4:]
    assert batched(loader) == epochs[2]
    data.load_state_dict(state)
    data.set_epoch(1)
    assert batched(loader) == epochs[1][4:]


@pytest.mark.slow
def test_spawned_workers(objects):
    """A state reaches workers that start by spawn."""
    epochs = [batched(DataLoader(dataset(objects, batch_size=3), batch_size=3))]
    data = resumed(dataset(objects, batch_size=3).state_dict(batches=4), objects, batch_size=3)
    loader = DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context="spawn")
    assert batched(loader) == epochs[0][4:]
    assert data.state_dict(batches=0)["epoch"] == 1


# ---- what cannot go on


def test_other_items_are_refused(objects):
    """Another listing is refused: at once where it is known, else when the iteration begins, in workers too."""
    state = dataset(objects).state_dict(batches=2)
    objects.put("o/new", b"new")
    known = dataset(objects)
    len(known)
    with pytest.raises(NotResumable, match="of other items: its fingerprint"):
        known.load_state_dict(state)
    lazily = resumed(state, objects)
    with pytest.raises(NotResumable, match="of other items"):
        next(iter(lazily))
    with pytest.raises(NotResumable, match="of other items"):  # it is not forgotten by being raised once
        next(iter(lazily))
    with pytest.raises(NotResumable, match="of other items"):
        list(DataLoader(resumed(state, objects), num_workers=1))


@pytest.mark.parametrize(
    ("options", "told"),
    [({"seed": 5}, "seed 4, this order has seed 5"), ({"shuffle": False}, "shuffled, this one is not shuffled")],
)
def test_another_order_is_refused(objects, options, told):
    """Another seed, or none, is refused at once."""
    with pytest.raises(NotResumable, match=told):
        resumed(dataset(objects).state_dict(batches=2), objects, **options)


@pytest.mark.parametrize(
    "wrong", [None, {}, {"version": 1}, {"model": 3}, [1], {"begun": 3}, {"begun": {}, "place": [0] * 5}]
)
def test_no_state_is_refused(objects, wrong):
    """What is no state is `NotResumable`, and the dataset is as it was."""
    data = dataset(objects)
    with pytest.raises(NotResumable):
        data.load_state_dict(wrong)
    assert names(data) == names(dataset(objects))


@pytest.mark.parametrize("batches", [-1, "3", 1.5, True])
def test_what_is_no_number_of_batches(objects, batches):
    """Batches are counted with numbers."""
    with pytest.raises(ConfigError, match="batches must be a number"):
        dataset(objects).state_dict(batches=batches)


def test_more_batches_than_there_are(objects):
    """Beyond the epoch is an error with the number that there are; from a loaded position there are fewer."""
    data = dataset(objects, batch_size=3)
    assert data.state_dict(batches=7)["epoch"] == 1
    with pytest.raises(ConfigError, match="there are 7 batches"):
        data.state_dict(batches=8)
    data = resumed(data.state_dict(batches=5), objects, batch_size=3)
    assert data.state_dict(batches=2)["epoch"] == 1
    with pytest.raises(ConfigError, match="there are 2 batches"):
        data.state_dict(batches=3)


def test_sources_of_workers(objects):
    """With partition_sources_by_worker batches say nothing; a loop without workers has a state all the same."""
    data = dataset(objects, partition_sources_by_worker=True)
    with pytest.raises(NotResumable, match="partition_sources_by_worker"):
        data.state_dict(batches=1)
    whole = names(dataset(objects))
    names(itertools.islice(data, 6))
    later = resumed(data.state_dict(), objects, partition_sources_by_worker=True)
    assert names(later) == whole[6:]
    later = resumed(data.state_dict(), objects, partition_sources_by_worker=True)
    with pytest.raises(NotResumable, match="only the start of an epoch"):
        list(DataLoader(later, num_workers=2))


# ---- shards, streams, subclasses


@pytest.fixture
def shards(bucket):
    for number in range(4):
        bucket.put(f"s/{number}.tar", numbered(5 * number, 5 * number + 5 - number))
    return bucket


def reader(bucket, **options):
    return AISShardReader(bucket.sdk, {bucket.sdk: "s/"}, fields=("txt",), **(EPOCH | options))


def test_every_cut_of_shards(shards):
    """Inside a shard too: that one is read again, those before it are not, and no sample comes twice."""
    data = reader(shards)
    first, second = names(data), names(data)
    for cut in range(len(first) + 1):
        data = reader(shards)
        passing = iter(data)
        names(itertools.islice(passing, cut))
        state = data.state_dict()
        later = reader(shards)
        later.load_state_dict(json.loads(json.dumps(state)))
        rest, following = names(later), names(later)
        assert first[:cut] + rest == first
        assert following == second
    with pytest.raises(NotResumable, match="deals shards"):
        data.state_dict(batches=2)


def test_shards_on_another_world(shards):
    """A state from inside a shard goes on with two ranks of two workers: each sample once."""
    whole = names(reader(shards))
    data = reader(shards)
    before = names(itertools.islice(data, 7))
    after = []
    for rank in range(2):
        later = reader(shards, world=World(rank, 2), even="none")
        later.load_state_dict(data.state_dict())
        loader = DataLoader(later, batch_size=None, num_workers=2, collate_fn=None)
        after += names(loader)
    assert sorted(before + after) == sorted(whole)


def test_a_shard_state_is_not_for_objects(shards):
    """A state from inside a shard says nothing to a dataset of whole objects."""
    data = reader(shards)
    names(itertools.islice(data, 7))
    whole = AISIterDataset(shards.sdk, {shards.sdk: "s/"}, **EPOCH)
    whole.load_state_dict(data.state_dict())
    with pytest.raises(NotResumable, match="stands inside a shard"):
        next(iter(whole))


def test_every_cut_of_streams(embedded_bucket):
    """Members side by side go on at the next tuple."""
    for source in "ab":
        for number in range(2):
            embedded_bucket.put(f"{source}/{number}.tar", numbered(4 * number, 4 * number + 4))

    def stream(**options):
        sources = [f"{embedded_bucket.url}{source}/" for source in "ab"]
        return AISMultiShardStream(sources, config=embedded_bucket.server.config, **options)

    whole = list(stream())
    for cut in range(len(whole)):
        data = stream()
        passing = iter(data)
        assert list(itertools.islice(passing, cut)) == whole[:cut]
        later = stream()
        later.load_state_dict(data.state_dict())
        assert (list(later), list(later)) == (whole[cut:], whole)
        ranks = []
        for rank in range(2):
            later = stream(world=World(rank, 2))
            later.load_state_dict(data.state_dict())
            ranks.append(list(later))
        assert sorted(ranks[0] + ranks[1]) == sorted(whole[cut:])
    assert stream(batch_size=2).state_dict(batches=3)["position"] == 6


class Names(AISIterDataset):
    """A user's: as in the reference, over objects of the SDK."""

    def __iter__(self):
        self._reset_iterator()
        objects, _ = self._get_worker_iter_info()
        for thing in objects:
            if not thing.name.endswith("7"):
                yield thing.name


class Sizes(AISIterDataset):
    """A user's: on top of ours."""

    def __iter__(self):
        return ((name, len(data)) for name, data in super().__iter__())


@pytest.mark.parametrize("kind", [Names, Sizes])
def test_every_cut_of_a_subclass(objects, kind):
    """A subclass that takes one object for one sample, or drops some, is resumed like ours."""
    data = dataset(objects, kind)
    first, second = names(data), names(data)
    for cut in range(len(first) + 1):
        data = dataset(objects, kind)
        passing = iter(data)
        names(itertools.islice(passing, cut))
        if cut == len(first):
            assert next(passing, None) is None
        later = resumed(data.state_dict(), objects, kind)
        rest = names(later)
        assert rest == (first[cut:] if cut < len(first) else second)


# ---- loaders with a state of their own

# torchdata 0.9 calls what later torch calls deprecated.
quiet = pytest.mark.filterwarnings("ignore:.*set_vital.*:UserWarning")

LOADERS = {
    "no workers": {},
    "workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
    "every 4 steps": {"num_workers": 2, "snapshot_every_n_steps": 4},
}


def stateful(bucket, kind, which, version=None):
    shards = kind == "shards"
    for number in range(5 if shards else 0):
        bucket.put(f"s/{number}.tar", numbered(4 * number, 4 * number + 4))
    url = bucket.url + {"shards": "s/", "partitioned": ""}.get(kind, "o/")
    path = path_with(version) if version else str(CHECKOUT)
    command = [sys.executable, "-W", "ignore", "-m", "tests.datasets.stateful", url, bucket.endpoint, kind, which]
    return int(run(command, PYTHONPATH=path))


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("version", [None, "torchdata-0.11.0"])
def test_stateful_dataloader(objects, loader, version):
    """Every cut, twice, and the epochs after, with torchdata's StatefulDataLoader of both versions."""
    assert stateful(objects, "objects", json.dumps(LOADERS[loader]), version) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "subclass", "objects of the SDK", "partitioned", "batches", "mix"])
@pytest.mark.parametrize("loader", ["no workers", "persistent"])
def test_stateful_dataloader_over_other_datasets(objects, kind, loader):
    """The other datasets, users' subclasses among them."""
    assert stateful(objects, kind, json.dumps(LOADERS[loader]), "torchdata-0.11.0") >= 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["objects", "shards", "subclass", "mix"])
def test_nodes(objects, kind):
    """Every cut with torchdata's nodes, threads that read ahead included."""
    assert stateful(objects, kind, "nodes", "torchdata-0.11.0") >= 6


@quiet
@pytest.mark.slow
def test_stateful_dataloader_by_spawn(objects):
    """Workers that start by spawn."""
    data = dataset(objects, batch_size=3)
    from torchdata.stateful_dataloader import StatefulDataLoader

    whole = batched(DataLoader(data, batch_size=3))
    options = {"batch_size": 3, "num_workers": 2, "multiprocessing_context": "spawn"}
    first = StatefulDataLoader(dataset(objects, batch_size=3), **options)
    assert batched(first, 3) == whole[:3]
    again = StatefulDataLoader(dataset(objects, batch_size=3), **options)
    again.load_state_dict(first.state_dict())
    assert batched(again) == whole[3:]


@quiet
@pytest.mark.slow
def test_a_workers_state_stays_in_its_place(objects):
    """The state of a loader's workers is refused in another place, with what to save instead."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    first = StatefulDataLoader(dataset(objects, batch_size=3), batch_size=3, num_workers=2)
    batched(first, 3)
    state = first.state_dict()
    again = StatefulDataLoader(dataset(objects, batch_size=3, world=World(1, 2)), batch_size=3, num_workers=2)
    again.load_state_dict(state)
    with pytest.raises(
        NotResumable, match=r"rank 0 of 1, batch_size 3; it cannot go on as worker \d of 2, rank 1 of 2"
    ):
        batched(again)


# ---- what the ranks say


def told(caplog):
    """The lines at INFO so far; each is told once."""
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    caplog.clear()
    return lines


def test_each_iteration_tells_where_it_begins(objects, caplog):
    """At INFO a rank says its place, the epoch, the position and the fingerprint that is in its state."""
    caplog.set_level("INFO", "aisdatapipes")
    data = dataset(objects, world=World(1, 2), batch_size=3, even="none")
    state = data.state_dict(batches=2)
    later = resumed(state, objects, world=World(0, 3))
    assert told(caplog) == []
    list(later)
    list(data)
    fingerprint = state["fingerprint"]
    assert told(caplog) == [
        f"rank 0 of 3, worker 0 of 1: epoch 0 begins at position 12 of 20 items, fingerprint {fingerprint}",
        f"rank 1 of 2, worker 0 of 1: epoch 0 begins at position 0 of 20 items, fingerprint {fingerprint}",
    ]


def test_ranks_that_listed_other_objects_show_it(objects, caplog):
    """Ranks between whose listings the bucket changed differ in what they say and in their states."""
    caplog.set_level("INFO", "aisdatapipes")
    states = []
    for rank in range(2):
        data = dataset(objects, world=World(rank, 2))
        list(data)
        states.append(data.state_dict(epoch=0))
        objects.put("o/late", b"")
    told_by = [line.split("fingerprint ")[1] for line in told(caplog)]
    assert told_by == [state["fingerprint"] for state in states]
    assert len(set(told_by)) == 2


def test_nothing_is_told_unless_it_is_asked_for(objects, caplog):
    """At WARNING, the level of a program that sets none, iterations say nothing."""
    caplog.set_level("WARNING", "aisdatapipes")
    list(dataset(objects))
    assert caplog.records == []
