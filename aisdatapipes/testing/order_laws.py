"""Laws of order and resume, to be checked on any dataset, chain or sampler that has a state.

They take a function that makes the thing anew, for a `World`, because what is resumed is another object, mostly in
another process. Each raises ``AssertionError`` that says which cut or share broke the law.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.testing.contents import content, shown

Make = Callable[[World], Any]

_ALONE = World()


def check_order(
    make: Make, *, even: Even = "none", worlds: Sequence[tuple[int, int]] = ((1, 1), (2, 1), (1, 3), (2, 2))
) -> None:
    """The shares of all ranks and workers are the epoch, and ranks are as long as ``even`` says.

    Args:
        make: Makes the dataset, chain or sampler for a place; ``even`` must be as said here, and ``batch_size`` 1 where
            workers are many and one of it is not one sample.
        even: What its ranks do about a remainder.
        worlds: (ranks, workers each) to be tried.
    """
    whole = Counter(_epoch(make(_ALONE)))
    for ranks, workers in worlds:
        shares = [
            [sample for worker in range(workers) for sample in _epoch(make(World(rank, ranks, worker, workers)))]
            for rank in range(ranks)
        ]
        found = Counter(itertools.chain.from_iterable(shares))
        lengths = [len(share) for share in shares]
        what = f"{ranks} ranks of {workers} workers"
        n, total = whole.total(), found.total()
        wanted = {"none": n, "drop": n - n % ranks, "repeat": -(-n // ranks) * ranks}[even]
        if total != wanted:
            raise AssertionError(f'{what} give {total} samples of {n}, with even="{even}" they must give {wanted}')
        if even != "none" and len(set(lengths)) > 1:
            raise AssertionError(f'{what} have {lengths} samples, with even="{even}" they must have equally many')
        lost, extra = whole - found, found - whole
        if extra and even != "repeat":
            raise AssertionError(f"{what} give a sample twice: {shown(next(iter(extra)))}")
        if lost and even != "drop":
            raise AssertionError(f"{what} never give {shown(next(iter(lost)))}")


def check_resume(
    make: Make, *, batch_size: int = 1, ranks: Sequence[int] = (2, 3), cuts: Sequence[int] | None = None
) -> None:
    """Saved at every cut and loaded into another object, the epoch goes on with the next sample.

    Then it is saved and loaded again and again in one epoch, and on other worlds, where every sample must come once.

    Args:
        make: Makes the dataset, chain or sampler for a place, with ``even="none"``. What it gives must be what its
            order deals, one by one (or in batches, of a sampler).
        batch_size: That of the order: with several ranks states are taken after whole batches.
        ranks: World sizes, one after the other, in one epoch; the last part is read by one rank.
        cuts: Samples after which to save; None for all.
    """
    whole, following = _epoch(make(_ALONE)), _second_epoch(make(_ALONE))
    for cut in range(len(whole)) if cuts is None else cuts:
        _check_cut(make, cut, whole, following)
    _check_again_and_again(make, whole)
    _check_worlds(make, ranks, batch_size, whole)


def _check_cut(make: Make, cut: int, whole: list[Hashable], following: list[Hashable]) -> None:
    first = make(_ALONE)
    got, state = _stopped(first, cut)
    again = _loaded(make(_ALONE), state)
    rest = _epoch(again)
    _same(whole, got + rest, f"saved after {cut} samples")
    _same(following, _epoch(again), f"the epoch after one that was saved after {cut} samples")


def _check_again_and_again(make: Make, whole: list[Hashable]) -> None:
    found: list[Hashable] = []
    state: Any = None
    while len(found) < len(whole):
        thing = make(_ALONE) if state is None else _loaded(make(_ALONE), state)
        got, state = _stopped(thing, min(3, len(whole) - len(found)))
        if not got:
            raise AssertionError(f"resumed after {len(found)} of {len(whole)} samples it gives nothing")
        found += got
    _same(whole, found, "saved and loaded after every 3 samples")


def _check_worlds(make: Make, ranks: Sequence[int], batch_size: int, whole: list[Hashable]) -> None:
    found: list[Hashable] = []
    state: Any = None
    for world_size in (*ranks, 1):
        states = []
        for rank in range(world_size):
            thing = make(World(rank, world_size))
            if state is not None:
                _loaded(thing, state)
            got, after = _stopped(thing, len(whole) if world_size == 1 else batch_size)
            found += got
            states.append(after)
        if any(one != states[0] for one in states):
            raise AssertionError(f"the {world_size} ranks have different states after a batch each: {states}")
        state = states[0]
    if Counter(found) != Counter(whole):
        raise AssertionError(
            f"over world sizes {(*ranks, 1)} {len(found)} samples came, of {len(whole)}; "
            f"{(Counter(whole) - Counter(found)).total()} never, {(Counter(found) - Counter(whole)).total()} too often"
        )


def _epoch(thing: Any) -> list[Hashable]:
    """One epoch, from where it stands."""
    return [content(sample) for sample in thing]


def _stopped(thing: Any, count: int) -> tuple[list[Hashable], Any]:
    """(so many samples, the state then, as a file gives it back)."""
    passing: Iterator[Any] = iter(thing)
    got = [content(sample) for sample in itertools.islice(passing, count)]
    return got, json.loads(json.dumps(thing.state_dict()))


def _loaded(thing: Any, state: Any) -> Any:
    thing.load_state_dict(state)
    return thing


def _second_epoch(thing: Any) -> list[Hashable]:
    _epoch(thing)
    return _epoch(thing)


def _same(expected: list[Hashable], found: list[Hashable], what: str) -> None:
    for position, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one != other:
            raise AssertionError(f"{what}: sample {position} is {shown(other)}, not {shown(one)}")
    if len(expected) != len(found):
        raise AssertionError(f"{what}: {len(found)} samples come, not {len(expected)}")
