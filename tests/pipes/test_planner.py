"""``ais_plan``: the deal as a pipe."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import ConfigError, World

ITEMS = [f"ais://b/{i:02d}" for i in range(23)]


def planned(**options):
    return IterableWrapper(ITEMS).ais_plan(**options)


def test_without_options_it_changes_nothing():
    """One rank, no workers, no shuffle: the source as it is."""
    assert list(planned()) == ITEMS


def test_shuffled_epochs_differ_and_repeat():
    """Each epoch has its own order of the same items; set_epoch brings one back."""
    pipe = planned(shuffle=True, seed=3)
    first, second = list(pipe), list(pipe)
    assert sorted(first) == sorted(second) == ITEMS
    assert first != second
    pipe.set_epoch(0)
    assert list(pipe) == first


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_partition_the_epoch(world_size):
    """With ``even="none"`` every item is on exactly one rank."""
    shares = [list(planned(shuffle=True, even="none", world=World(r, world_size))) for r in range(world_size)]
    assert sorted(item for share in shares for item in share) == ITEMS


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_are_the_same_for_any_number_of_workers(workers):
    """A DataLoader with the same batch size sees the same batches."""
    loader = DataLoader(planned(shuffle=True, batch_size=4), batch_size=4, num_workers=workers)
    expected = list(planned(shuffle=True))
    assert [list(batch) for batch in loader] == [expected[i : i + 4] for i in range(0, len(ITEMS), 4)]


def test_length_is_that_of_the_rank():
    """``len()`` counts this rank's items, with the remainder as ``even`` says."""
    lengths = {even: len(planned(even=even, world=World(0, 2))) for even in ("none", "repeat", "drop")}
    assert lengths == {"none": 12, "repeat": 12, "drop": 11}


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"even": "some"}, {"seed": "x"}, {"world": 3}])
def test_options_that_cannot_work_are_refused(wrong):
    """Each wrong option is a ConfigError at construction."""
    with pytest.raises(ConfigError):
        planned(**wrong)
