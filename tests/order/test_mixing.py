"""The arithmetic of mixes: proportions that hold after any number of draws, and where epochs end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes import ConfigError
from aisdatapipes.order.mixing import Mixture
from aisdatapipes.order.turns import FINEST, parts_of, turns

PARTS = st.lists(st.integers(1, 60), min_size=1, max_size=9).map(tuple)
STOPS = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")


def drift(parts):
    """The largest difference, over all numbers of turns in a period, between what a source had and its share."""
    found, total = turns(parts), sum(parts)
    had = np.cumsum(found.sources[:, None] == np.arange(len(parts))[None, :], axis=0)  # axes: turn, source
    due = np.arange(1, total + 1)[:, None] * np.array(parts)[None, :]  # in units of 1/total
    return np.abs(had * total - due).max() / total


@settings(max_examples=200, deadline=None)
@given(PARTS)
def test_every_source_has_its_share_at_any_time(parts):
    """After any number of turns what a source had differs from its share by less than one."""
    assert drift(parts) < 1


@pytest.mark.parametrize(
    "parts", [(1,), (1, 1), (99_999, 1), (900, *[1] * 100), (1, 2, 4, 8, 16, 32), (50_000, 30_011, 19_989)]
)
def test_shares_of_odd_proportions(parts):
    """One source, halves, hardly ever, one large and a hundred small ones at once, powers, a long period."""
    assert drift(parts) < 1


@given(PARTS, st.integers(0, 10**15))
def test_turns_are_looked_up(parts, number):
    """Any turn is found without those before it, and found again from its source and count."""
    found = turns(parts)
    (source,), (count,) = (values.tolist() for values in found.at(np.array([number])))
    assert number == found.number(source, count)
    assert count == found.counts(number)[source]
    assert number == found.counts(number).sum()


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (["1", "1"], (1, 1)),
        (["0.1", "0.2", "0.7"], (1, 2, 7)),
        (["0.3333333333333333"] * 3, (1, 1, 1)),
        (["1/3", "2/3"], (1, 2)),
        (["1e-3", "1000"], None),
        (["250", "1000"], (1, 4)),
        (["1234567", "7654321"], (13_889, 86_111)),
    ],
)
def test_weights_are_whole_parts(weights, parts):
    """Proportions as they are written, reduced; what is too fine is rounded, and what would vanish is refused."""
    given_weights = [Fraction(one) for one in weights]
    if parts is None:
        with pytest.raises(ConfigError, match="too small"):
            parts_of(given_weights)
    else:
        assert parts == parts_of(given_weights)


@given(st.lists(st.fractions(Fraction(1, 50), 10, max_denominator=10**9), min_size=1, max_size=8))
def test_rounded_weights_are_near(weights):
    """No weight is off by a whole part, and together they are all."""
    parts = parts_of(weights)
    assert sum(parts) <= FINEST
    for weight, part in zip(weights, parts, strict=True):
        assert abs(weight / sum(weights) - Fraction(part, sum(parts))) < Fraction(1, FINEST)


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=5)


def drawn(lengths, parts, stop):
    mixture = Mixture(lengths, parts, stop)
    sources, counts = mixture.draws(np.arange(mixture.number))
    return mixture, list(zip(sources.tolist(), counts.tolist(), strict=True))


@settings(deadline=None)
@given(LENGTHS, st.sampled_from(STOPS))
def test_draws_count_up(sources, stop):
    """The draws from each source are its samples 0, 1, 2 and so on, whatever the order of positions asked for."""
    lengths, parts = zip(*sources, strict=True)
    mixture, draws = drawn(lengths, parts, stop)
    for source in range(len(lengths)):
        own = [count for one, count in draws if one == source]
        assert own == list(range(len(own)))
        assert (len(own), max(1, -(-len(own) // lengths[source]))) == (
            mixture.counts[source],
            mixture.passes()[source],
        )
    backwards = mixture.draws(np.arange(mixture.number)[::-1])
    assert draws[::-1] == list(zip(*(values.tolist() for values in backwards), strict=True))


@settings(deadline=None)
@given(LENGTHS)
def test_first_exhausted(sources):
    """No sample comes twice, and the next draw would find nothing."""
    lengths, parts = zip(*sources, strict=True)
    mixture, draws = drawn(lengths, parts, "first_exhausted")
    assert all(count < lengths[source] for source, count in draws)
    source, count = (int(value[0]) for value in turns(parts).at(np.array([mixture.number])))
    assert count == lengths[source]


@settings(deadline=None)
@given(LENGTHS)
def test_all_exhausted(sources):
    """Every sample comes, and the last draw is the last one of the source that took longest."""
    lengths, parts = zip(*sources, strict=True)
    mixture, draws = drawn(lengths, parts, "all_exhausted")
    assert all(count >= length for count, length in zip(mixture.counts, lengths, strict=True))
    source, count = draws[-1]
    assert count == lengths[source] - 1


@settings(deadline=None)
@given(LENGTHS)
def test_all_exhausted_without_replacement(sources):
    """Every sample comes once; when a source has nothing left for its turn, the others begin their turns anew."""
    lengths, parts = zip(*sources, strict=True)
    mixture, draws = drawn(lengths, parts, "all_exhausted_without_replacement")
    assert mixture.number == sum(lengths)
    assert sorted(draws) == [(source, count) for source, length in enumerate(lengths) for count in range(length)]
    expected, left = [], list(lengths)
    while any(left):
        alive = [source for source in range(len(lengths)) if left[source]]
        whose, number = turns(tuple(parts[source] for source in alive)), 0
        while left[source := alive[whose.sources[number % len(whose.sources)]]]:
            expected.append((source, lengths[source] - left[source]))
            left[source] -= 1
            number += 1
    assert draws == expected


def test_an_example_by_hand():
    """Three sources of 6, 1 and 1, in the proportions 2 : 1 : 1."""
    assert [0, 1, 0, 2, 0] == [source for source, _ in drawn((6, 1, 1), (2, 1, 1), "first_exhausted")[1]]
    everything = drawn((6, 1, 1), (2, 1, 1), "all_exhausted_without_replacement")[1]
    assert [0, 1, 0, 2, 0, 0, 0, 0] == [source for source, _ in everything]
    assert 11 == Mixture((6, 1, 1), (2, 1, 1), "all_exhausted").number
