"""Several datasets as one, in exact proportions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import operator
import time
import weakref
from collections.abc import Generator, Iterator, Mapping
from fractions import Fraction
from typing import Any, TypeVar, get_args

import numpy as np
import xxhash
from torch.utils.data import IterableDataset

from aisdatapipes.datasets.drawing import LEFT_OUT, Drawing, SourceResume
from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.passes import Pass
from aisdatapipes.datasets.plan import Plan
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.mixing import Mixture, Stop
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Standing, Start, without_first
from aisdatapipes.order.turns import parts_of
from aisdatapipes.pipes.place import current_world, with_rank
from aisdatapipes.pipes.resume import Cursor, Identity, Items, Resume, checked_batches

# A mapping is invariant in its keys: one of a single class of datasets would not be a mapping of their base.
D = TypeVar("D", bound=AISBaseIterDataset)


class AISMix(IterableDataset[Any]):
    """Samples of several datasets, drawn in exact proportions.

    Not by chance: after any number of samples of an epoch, each dataset has given its share to within less than one
    (`aisdatapipes.order.turns`). Which sample stands where is arithmetic on lengths, weights and epoch, so a mix has
    what a dataset has: a length, a share for every rank and worker, a state for any world.

    Args:
        datasets: Weight of each ``AISIterDataset``, ``AISBatchIterDataset``, ``AISShardReader`` with an index, or
            subclass. Weights count in proportion to each other, as they are written: 0.7 is 7/10. They are rounded to
            1/100,000 of all where they are finer. How samples of a dataset are read, shuffled (its ``shuffle`` and
            ``seed``), and left out is its own affair; dealing is the mix's.
        stop: When an epoch ends. ``"first_exhausted"``: when the next sample would be one of a dataset that has none
            left. ``"all_exhausted"``: when the last dataset has given all its samples; the others begin again
            meanwhile, in another order if they are shuffled. ``"all_exhausted_without_replacement"``: every sample
            once; those datasets that are left keep their proportions.
        batch_size: As in `AISBaseIterDataset`, and so are ``even`` and ``world``; they count for all datasets.

    Yields: what the datasets yield. A sample that its dataset leaves out has its place in the order all the same.
    Order: the same for any number of workers if ``batch_size`` is that of the loader. Epoch ``e`` takes the datasets
        as in their epoch ``e``; one that is gone through ``k`` times in it, as in the epochs ``ke`` to ``ke + k - 1``.
    Memory: ``fetch.window_bytes`` for all datasets together.
    Raises: ``ConfigError`` at construction for what cannot be mixed; when it is known, for a dataset without samples,
        or for shards without an index.
    """

    def __init__(
        self,
        datasets: Mapping[D, float],
        *,
        stop: Stop = "first_exhausted",
        batch_size: int = 1,
        even: Even | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(datasets, Mapping) or not datasets:
            raise ConfigError(f"AISMix takes {{dataset: weight}} with one dataset or more, not {datasets!r:.80}")
        if stop not in get_args(Stop):
            raise ConfigError(f"AISMix: stop must be one of {get_args(Stop)}, not {stop!r}")
        self._order = Order(batch_size=batch_size, even=even, world=world)
        self._stop: Stop = stop
        self._resume = Resume()
        self._names = [_name(number, dataset) for number, dataset in enumerate(datasets)]
        weights = [_checked_weight(*one) for one in zip(self._names, datasets.values(), strict=True)]
        self._parts = parts_of(weights)
        self._sources = [self._part(*one) for one in zip(datasets, self._names, self._parts, strict=True)]
        self._mixture: Mixture | None = None
        self._open: weakref.WeakSet[Pass] = weakref.WeakSet()

    def _part(self, dataset: AISBaseIterDataset, name: str, part: int) -> AISBaseIterDataset:
        """The dataset as a part of this mix."""
        own, order = dataset._order, self._order
        for option, default in (("batch_size", 1), ("even", None), ("world", None)):
            if getattr(own, option) not in (default, getattr(order, option)):
                raise ConfigError(f"AISMix: {name} has its own {option}; give it to AISMix, which deals")
        source = dataset._drawn_from(None, SourceResume(self._resume.shared))
        placed = {"batch_size": order.batch_size, "even": order.even, "world": order.world}
        source._order = dataclasses.replace(own, **placed)  # type: ignore[arg-type]
        # Together they have as many requests in flight as one of them alone would have.
        width = math.ceil(source._fetch.width * part / sum(self._parts))
        source._fetch = dataclasses.replace(source._fetch, width=width)
        return source

    def __iter__(self) -> Iterator[Any]:
        cursor = Cursor(Meter(), Reached())
        current = Pass(self, self._mixed(cursor), cursor)
        self._open.add(current)
        return current

    def __len__(self) -> int:
        """Samples of this rank in an epoch; lists once, if nothing has been listed yet."""
        return self._order.samples(self._known().number, current_world(self._order.world))

    def set_epoch(self, epoch: int) -> None:
        """As `AISBaseIterDataset.set_epoch`; the datasets follow."""
        self._resume.set_epoch(epoch)

    def state_dict(self, batches: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """As `AISBaseIterDataset.state_dict`."""
        if batches:
            checked_batches(batches)
        return self._resume.state_dict(self._order, self._identity, batches, epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `AISBaseIterDataset.load_state_dict`; it must be the state of the same mix, seeds and all."""
        self._resume.load_state_dict(state, self._order, self._known_identity())

    def plan(self, epoch: int | None = None, world_size: int | None = None, num_workers: int = 1) -> Plan:
        """As `AISBaseIterDataset.plan`: who reads what at which step."""
        begins = self._resume.begins(self._order, self._identity, epoch)
        ranks = current_world(self._order.world).world_size if world_size is None else world_size
        names = functools.partial(self._names_at, epoch=begins.epoch)
        arranged = f"mixed {' : '.join(map(str, self._parts))}"
        return Plan(self._order, begins, self._known().number, ranks, num_workers, "samples", names, arranged)

    def stats(self) -> dict[str, Any]:
        """As `AISBaseIterDataset.stats`, of all datasets together as far as this mix has read them."""
        return self._resume.shared.stats()

    def close(self) -> None:
        """End every iteration that is still open in this process."""
        for one in list(self._open):
            one.close()

    # ---- one iteration

    def _mixed(self, cursor: Cursor) -> Generator[Any, None, None]:
        mixture, shared, meter = self._known(), self._resume.shared, cursor.meter
        start, world = self._resume.begin(cursor, self._order, self._identity)
        drawings: list[Drawing] = []
        try:
            for number, (source, name) in enumerate(zip(self._sources, self._names, strict=True)):
                items = functools.partial(self._drawn, number, start, world)
                drawings.append(Drawing(source, items, shared, name))
            for share in self._shares(start, world):
                for number in mixture.draws(share)[0].tolist():
                    sample = drawings[number].next()
                    cursor.hand_out()
                    if sample is not LEFT_OUT:
                        given = time.perf_counter()
                        yield sample
                        meter.consumer_s += time.perf_counter() - given
            for drawing in drawings:
                drawing.finish()
            cursor.ended = True
        finally:
            for drawing in drawings:
                drawing.close()
            if cursor.is_own:
                shared.add(meter, Meter())
                shared.end_pass()

    def _shares(self, start: Start, world: World) -> Iterator[Positions]:
        """The positions of this rank and worker, some at a time."""
        shares = self._order.positions(self._known().number, start.epoch, world, start.position)
        return without_first(shares, start.taken)

    def _drawn(self, number: int, start: Start, world: World) -> Iterator[Positions]:
        """The items of one dataset that are drawn there, some at a time."""
        first = start.epoch * self._known().passes()[number]
        passes = itertools.groupby(self._positions(number, start, world), key=operator.itemgetter(0))
        for one, group in passes:
            yield from self._sources[number]._ordered((positions for _, positions in group), first + one)

    def _positions(self, number: int, start: Start, world: World) -> Iterator[tuple[int, Positions]]:
        """(which time the dataset is gone through in the epoch, positions of that order that are drawn)."""
        # Each dataset goes through the mix by itself: how far it reads ahead of the others is its own affair.
        mixture = self._known()
        for share in self._shares(start, world):
            sources, draws = mixture.draws(share)
            passes, positions = np.divmod(draws[sources == number], mixture.lengths[number])
            # Mostly one run; with even="repeat" the first pass may come after the last one.
            begins = [0, *(np.flatnonzero(np.diff(passes)) + 1).tolist()]
            for begin, end in zip(begins, [*begins[1:], len(passes)], strict=True):
                if end > begin:
                    yield int(passes[begin]), positions[begin:end]

    def _names_at(self, positions: Positions, epoch: int) -> list[str]:
        """The names of the samples at some positions."""
        mixture = self._known()
        names = []
        for number, draw in zip(*(each.tolist() for each in mixture.draws(positions)), strict=True):
            one, position = divmod(draw, mixture.lengths[number])
            source, turn = self._sources[number], epoch * mixture.passes()[number] + one
            names += source._names(source._order_of_items.items_at(np.array([position]), source._number(), turn))
        return names

    # ---- what there is

    def _known(self) -> Mixture:
        """The arithmetic of the mix; lists once, if nothing has been listed yet."""
        if self._mixture is None:
            lengths = [_length(*one) for one in zip(self._sources, self._names, strict=True)]
            self._mixture = Mixture(lengths, self._parts, self._stop)
        return self._mixture

    def _identity(self, epoch: int) -> Items:
        """What a state must be of: datasets, weights, stop rule, and the order of each dataset."""
        digest = xxhash.xxh64(f"{self._stop} {self._parts}".encode())
        for source in self._sources:
            own = (source._identity(epoch).fingerprint, source._order.state_seed, source._order.state_blocks)
            digest.update(f"\n{own}".encode())
        return Items(digest.hexdigest(), self._known().number)

    def _known_identity(self) -> Identity | None:
        known = all(source._known_identity() is not None for source in self._sources)
        return self._identity if known else None

    def _standing(self, cursor: Cursor | None) -> Standing:
        return self._resume.standing(cursor, self._order, self._identity)

    def _checked_standing(self, state: Any) -> Standing:
        return self._resume.checked_standing(state, self._order, self._known_identity())

    def __getstate__(self) -> dict[str, Any]:
        # What moves stays behind, and arithmetic is made again.
        return self.__dict__ | {"_open": None, "_mixture": None, "_order": with_rank(self._order)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = weakref.WeakSet()


def _name(number: int, dataset: Any) -> str:
    """How messages call a dataset of the mix; `ConfigError` for what cannot be one."""
    what = type(dataset).__name__
    if isinstance(dataset, AISMix):
        raise ConfigError("AISMix: a mix cannot be a part of another; give the datasets of both, with their weights")
    if not isinstance(dataset, AISBaseIterDataset):
        raise ConfigError(
            f"AISMix draws from iterable datasets of this package, AISIterDataset or AISShardReader, not from {what}"
        )
    sources = [f"{source.bucket}/{source.prefixes[0]}" for source in dataset._catalog.sources[:3]]
    name = f"dataset {number} ({what} of {', '.join(sources)})"
    try:
        dataset._check_mixable()
    except ConfigError as error:
        raise ConfigError(f"AISMix: {name} cannot be mixed: {error}") from None
    return name


def _checked_weight(name: str, weight: Any) -> Fraction:
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not 0 < float(weight) < math.inf:
        raise ConfigError(f"AISMix: the weight of {name} must be a number above 0, not {weight!r}; leave it out for 0")
    return Fraction(str(weight))  # as it is written: 0.1 is a tenth


def _length(source: AISBaseIterDataset, name: str) -> int:
    length = source._number()
    if not source._samples_are_items:
        raise ConfigError(
            f"AISMix: {name} has shards without an index, so nobody knows where its samples are; use "
            "AISShardReader(index='server') or index='client'"
        )
    if not length:
        raise ConfigError(f"AISMix: {name} has no samples; check its sources, or leave it out")
    return length
