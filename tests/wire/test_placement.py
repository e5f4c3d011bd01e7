"""Placement: one name and a whole page agree, with each other and with AIStore."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.wire import placement

names = st.lists(st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")), max_size=20)
digests = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=7, unique=True)

# xoshiro256** seeded with these numbers gives these
VECTORS = [(0, 1905207664160064169), (4573842, 5026071747115404967)]


@pytest.mark.parametrize(("seed", "score"), VECTORS)
def test_score(seed, score):
    """The mix is AIStore's, for one number and for an array."""
    assert score == placement._score(seed)
    assert [score] == placement._scores(np.array([seed], np.uint64)).tolist()


@pytest.mark.parametrize(
    ("parts", "uname"),
    [
        (("ais", "", "bk", "dir/a.jpg"), "ais/@#/bk/dir/a.jpg"),
        (("ais", "@uuid#ns", "bk", "/a"), "ais/@uuid#ns/bk//a"),
        (("aws", "#ns", "bk", ""), "aws/#ns/bk/"),
    ],
)
def test_uname(parts, uname):
    """A full name is its parts with slashes, and "@#" for the global namespace."""
    assert uname == placement.uname(*parts)


def test_digest_of_a_node():
    """The digest of a node's id is the one in the cluster's map (taken from a running cluster)."""
    assert placement.digest("EYot28900") == 7683295087244222657


@given(names, digests)
def test_page_as_one_by_one(names, digests):
    """A page at once gives the same owners as name by name."""
    prefix = placement.uname("ais", "", "bk", "")
    one_by_one = [placement.owner(prefix + name, digests) for name in names]
    assert one_by_one == placement.owners(prefix, names, np.array(digests, np.uint64)).tolist()


@given(st.text(), digests, st.integers(0, 6))
def test_leaving_moves_only_its_own(name, digests, leaving):
    """When a target leaves, an object that another one owns stays there."""
    winner = digests[placement.owner(name, digests)]
    left = [digest for index, digest in enumerate(digests) if index != leaving] or digests
    if winner in left:
        assert winner == left[placement.owner(name, left)]
