"""A shuffle by blocks: a bijection of every size, whose windows hold whole blocks."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.blocks import Blocks
from aisdatapipes.order.plan import Order

BLOCKS = Blocks(1, window=4, items=8)


def items(blocks, n, seed=0, epoch=0):
    return blocks.items_at(np.arange(n), n, seed, epoch)


@given(st.integers(0, 700), st.integers(1, 80), st.integers(1, 9), st.integers(0, 5))
def test_every_item_once(n, of_a_block, window, epoch):
    """Whatever the number of items, and however short the last block and the last window are."""
    assert sorted(items(Blocks(1, window, of_a_block), n, 3, epoch).tolist()) == list(range(n))


def test_elements_do_not_depend_on_each_other():
    """A position's item is the same, alone or among others, in any shape."""
    whole = items(BLOCKS, 1003)
    assert [int(BLOCKS.items_at(np.array([i]), 1003, 0, 0)[0]) for i in range(1003)] == whole.tolist()
    assert BLOCKS.items_at(np.arange(1000).reshape(10, 100), 1003, 0, 0).reshape(-1).tolist() == whole[:1000].tolist()
    assert int(BLOCKS.items_at(np.array(17), 1003, 0, 0)) == whole[17]


def test_the_order_never_changes():
    """A training that is resumed with a later version meets the same order."""
    assert items(Blocks(1, window=2, items=3), 14, seed=1, epoch=2).tolist() == [
        7,
        9,
        10,
        11,
        8,
        6,
        5,
        13,
        12,
        1,
        4,
        3,
        2,
        0,
    ]


def test_a_window_holds_whole_blocks():
    """All items of its blocks, and no others."""
    n = 8 * 4 * 10
    for window in items(BLOCKS, n).reshape(-1, BLOCKS.span):
        assert 4 == len(set((window // 8).tolist()))


def test_few_items_leave_their_block():
    """Where the last block is short, less than a block's items stand in another window."""
    n = 8 * 4 * 10 - 5
    windows = [items(BLOCKS, n)[at : at + BLOCKS.span] for at in range(0, n, BLOCKS.span)]
    found = [len(set((window // 8).tolist())) for window in windows]
    assert sum(found) <= 40 + 7
    assert sorted(found)[:8] == [4] * 8


def test_epochs_seeds_and_windows_differ():
    """Another order in each epoch, with each seed, and in each window."""
    n = 8 * 4 * 100
    orders = {
        (seed, epoch): tuple(items(BLOCKS, n, seed, epoch).tolist())
        for seed, epoch in itertools.product(range(3), range(3))
    }
    assert 9 == len(set(orders.values()))
    within = {tuple(np.argsort(window).tolist()) for window in np.array(orders[0, 0]).reshape(-1, BLOCKS.span)}
    assert 100 == len(within)


def test_places_in_a_window_are_even():
    """Over all windows the first item of a block comes at each place about equally often (chi-square, fixed seeds)."""
    n, span = BLOCKS.span * 4000, BLOCKS.span
    order = items(BLOCKS, n, seed=5)
    places = np.flatnonzero(order % BLOCKS.items == 0) % span
    counts = np.bincount(places, minlength=span)
    expected = len(places) / span
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - (span - 1)) < 6 * (2 * (span - 1)) ** 0.5


@pytest.mark.parametrize("n", [2**40 - 1, 2**61 + 12345])
def test_any_size_without_memory(n):
    """A trillion items cost what the positions asked for cost."""
    positions = np.array([0, 1, 2, n // 2, n - 2, n - 1])
    found = Blocks(1, 16, 1000).items_at(positions, n, 1, 1)
    assert (6, True, True) == (len(set(found.tolist())), found.min() >= 0, found.max() < n)


@pytest.mark.parametrize(("ranks", "workers", "batch"), [(1, 1, 1), (1, 3, 4), (3, 2, 5), (2, 1, 500)])
@pytest.mark.parametrize("start", [0, 1, 33, 299])
def test_shares_come_by_windows(ranks, workers, batch, start):
    """The same items in the same order as the positions dealt, in arrays of one window each; all ranks have the rest."""
    n, found = 300, []
    order = Order(True, 7, batch, "none", blocks=BLOCKS)
    plain = Order(False, 7, batch, "none")
    for rank, worker in itertools.product(range(ranks), range(workers)):
        world = World(rank, ranks, worker, workers)
        arrays = list(order.positions(n, 2, world, start))
        dealt = [position for share in plain.positions(n, 2, world, start) for position in share.tolist()]
        assert order.items_at(np.array(dealt, np.int64), n, 2).tolist() == [
            i for array in arrays for i in array.tolist()
        ]
        lengths = itertools.groupby(position // BLOCKS.span for position in dealt)
        assert [len(list(group)) for _, group in lengths] == list(map(len, arrays))
        found += [i for array in arrays for i in array.tolist()]
    assert sorted(order.items_at(np.arange(start, n), n, 2).tolist()) == sorted(found)


@pytest.mark.parametrize(("arguments", "message"), [
    ((-1, 4), "block_bytes must be a number of bytes"), ((1.5, 4), "block_bytes"), ((1, 0), "window_blocks"), ((1, "2"), "window_blocks"),
])  # fmt: skip
def test_bad_blocks(arguments, message):
    """What cannot work is a `ConfigError` that names the argument."""
    with pytest.raises(ConfigError, match=message):
        Blocks(*arguments)


def test_blocks_travel():
    """Pickled, an order with blocks is equal."""
    order = Order(True, blocks=BLOCKS)
    assert order == pickle.loads(pickle.dumps(order))
