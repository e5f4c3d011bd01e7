"""Plans: they say what the ranks and workers then read, and can be looked at."""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import pytest
from torch.utils.data import DataLoader

from aisdatapipes import (
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISSampler,
    AISShardReader,
    ConfigError,
    NotResumable,
    Plan,
    World,
)
from aisdatapipes.order.plan import Order
from aisdatapipes.order.state import OrderState
from tests.datasets.samples import numbered
from tests.environments import CHECKOUT, run

OBJECTS = {f"o/{i:02d}": bytes([i]) * (i + 1) for i in range(20)}
EPOCH = {"shuffle": True, "seed": 4}
BATCH = 3
WITHOUT_MATPLOTLIB = """
from aisdatapipes import AISSampler, ConfigError

plan = AISSampler(range(10), batch_size=4).plan()
print(plan)
try:
    plan.plot()
except ConfigError as error:
    print(error)
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def filled(bucket):
    bucket.fill(OBJECTS)
    return bucket


@pytest.fixture
def objects(embedded_bucket):
    embedded_bucket.fill(OBJECTS)
    return embedded_bucket


def dataset(bucket, **options):
    return AISIterDataset(bucket.sdk, {bucket.sdk: "o/"}, **(EPOCH | {"batch_size": BATCH} | options))


def batches(data, workers):
    """What the loader of one rank gives, batch by batch, with the worker that read it."""
    loader = DataLoader(data, batch_size=BATCH, num_workers=workers)
    return [(number % max(1, workers), list(names)) for number, (names, _) in enumerate(loader)]


def planned(plan, rank):
    return [(row.worker, row.items) for row in plan if row.rank == rank]


def synthetic(number, *, position=0, world_size=1, num_workers=1, **order):
    """A plan of numbers."""
    begins = OrderState("0" * 16, None, 1, position)
    return Plan(Order(**order), begins, number, world_size, num_workers, "numbers", lambda items: items.tolist())


# ---- it says what is read


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 3), (3, 0), (3, 2)])
def test_the_plan_is_what_loaders_read(filled, ranks, workers, even):
    """Every batch of every rank, by the worker that is planned, in two epochs."""
    plans = [dataset(filled, even=even).plan(epoch, ranks, workers) for epoch in range(2)]
    for rank in range(ranks):
        data = dataset(filled, even=even, world=World(rank, ranks))
        for plan in plans:
            assert planned(plan, rank) == batches(data, workers)


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_a_loaded_state_is_where_the_plan_begins(objects, even):
    """What was consumed is not planned again; the epochs after the loaded one are whole."""
    state = dataset(objects).state_dict(batches=2, epoch=1)
    for ranks, workers in ((1, 2), (2, 2), (3, 0)):
        for rank in range(ranks):
            data = dataset(objects, even=even, world=World(rank, ranks))
            data.load_state_dict(json.loads(json.dumps(state)))
            plan, following = data.plan(num_workers=workers), data.plan(2, num_workers=workers)
            assert (plan.begins.epoch, plan.begins.position, following.begins.position) == (1, 2 * BATCH, 0)
            assert planned(plan, rank) == batches(data, workers)
            assert planned(following, rank) == batches(data, workers)


def test_the_epoch_of_the_plan(objects):
    """While an iteration is under way its own, from where it began; after it that of the next one."""
    data = dataset(objects)
    data.load_state_dict(data.state_dict(batches=2, epoch=3))
    passing = iter(data)
    next(passing)
    assert (data.plan().begins.epoch, data.plan().begins.position) == (3, 6)
    assert (data.plan(3).begins.position, data.plan(5).begins.position) == (6, 0)
    list(passing)
    assert (data.plan().begins.epoch, data.plan().begins.position) == (4, 0)


def test_a_state_of_other_items_has_no_plan(objects):
    """A plan from a position among other items would be of nothing that is read: it is refused, and so is a state."""
    state = dataset(objects).state_dict(batches=2)
    objects.put("o/new", b"new")
    data = dataset(objects)
    data.load_state_dict(state)
    with pytest.raises(NotResumable, match="of other items"):
        data.plan()
    with pytest.raises(NotResumable, match="of other items"):
        data.state_dict(batches=1)


def test_the_plan_of_a_sampler_is_of_indices(objects):
    """The rows of a rank are the lists of indices that its sampler gives."""
    data = AISMapDataset(objects.sdk)
    for rank, start in itertools.product(range(3), (0, 1)):
        sampler = AISSampler(data, batch_size=BATCH, world=World(rank, 3), **EPOCH)
        sampler.load_state_dict(sampler.state_dict(batches=start, epoch=2))
        rows = [row.items for row in sampler.plan() if row.rank == rank]
        assert rows == list(sampler)


def test_the_plan_of_shards_is_of_shards(embedded_bucket):
    """Items are the shards: who opens which."""
    for number in range(5):
        embedded_bucket.put(f"s/{number}.tar", numbered(3 * number, 3))
    reader = AISShardReader(embedded_bucket.sdk, {embedded_bucket.sdk: "s/"}, **EPOCH)
    first, second = (row for row in reader.plan(0, num_workers=5) if row.worker in (0, 1))
    passing = (key for key, _ in reader)
    keys = [next(passing) for _ in range(6)]
    assert keys[::3] == [f"{3 * int(row.items[0][2]):04d}" for row in (first, second)]
    assert "5 shards" in repr(reader.plan())


def test_where_there_is_no_plan(objects):
    """Where workers go at their own pace, or nobody has counted, the error says so."""
    data = dataset(objects, partition_sources_by_worker=True)
    assert len(list(data.plan())) == 7
    with pytest.raises(ConfigError, match="sources of its own"):
        data.plan(num_workers=2)
    with pytest.raises(ConfigError, match="nobody has counted"):
        AISMultiShardStream(objects.sdk).plan()


@pytest.mark.parametrize(("ranks", "workers", "told"), [(0, 1, "world_size"), ("2", 1, "world_size"), (1, -1, "num_w")])
def test_what_is_no_world(objects, ranks, workers, told):
    """Ranks and workers are numbers."""
    with pytest.raises(ConfigError, match=told):
        dataset(objects).plan(world_size=ranks, num_workers=workers)


# ---- its arithmetic


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_rows_are_the_deal(even):
    """For any size, position, world, batch and workers the rows are what `Order.positions` deals."""
    for number, position, ranks, batch, workers in itertools.product(
        (0, 1, 5, 12, 17, 97), (0, 1, 4), (1, 2, 3, 8), (1, 2, 5), (1, 2, 3)
    ):
        if position > number:
            continue
        order = Order(shuffle=True, seed=3, batch_size=batch, even=even)
        options = {"shuffle": True, "seed": 3, "batch_size": batch, "even": even}
        plan = synthetic(number, position=position, world_size=ranks, num_workers=workers, **options)
        found = {(rank, worker): [] for rank in range(ranks) for worker in range(workers)}
        for row in plan:
            found[row.rank, row.worker] += row.items
        dealt = {
            place: [item for share in order.positions(number, 1, World(place[0], ranks, place[1], workers), position)
                    for item in share.tolist()] for place in found
        }  # fmt: skip
        assert found == dealt
        assert plan.counts == [sum(len(found[rank, worker]) for worker in range(workers)) for rank in range(ranks)]
        assert plan.steps == len({row.step for row in plan})


def test_any_part_of_a_huge_plan():
    """A step of a plan of a trillion items is had at once; rows come without the ones after them."""
    plan = synthetic(10**12 + 5, world_size=4, num_workers=2, batch_size=256, shuffle=True, seed=1)
    first, last = plan.step(0), plan.step(-1)
    assert [len(row.items) for row in first] == [256] * 4
    assert {row.step for row in last} == {plan.steps - 1}
    assert list(itertools.islice(plan, 4)) == first
    assert "1000000000005 numbers" in repr(plan)
    with pytest.raises(IndexError, match=f"step {plan.steps} of a plan of {plan.steps} steps"):
        plan.step(plan.steps)


# ---- it can be looked at


def test_the_table():
    """First and last steps, who reads them, and what becomes of the remainder."""
    plan = synthetic(50, world_size=2, num_workers=3, batch_size=3)
    assert repr(plan).splitlines() == [
        "epoch 1: 50 numbers, in the order of the listing; 9 steps of 2 ranks with 3 workers, batch_size 3",
        "step rank worker    numbers",
        "   0    0      0 3  0, 1, 2",
        "   0    1      0 3  3, 4, 5",
        "   1    0      1 3  6, 7, 8",
        "   1    1      1 3  9, 10, 11",
        "   2    0      2 3  12, 13, 14",
        "   2    1      2 3  15, 16, 17",
        " ...",
        "   7    0      1 3  42, 43, 44",
        "   7    1      1 3  45, 46, 47",
        "   8    0      2 1  48",
        "   8    1      2 1  49",
        'ranks 0-1: 25 each; even="repeat": 50 numbers, each of them once',
    ]


@pytest.mark.parametrize(
    ("even", "position", "told"),
    [
        ("none", 0, 'rank 0: 8, ranks 1-2: 6 each; even="none": 20 numbers, each of them once'),
        ("repeat", 0, 'ranks 0-2: 7 each; even="repeat": 20 numbers, 1 of the first again, so that all ranks'),
        ("drop", 0, 'ranks 0-2: 6 each; even="drop": 20 numbers, the last 2 left out, so that all ranks'),
        ("repeat", 5, 'ranks 0-2: 5 each; even="repeat": 15 numbers, each of them once'),
    ],
)
def test_the_remainder(even, position, told):
    """The last line says what each rank gets, and what is read again or not at all."""
    last = repr(synthetic(20, position=position, world_size=3, batch_size=2, even=even)).splitlines()[-1]
    assert last.startswith(told)


@pytest.mark.parametrize("options", [{"world_size": 50, "batch_size": 64}, {"batch_size": 1}, {"num_workers": 0}])
@pytest.mark.parametrize("number", [0, 1, 10, 10**6])
def test_tables_are_small(options, number):
    """However long the plan, the table fits on a screen; of nothing it is a table of nothing."""
    lines = repr(synthetic(number, **options)).splitlines()
    assert 3 <= len(lines) <= 30
    assert all(len(line) < 160 for line in lines)


@pytest.mark.parametrize(
    ("number", "options"),
    [(0, {}), (1, {}), (20, {"world_size": 3, "batch_size": 2, "num_workers": 2}), (10**9, {"world_size": 99}),
     (23, {"world_size": 2, "even": "drop", "position": 7, "batch_size": 4, "shuffle": True})],
)  # fmt: skip
def test_the_picture(number, options, tmp_path):
    """Every plan has a picture, of its first and last steps, with a cell for each rank that reads at a step."""
    pytest.importorskip("matplotlib")
    plan = synthetic(number, **options)
    figure = plan.plot(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(PNG)
    order, grid = figure.axes
    steps, ranks = len(grid.get_xticks()), len(grid.get_yticks())
    if plan.steps * plan.world_size < 30:
        assert (steps, ranks) == (max(0, plan.steps), plan.world_size)
        assert len(grid.patches) == len(list(plan))
    assert len(grid.patches) <= 64
    assert np.all(np.isfinite(order.get_xlim()))


def test_no_matplotlib(tmp_path):
    """Without matplotlib a picture is an error that says how to get one, and a table is no matter."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    told = run([sys.executable, "-c", WITHOUT_MATPLOTLIB], PYTHONPATH=f"{tmp_path}:{CHECKOUT}")
    assert "10 indices" in told
    assert "pip install 'aisdatapipes[plot]'" in told
