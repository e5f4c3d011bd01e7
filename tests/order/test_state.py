"""The state of an order: arithmetic, and what cannot be loaded."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError, NotResumable
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import dealt, rank_samples, step_count
from aisdatapipes.order.plan import Order
from aisdatapipes.order.state import OrderState

PRINT = "0123456789abcdef"
STATE = OrderState(PRINT, 7, 3, 20)
WORDS = st.sampled_from(["none", "repeat", "drop"])


def share(n, world, batch, even, start=0):
    return np.concatenate([*dealt(n, world, batch, even, start), np.zeros(0, np.int64)]).tolist()


def step(n, rank, ranks, batch, even, start, index):
    """What one rank takes in one step, counted from ``start``."""
    return share(n, World(rank, ranks), batch, even, start)[index * batch : (index + 1) * batch]


# ---- the value


@pytest.mark.parametrize(
    "state", [STATE, OrderState(PRINT, None, 0), OrderState(PRINT, -5, 10**9, 2**62), OrderState(PRINT, 1, 1, 2, 9)]
)
def test_a_state_survives_json(state):
    """A state is JSON values, under 200 bytes, and comes back equal; by pickle too."""
    text = json.dumps(state.to_dict())
    assert (OrderState.from_dict(json.loads(text)), len(text) < 200) == (state, True)
    assert pickle.loads(pickle.dumps(state)) == state


def test_the_form_never_changes():
    """A state that was saved by this version can be read by later ones."""
    assert STATE.to_dict() == {"version": 1, "fingerprint": PRINT, "seed": 7, "epoch": 3, "position": 20}


WRONG = [
    (None, "dict, not NoneType"),
    ([1, 2], "dict, not list"),
    ({}, "no 'version'"),
    ({"model": 1, "optimizer": 2}, "'model', 'optimizer'"),
    ({"version": 1}, "lacks fingerprint, seed, epoch, position"),
    ({key: value for key, value in STATE.to_dict().items() if key != "seed"}, "lacks seed"),
    *[
        (STATE.to_dict() | change, told)
        for change, told in [
            ({"version": 2}, "version 2, this release reads version 1"),
            ({"version": "1"}, "version '1'"),
            ({"version": True}, "version True"),
            ({"fingerprint": 5}, "fingerprint must be 16 hex digits, not 5"),
            ({"fingerprint": PRINT[1:]}, "16 hex digits"),
            ({"fingerprint": PRINT.upper()}, "16 hex digits"),
            ({"seed": "7"}, "seed must be a number or None, not '7'"),
            ({"seed": 7.0}, "seed must be"),
            ({"epoch": -1}, "epoch must be a number, 0 or more, not -1"),
            ({"epoch": None}, "epoch must be"),
            ({"position": -20}, "position must be a number, 0 or more, not -20"),
            ({"position": 1.5}, "position must be"),
            ({"position": True}, "position must be"),
            ({"within": -1}, "within must be"),
            ({"more": 1}, "unknown in it, 'more'"),
        ]
    ],
]


@pytest.mark.parametrize(("state", "told"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_state_is_refused(state, told):
    """Truncated, of another version, of wrong types, negative: `NotResumable`, which says what is wrong."""
    with pytest.raises(NotResumable) as caught:
        OrderState.from_dict(state)
    assert told in str(caught.value)
    assert "; load what" in str(caught.value) or "; resume with" in str(caught.value)  # what to do


@pytest.mark.parametrize(
    ("fingerprint", "seed", "n", "told"),
    [
        ("f" * 16, 7, 100, "of other items: its fingerprint is 0123456789abcdef, that of these is ffffffffffffffff"),
        (PRINT, 8, 100, "has seed 7, this order has seed 8"),
        (PRINT, None, 100, "order that is shuffled, this one is not shuffled"),
        (PRINT, 7, 19, "position 20 of 19 items"),
    ],
)
def test_what_differs_is_said(fingerprint, seed, n, told):
    """Other items, another seed, shuffled or not, fewer items: the message says which it is."""
    STATE.check_order(7)
    for number in (100, 20, None):
        STATE.check_items(PRINT, number)
    check = STATE.check_order if seed != STATE.seed else lambda _: STATE.check_items(fingerprint, n)
    with pytest.raises(NotResumable) as caught:
        check(seed)
    assert told in str(caught.value)


def test_unshuffled_in_a_shuffled_order():
    """The other way round is told the other way round."""
    with pytest.raises(NotResumable, match="not shuffled, this one is shuffled"):
        OrderState(PRINT, None, 0).check_order(7)


# ---- the deal of what is left

GRID = list(
    itertools.product(
        (0, 1, 5, 12, 17, 60), (0, 1, 4, 12, 59), (1, 2, 3, 8), (1, 2, 5), (1, 3), ("none", "repeat", "drop")
    )
)


def test_what_is_left_is_dealt():
    """From any position on, ranks and workers share what is left, as ``even`` says of it."""
    for n, start, ranks, batch, workers, even in GRID:
        if start > n:
            continue
        shares = [
            [
                item
                for worker in range(workers)
                for item in share(n, World(rank, ranks, worker, workers), batch, even, start)
            ]
            for rank in range(ranks)
        ]
        lengths = [len(one) for one in shares]
        assert lengths == [rank_samples(n, World(rank, ranks), batch, even, start) for rank in range(ranks)]
        left = n - start
        wanted = {"none": left, "drop": left - left % ranks, "repeat": -(-left // ranks) * ranks}[even]
        assert sorted(itertools.chain(*shares)) == sorted((start + i) % n for i in range(wanted))
        assert even == "none" or len(set(lengths)) == 1
        assert step_count(n, ranks, batch, even, start) == max(-(-length // batch) for length in lengths)


@given(st.integers(1, 300), st.data(), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), WORDS)
def test_a_step_is_the_same_before_and_after(n, data, ranks, batch, workers, even):
    """A deal that begins where another one's step begins makes the same steps, but for the remainder."""
    done = data.draw(st.integers(0, n // (ranks * batch)))
    start = done * ranks * batch
    for rank in range(ranks):
        whole = share(n, World(rank, ranks), batch, even)
        assert share(n, World(rank, ranks), batch, even, start) == whole[done * batch :]


def test_what_is_left_of_a_trillion():
    """A position far on costs nothing."""
    n = 2**40
    first = next(dealt(n, World(1, 2), 4, "none", n - 100))
    assert first[:5].tolist() == [n - 96, n - 95, n - 94, n - 93, n - 88]


# ---- arithmetic of states


@given(st.integers(0, 200), st.data(), st.integers(1, 5), st.integers(1, 6), WORDS)
def test_a_state_is_what_was_consumed(n, data, ranks, batch, even):
    """After k steps the state stands behind exactly what the ranks took in them; after the last one, at the next epoch."""
    start = data.draw(st.integers(0, n))
    last = step_count(n, ranks, batch, even, start)
    steps = data.draw(st.integers(0, last))
    begun = OrderState(PRINT, None, 4, start)
    state = begun.after(steps, n, ranks, batch, even)
    if steps and steps == last:
        assert state == OrderState(PRINT, None, 5, 0)
        return
    taken = [
        item for rank in range(ranks) for k in range(steps) for item in step(n, rank, ranks, batch, even, start, k)
    ]
    assert (state.epoch, sorted(taken)) == (4, list(range(start, state.position)))


@given(st.integers(1, 200), st.data(), st.integers(1, 5), st.integers(1, 6), WORDS)
def test_states_add_up(n, data, ranks, batch, even):
    """k steps and then m steps are k + m steps."""
    last = step_count(n, ranks, batch, even)
    one = data.draw(st.integers(0, last))
    two = data.draw(st.integers(0, last - one))
    begun = OrderState(PRINT, 3, 0)
    middle = begun.after(one, n, ranks, batch, even)
    if middle.epoch == 0:
        assert middle.after(two, n, ranks, batch, even) == begun.after(one + two, n, ranks, batch, even)


@pytest.mark.parametrize(("even", "last"), [("none", 3), ("repeat", 3), ("drop", 3)])
def test_beyond_the_epoch(even, last):
    """More batches than the epoch has are refused, with the number that it has."""
    begun = OrderState(PRINT, None, 0)
    assert begun.after(last, 21, 2, 4, even).epoch == 1
    with pytest.raises(ConfigError, match=f"there are {last} batches a rank"):
        begun.after(last + 1, 21, 2, 4, even)


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
def test_steps_of_nothing(even):
    """An empty epoch has no steps: its state stays where it is."""
    assert OrderState(PRINT, None, 0).after(0, 0, 2, 4, even) == OrderState(PRINT, None, 0)


CUTS = [
    (ranks, workers, batch, even)
    for ranks, workers, batch in ((1, 1, 1), (1, 3, 7), (2, 1, 4), (3, 2, 5))
    for even in ("none", "repeat", "drop")
]


@pytest.mark.parametrize(("ranks", "workers", "batch", "even"), CUTS)
def test_every_cut_of_an_epoch(ranks, workers, batch, even):
    """Cut after any step and resumed on any world, an epoch of 60 gives every item, none twice but for the remainder."""
    order, n = Order(shuffle=True, seed=5, batch_size=batch, even=even), 60
    begun = OrderState(PRINT, 5, 2)
    for steps in range(step_count(n, ranks, batch, even)):
        state = begun.after(steps, n, ranks, batch, even)
        first = [
            item
            for rank in range(ranks)
            for item in np.concatenate([*order.positions(n, 2, World(rank, ranks)), np.zeros(0, np.int64)])[
                : steps * batch
            ].tolist()
        ]
        for later in ((1, 1), (2, 3), (7, 2)):
            resumed = dataclasses.replace(order, batch_size=later[1])
            rest = [
                item
                for rank in range(later[0])
                for worker in range(workers)
                for share in resumed.positions(n, 2, World(rank, later[0], worker, workers), state.position)
                for item in share.tolist()
            ]
            left = n - state.position
            assert len(set(first)) == len(first)
            if even == "drop":
                assert not set(first) & set(rest)
                assert len(first) + len(rest) == n - left % later[0]
            else:
                assert sorted(set(first) | set(rest)) == list(range(n))
                assert len(rest) == (left if even == "none" else -(-left // later[0]) * later[0])
