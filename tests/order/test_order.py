"""Order: every epoch a bijection of its own, and shares that make up the epoch."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import dealt, place_of, rank_samples
from aisdatapipes.order.permutation import permuted
from aisdatapipes.order.plan import Order

# ---- permutation


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 63, 64, 65, 127, 255, 256, 257, 1000, 4095, 65537])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 7), (-3, 2), (2**64 + 1, 10**6)])
def test_every_item_once(n, seed, epoch):
    """An epoch's order names every item exactly once."""
    assert sorted(permuted(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


def test_elements_do_not_depend_on_each_other():
    """A position's item is the same, alone or among others, in any shape."""
    whole = permuted(np.arange(1000), 1000, 5, 3)
    assert [int(permuted(np.array([i]), 1000, 5, 3)[0]) for i in range(0, 1000, 97)] == whole[::97].tolist()
    assert permuted(np.arange(1000).reshape(10, 100), 1000, 5, 3).reshape(-1).tolist() == whole.tolist()
    assert int(permuted(np.array(17), 1000, 5, 3)) == whole[17]


def test_an_order_is_a_function_of_seed_and_epoch():
    """The same seed and epoch give the same order, others another, and the two do not stand for each other."""
    orders = {key: tuple(permuted(np.arange(100), 100, *key).tolist()) for key in itertools.product(range(6), range(6))}
    again = {key: tuple(permuted(np.arange(100), 100, *key).tolist()) for key in orders}
    assert (again == orders, len(set(orders.values()))) == (True, len(orders))


def test_the_order_never_changes():
    """A training that is resumed with a later version meets the same order."""
    assert permuted(np.arange(10), 10, seed=1, epoch=2).tolist() == [6, 2, 1, 5, 8, 4, 7, 0, 9, 3]


@pytest.mark.parametrize("n", [5, 16, 23])
def test_positions_are_even(n):
    """Over many epochs each item comes at each position about equally often (chi-square, fixed seeds)."""
    epochs = 1500
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), permuted(np.arange(n), n, 11, epoch)] += 1
    expected = epochs / n
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = (n - 1) ** 2
    # Six standard deviations of chi-square: never by chance, soon by a bias.
    assert abs(chi_square - freedom) < 6 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("n", [2**40, 2**40 - 1, 2**61 + 12345, 2**62])
