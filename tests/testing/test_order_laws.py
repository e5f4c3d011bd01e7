"""The laws of order and resume: ours obey them, and what breaks them is told."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import AISIterDataset, AISPipeDataset, AISSampler, World
from aisdatapipes.testing import check_order, check_resume

OBJECTS = {f"o/{i:02d}": bytes([i]) for i in range(11)}
PLAN = {"shuffle": True, "seed": 8}


def plan(n=60, batch_size=1, even="none"):
    return lambda world: IterableWrapper(range(n)).ais_plan(batch_size=batch_size, even=even, world=world, **PLAN)


@pytest.mark.parametrize("even", ["none", "repeat", "drop"])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (1, 3), (4, 2), (7, 3)])
def test_a_plan_is_dealt(batch, workers, even):
    """12 combinations of batch, workers and even, each on 1 to 4 ranks."""
    check_order(plan(61, batch, even), even=even, worlds=[(ranks, workers) for ranks in (1, 2, 3, 4)])


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_plan_is_resumed(batch):
    """Every cut of an epoch of 60 items, again and again, and on other worlds."""
    check_resume(plan(60, batch), batch_size=batch)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.data())
def test_any_plan_is_resumed(n, batch, data):
    """Any number of items, any batch, any cut; worlds as large as the items allow."""
    cut = data.draw(st.integers(0, n - 1))
    ranks = data.draw(st.lists(st.integers(2, 3), max_size=2))
    fits, left = [], n
    for one in ranks:
        if left > one * batch:
            fits.append(one)
            left -= one * batch
    check_resume(plan(n, batch), batch_size=batch, ranks=fits, cuts=[cut])


def test_ours_obey(bucket):
    """A dataset, on both clusters."""
    bucket.fill(OBJECTS)

    def make(world):
        return AISIterDataset(bucket.sdk, batch_size=2, even="none", world=world, **PLAN)

    check_order(make)
    check_resume(make, batch_size=2, ranks=(2,), cuts=[0, 1, 5, 10])


def test_chains_and_samplers_obey():
    """The adapter of a chain, and a sampler, whose samples are batches."""
    check_resume(lambda world: AISPipeDataset(plan(20)(world).map(str)))
    check_order(lambda world: AISSampler(range(20), even="none", world=world, **PLAN), worlds=[(1, 1), (2, 1), (3, 1)])
    check_resume(lambda world: AISSampler(range(20), even="none", world=world, **PLAN))


class Counting:
    """Obeys; those below differ in one thing each."""

    def __init__(self, world):
        self.world, self.position, self.epoch = world, 0, 0

    def __iter__(self):
        start, self.position = self.position, self.position
        for number in range(start, 12):
            if (number - start) % self.world.world_size == self.world.rank:
                self.position = start + (number - start) // self.world.world_size * self.world.world_size
                self.position += self.world.world_size
                yield (self.epoch, number)
        self.position, self.epoch = 0, self.epoch + 1

    def state_dict(self):
        return {"position": self.position, "epoch": self.epoch}

    def load_state_dict(self, state):
        self.position, self.epoch = state["position"], state["epoch"]


class Repeats(Counting):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "position": max(0, state["position"] - 1)})


class Loses(Counting):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "position": min(12, state["position"] + 1)})


class ForgetsEpoch(Counting):
    def __iter__(self):
        yield from super().__iter__()
        self.epoch = 0 if self.epoch == 1 and getattr(self, "loaded", False) else self.epoch

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loaded = True


class OwnState(Counting):
    def state_dict(self):
        return {"position": self.position + (self.world.rank if self.world.world_size > 1 else 0), "epoch": self.epoch}


class Everything(Counting):
    """Each rank reads all."""

    def __iter__(self):
        self.world = World()
        return super().__iter__()


class Skips(Counting):
    def __iter__(self):
        return itertools.islice(super().__iter__(), 0, 4 if self.world.world_size > 1 else 99)


def test_what_behaves_passes():
    """The laws know nothing of AIStore."""
    check_resume(Counting)
    check_order(Counting, worlds=[(1, 1), (2, 1), (3, 1)])
    check_order(Counting, even="repeat", worlds=[(3, 1)])


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (Repeats, "saved after 1 samples: sample 1 is"),
        (Loses, "saved after 0 samples: sample 0 is"),
        (ForgetsEpoch, "the epoch after one that was saved after 0 samples: sample 0"),
        (OwnState, "ranks have different states"),
        (Everything, "came, of 12"),
    ],
)
def test_broken_resume_is_told(broken, told):
    """Each broken one fails, with the cut and the sample."""
    with pytest.raises(AssertionError, match=told):
        check_resume(broken)


def test_broken_order_is_told():
    """Samples that come twice or never."""
    with pytest.raises(AssertionError, match='2 ranks of 1 workers give 24 samples of 12, with even="none"'):
        check_order(Everything, worlds=[(2, 1)])
    with pytest.raises(AssertionError, match="give 8 samples of 12"):
        check_order(Skips, worlds=[(2, 1)])