def test_any_size_without_memory(n):
    """A trillion items cost what the positions asked for cost."""
    positions = np.array([0, 1, 2, n // 2, n - 2, n - 1])
    items = permuted(positions, n, 1, 1)
    assert (len(set(items.tolist())), items.min() >= 0, items.max() < n) == (6, True, True)


def kendall(one, two):
    """Kendall's tau of two orders of the same items: 1 for the same order, -1 for the reverse, about 0 for strangers."""
    above = np.triu(np.ones((len(one), len(one)), bool), 1)
    same = np.sign(one[:, None] - one[None, :]) * np.sign(two[:, None] - two[None, :])
    return float(same[above].mean())


def test_epochs_know_nothing_of_each_other():
    """The order of an epoch says nothing about the next one's, nor a seed's about the next seed's (Kendall's tau)."""
    n, pairs = 101, 300
    spread = (2 * (2 * n + 5) / (9 * n * (n - 1))) ** 0.5  # of tau between independent orders (Kendall, 1938)
    for neighbour in ((0, 1), (1, 0)):
        taus = [
            kendall(permuted(np.arange(n), n, i, i), permuted(np.arange(n), n, i + neighbour[0], i + neighbour[1]))
            for i in range(pairs)
        ]
        assert abs(np.mean(taus)) < 5 * spread / pairs**0.5
        assert 0.8 < np.std(taus) / spread < 1.2
    assert kendall(np.arange(9), np.arange(9)) == 1.0  # the measure itself


@pytest.mark.parametrize("n", [64, 100, 2**40])
def test_neighbours_do_not_stay_neighbours(n):
    """Items that were listed side by side come side by side as seldom as by chance: about twice an epoch."""
    epochs = 400 if n < 1000 else 1
    at = np.arange(min(n, 100_000))
    together = sum(int((np.abs(np.diff(permuted(at, n, 2, epoch))) == 1).sum()) for epoch in range(epochs))
    expected = epochs * (len(at) - 1) * 2 / n
    assert abs(together - expected) <= 6 * expected**0.5 + 1


@pytest.mark.parametrize("n", [2**40, 3 * 2**40 + 7, 2**62])
def test_large_orders_are_even_too(n):
    """In an order of a trillion items a run of positions is spread evenly over all of them (chi-square)."""
    cells, drawn = 64, 64_000
    items = permuted(np.arange(n // 3, n // 3 + drawn), n, 4, 9)
    counts = np.bincount((items // (n // cells + 1)).astype(int), minlength=cells)
    chi_square = float(((counts - drawn / cells) ** 2 / (drawn / cells)).sum())
    assert (len(np.unique(items)), abs(chi_square - (cells - 1)) < 6 * (2 * (cells - 1)) ** 0.5) == (drawn, True)


# ---- deal

GRID = [
    (n, ranks, batch, workers, even)
    for n, ranks, batch, workers in itertools.product((0, 1, 2, 5, 12, 17, 97), (1, 2, 3, 8), (1, 2, 5), (1, 2, 3))
    for even in ("none", "repeat", "drop")
]


def shares(n, ranks, batch, workers, even):
    return [
        [np.concatenate([*dealt(n, World(r, ranks, w, workers), batch, even), np.zeros(0, np.int64)]).tolist()
         for w in range(workers)]
        for r in range(ranks)
    ]  # fmt: skip


def check(n, ranks, batch, workers, even):
    found = shares(n, ranks, batch, workers, even)
    flat = [item for rank in found for worker in rank for item in worker]
    lengths = [sum(map(len, rank)) for rank in found]
    assert lengths == [rank_samples(n, World(r, ranks), batch, even) for r in range(ranks)]
    if even == "none":
        assert sorted(flat) == list(range(n))
        return
    assert len(set(lengths)) == 1
    if even == "drop":
        assert sorted(flat) == list(range(n - n % ranks))
    else:
        # every item once, and as many of the first ones again as it takes
        total = -(-n // ranks) * ranks
        assert sorted(flat) == sorted(i % n for i in range(total))


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_shares_make_up_the_epoch(even):
    """The shares of all ranks and workers are the epoch, as ``even`` says."""
    for row in GRID:
        if row[-1] == even:
            check(*row)


@given(
    st.integers(0, 500),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(["none", "repeat", "drop"]),
)
def test_shares_make_up_any_epoch(n, ranks, batch, workers, even):
    """The same for any numbers."""
    check(n, ranks, batch, workers, even)


def batches(n, rank, ranks, batch, workers, even):
    """The batches that a DataLoader collects: workers in turn, until all have ended."""
    streams = [
        iter(np.concatenate([*dealt(n, World(rank, ranks, w, workers), batch, even), np.zeros(0, np.int64)]).tolist())
        for w in range(workers)
    ]
    found = []
    while streams:
        for stream in list(streams):
            if some := list(itertools.islice(stream, batch)):
                found.append(some)
            else:
                streams.remove(stream)
    return found


@given(st.integers(0, 300), st.integers(1, 5), st.integers(1, 7), st.sampled_from(["none", "repeat", "drop"]))
def test_workers_do_not_change_batches(n, ranks, batch, even):
    """The batches of a rank are the same for any number of workers."""
    for rank in range(ranks):
        one = batches(n, rank, ranks, batch, 1, even)
        assert [batches(n, rank, ranks, batch, workers, even) for workers in (2, 3, 4)] == [one] * 3


@given(st.integers(0, 300), st.integers(1, 5), st.integers(1, 7), st.sampled_from(["repeat", "drop"]))
def test_ranks_make_equal_steps(n, ranks, batch, even):
    """With an even deal all ranks have batches of the same sizes: nobody waits for a rank that has ended."""
    sizes = {tuple(map(len, batches(n, rank, ranks, batch, 2, even))) for rank in range(ranks)}
    assert len(sizes) == 1


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 7), st.integers(1, 4))
def test_place_of_agrees(n, ranks, batch, workers):
    """`place_of` names the rank and the worker that a position is dealt to."""
    found = shares(n, ranks, batch, workers, "none")
    places = {item: (r, w) for r in range(ranks) for w in range(workers) for item in found[r][w]}
    assert {p: place_of(p, ranks, workers, batch) for p in range(n)} == places


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_a_trillion_items_are_dealt_in_pieces(even):
    """Memory is that of a piece, whatever the number of items."""
    n = 2**40
    first = next(dealt(n, World(1, 2, 1, 3), 4, even))
    assert (first[:9].tolist(), len(first) <= 8192) == ([12, 13, 14, 15, 36, 37, 38, 39, 60], True)


def test_pieces_join_without_a_gap():
    """Where one piece ends and the next begins nothing is lost or doubled."""
    for batch in (1, 3, 5000):
        pieces = list(dealt(30_000, World(0, 1, 0, 1), batch, "none"))
        assert np.concatenate(pieces).tolist() == list(range(30_000))


# ---- plan


def test_a_plan_deals_a_permutation():
    """With ``shuffle`` the shares of all ranks are the epoch still, each epoch in another order."""
    order = Order(shuffle=True, seed=3, batch_size=4, even="none")
    epochs = []
    for epoch in range(2):
        ranks = [np.concatenate(list(order.positions(50, epoch, World(r, 3)))).tolist() for r in range(3)]
        assert sorted(itertools.chain(*ranks)) == list(range(50))
        epochs.append(ranks)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("ranks", "samples"), [(1, [10]), (3, [4, 4, 4])])
def test_even_by_default_where_it_matters(ranks, samples):
    """One rank reads each item once; several get equally many."""
    assert [Order().samples(10, World(r, ranks)) for r in range(ranks)] == samples


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": "2"}, {"even": "maybe"}, {"world": 3}, {"seed": "x"}]
)
def test_a_plan_is_checked(arguments):
    """What cannot work is a `ConfigError` that names the argument."""
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Order(**arguments)


def test_a_plan_travels():
    """Pickled, it is equal."""
    order = Order(True, 3, 4, "drop", World(1, 2))
    assert pickle.loads(pickle.dumps(order)) == order
