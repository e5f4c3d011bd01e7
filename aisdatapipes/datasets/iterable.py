"""What all iterable datasets share: iterations that own all that moves, and one listing for the job.

A dataset is a description: it holds values, and pickles whatever was done with it before. Everything that moves
belongs to an iteration, so two loops over one dataset, or ``len()`` inside a loop, do not see each other.
"""

from __future__ import annotations

import copy
import functools
import itertools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from aistore.sdk.obj.object import Object
from torch.utils.data import IterableDataset, get_worker_info

from aisdatapipes.datasets.objects import ObjectList
from aisdatapipes.datasets.passes import Begin, Pass, UserPass, passed
from aisdatapipes.datasets.plan import Plan
from aisdatapipes.datasets.sources import Prefixes, as_list, checked_parts, per_source, without_manifests
from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.flow.tolerance import OnError, Tolerance
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import ConfigError, NotResumable
from aisdatapipes.model.url import AISURL
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Standing, Start, without_first
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.pipes.place import current_world, with_rank
from aisdatapipes.pipes.resume import Cursor, Identity, Items, Resume, checked_batches
from aisdatapipes.pipes.shared import Shared
from aisdatapipes.store.source import Where

_URLS_AT_ONCE = 64


class AISBaseIterDataset(ABC, IterableDataset[Any]):
    """Base of the iterable datasets; a subclass says in ``__iter__`` what becomes of the objects.

    Args:
        ais_source_list: One or several of ``Bucket``, ``ObjectGroup``, ``Object`` (of the AIStore SDK), URLs,
            or a `Manifest`, which is not listed again.
        prefix_map: For a bucket the prefix, or prefixes, of the names to be used; a bucket that is not in it is used
            whole, and ``[]`` is nothing of it. Any object of the SDK that means the bucket will do as a key.
        partition_sources_by_worker: Worker ``w`` of ``n`` takes the sources ``w``, ``w + n`` and so on; else the
            objects of all sources are dealt.
        shuffle: Another order in every epoch, the same on all ranks.
        seed: Of the shuffle.
        batch_size: That of the DataLoader: whole batches are dealt to workers, so that they come out the same for
            any number of workers.
        even: What ranks do about a remainder: ``"none"`` every item once, ``"repeat"`` or ``"drop"`` equally many
            each. Default ``"none"`` for one rank, ``"repeat"`` for more.
        world: Rank and world size; None for those of ``torch.distributed`` or torchrun when iteration starts.
        name_filter: Keep objects whose name matches a regular expression (``re.search``), or satisfies a callable.
        config: How to reach the cluster: an endpoint such as ``http://localhost:8080``, a `ClientConfig` or a
            ``Client`` of the SDK; None for what the clients of the sources say.
        fetch: How objects are fetched.
        on_error: ``"raise"``, ``"skip"`` (counted, warned of once), or a callable on the error that answers one.
        max_errors: Items that may be skipped: a number, or a share (below 1); None for any number.
        etl_name: ETL on the cluster that is applied to each object.

    Raises: ``ConfigError`` at construction for arguments that cannot work. Nothing is asked of the cluster before
        the listing is needed; then ``BucketNotFound`` and the like.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: Mapping[Any, Prefixes] | None = None,
        partition_sources_by_worker: bool = False,
        *,
        shuffle: bool = False,
        seed: int = 0,
        batch_size: int = 1,
        even: Even | None = None,
        world: World | None = None,
        name_filter: Any = None,
        config: Where | None = None,
        fetch: FetchPlan | None = None,
        on_error: OnError = "raise",
        max_errors: float | None = None,
        etl_name: str | None = None,
    ) -> None:
        super().__init__()
        things = as_list(ais_source_list, type(self).__name__)
        self._ais_source_list = per_source(things)
        self._prefix_map = without_manifests(prefix_map)
        self._partition_sources_by_worker = partition_sources_by_worker
        chosen = checked_name_filter(name_filter)
        self._catalog = Catalog(checked_parts(things, prefix_map, config, etl_name, chosen), chosen)
        self._order = Order(shuffle, seed, batch_size, even, world)
        self._fetch = FetchPlan.of(fetch)
        self._tolerance = Tolerance(on_error, max_errors)
        self._resume = Resume()
        self._open: weakref.WeakSet[Pass] = weakref.WeakSet()
        self._obj_iterator: Iterator[Object] | None = None
        self._drawn: Callable[[], Iterator[Positions]] | None = None  # what a mix draws, instead of this worker's share

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Whatever a subclass's ``__iter__`` returns gets a state, for loaders that save one for each worker."""
        super().__init_subclass__(**kwargs)
        if "__iter__" in cls.__dict__:
            cls.__iter__ = _with_state(cls.__iter__)  # type: ignore[method-assign]

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """The samples of this rank and worker, in this epoch's order."""

    def __len__(self) -> int:
        """Samples of this rank in an epoch; lists once, if nothing has been listed yet."""
        return self._items()

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``, in all workers, persistent ones too; without it they count up.

        After `load_state_dict` the loaded epoch keeps its position; any other epoch begins at its first item.
        """
        self._resume.set_epoch(epoch)

    def state_dict(self, batches: int | None = None, *, epoch: int | None = None) -> dict[str, Any]:
        """What was consumed, as a few JSON values, for `load_state_dict` on any world.

        Args:
            batches: The state after each rank took so many batches since this iteration began (at the epoch's start,
                or at the loaded state), whatever loader carried them: the number of steps that the training made. It
                is arithmetic, so it can be asked for in the main process while workers read, and it is the same on
                every rank. ``batch_size`` must be that of the loader. None for this process's own iteration, by what
                the loop *got*: exact at every sample with one rank; with more, after the last whole batch; one of
                several ranks that stream shards has a state of its own. That serves plain loops and loaders without
                workers.
            epoch: Of the iteration; None for the one that was set, loaded or begun last. Alone, it is the state at
                that epoch's start.

        Inside a loader's worker it is the worker's own state, which only the same worker of as many can go on from.
        Raises: ``ConfigError`` for more batches than there are; ``NotResumable`` where batches cannot be counted.
        """
        if batches:
            self._check_countable(checked_batches(batches))
        own = batches is None and epoch is None and not self._samples_are_items
        return self._resume.state_dict(self._order, self._identity, batches, epoch, own=own)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the next sample, with any world size, batch size and number of workers.

        The first iteration goes on in the loaded epoch, the ones after it begin the following epochs.

        Raises: ``NotResumable`` that says what differs; for the items when iteration begins, if nothing has been
            listed yet.
        """
        self._resume.load_state_dict(state, self._order, self._known_identity())
        self._reset_iterator()

    def plan(self, epoch: int | None = None, world_size: int | None = None, num_workers: int = 1) -> Plan:
        """Who reads what at which step: printed it is a table, `Plan.plot` draws it; lists once if need be.

        Args:
            epoch: Of the iteration; None for the one under way, else the next one. A loaded epoch begins at its
                position.
            world_size: Ranks; None for those of this job.
            num_workers: Workers of each rank's loader.

        Raises: ``ConfigError`` where there is no such plan; ``NotResumable`` for a state of other items.
        """
        if self._partition_sources_by_worker and num_workers > 1:
            raise ConfigError(
                "plan: with partition_sources_by_worker each worker goes through sources of its own, at its own pace: "
                "there are no steps of the job; deal objects (partition_sources_by_worker=False) to have some"
            )
        begins = self._resume.begins(self._order, self._identity, epoch)
        ranks = current_world(self._order.world).world_size if world_size is None else world_size
        return Plan(self._order_of_items, begins, self._number(), ranks, num_workers, self._unit(), self._names)

    def stats(self) -> dict[str, Any]:
        """What was done so far, workers included, by counter.

        ``objects, bytes, requests, retries, skipped, lists``; ``fallbacks``: objects read by GET because the cluster
        has no get-batch; ``list_s, wait_s, consumer_s``: seconds spent waiting for listings, waiting
        for data, and by the consumer over the data; ``verdict``: who kept whom waiting, in words.
        """
        return self._shared.stats()

    def close(self) -> None:
        """End every iteration that is still open in this process."""
        for one in list(self._open):
            one.close()

    # ---- what subclasses of the reference's classes build on

    def _reset_iterator(self) -> None:
        """Begin anew: `_get_worker_iter_info` starts with the first object again."""
        self._obj_iterator = None

    def _get_worker_iter_info(self) -> tuple[Iterator[Object], str]:
        """(the SDK objects of this rank and worker, in this epoch's order; name of the worker for display)."""
        meter = Meter()
        objects = ObjectList(self._listing(meter), self._ais_source_list)
        self._shared.add(meter, Meter())
        if self._obj_iterator is None:
            self._obj_iterator = (objects[position] for position in self._positions(objects.listing))
        return self._obj_iterator, worker_name()

    # ---- what the datasets of this package build on

    @property
    def _shared(self) -> Shared:
        """What the processes of the job know together."""
        return self._resume.shared

    def _clusters(self) -> Clusters:
        """The clusters of the sources, for one iteration."""
        return Clusters(None, {source.config.endpoint: source.config for source in self._catalog.sources})

    def _iterate(self, begin: Begin, unit: str | None = None, cursor: Cursor | None = None) -> Pass:
        """An iteration: ``begin(items, meter)`` makes an iterator of samples out of those of this worker (`_dealt`).

        With a ``unit``, progress is shown, counted in it. A ``cursor`` of its own has a dataset whose items are not
        what the meter counts.
        """
        own = cursor or Cursor(Meter())
        current = Pass(self, passed(self, begin, unit if self._drawn is None else None, own), own)
        self._open.add(current)
        return current

    def _items(self) -> int:
        """What this rank reads in an epoch: objects, or shards."""
        return self._order.samples(self._number(), current_world(self._order.world))

    def _number(self) -> int:
        """What there is to be dealt, for all ranks together."""
        return len(self._listing())

    def _names(self, positions: Positions) -> list[str]:
        """The names of some of them."""
        listing = self._listing()
        return [listing.name(position) for position in positions.tolist()]

    def _unit(self) -> str:
        """What they are, in the plural."""
        return "objects" if self._samples_are_items else "shards"

    @property
    def _samples_are_items(self) -> bool:
        """Whether batches can be counted in items."""
        return True

    def _listing(self, meter: Meter | None = None) -> Listing:
        own = meter or Meter()
        listing = self._catalog.listing(own)
        if meter is None and own != Meter():
            self._shared.add(own, Meter())
        return listing

    def _dealt(self, meter: Meter, cursor: Cursor) -> Iterator[Any]:
        """The items of this rank and worker, in this epoch's order: what `Begin` takes."""
        return self._urls(meter, cursor)

    def _urls(self, meter: Meter, cursor: Cursor) -> Iterator[AISURL]:
        listing = self._listing(meter)
        some = (share[at : at + _URLS_AT_ONCE] for share in self._shares(listing, cursor) for at in _starts(share))
        return itertools.chain.from_iterable(map(listing.urls, some))

    def _positions(self, listing: Listing) -> Iterator[int]:
        """Where the items of this rank and worker stand in the listing, in this epoch's order."""
        cursor = Cursor(Meter(), Reached())
        for share in self._shares(listing, cursor):
            for position in share.tolist():
                cursor.hand_out()
                yield position
        cursor.ended = True
        self._shared.end_pass()

    def _shares(self, listing: Listing, cursor: Cursor) -> Iterator[Positions]:
        """The same, some at a time; the iteration of ``cursor`` begins."""
        start, world = self._begin(cursor)
        if self._drawn is not None:
            return self._drawn()
        if self._partition_sources_by_worker and world.num_workers > 1:
            if start.position:
                text = "does not go by position alone: with it only the start of an epoch can be loaded into workers"
                raise NotResumable(f"partition_sources_by_worker {text}; use num_workers=0, or a StatefulDataLoader")
            mine = self._of_sources(listing, slice(world.worker, None, world.num_workers))
            alone = World(world.rank, world.world_size)
            shares = self._order_of_items.positions(len(mine), start.epoch, alone)
            return without_first((mine[share] for share in shares), start.taken)
        shares = self._order_of_items.positions(self._number(), start.epoch, world, start.position)
        return without_first(shares, start.taken)

    @property
    def _order_of_items(self) -> Order:
        """The order with all of it that depends on what the items are."""
        return self._order

    def _of_sources(self, listing: Listing, keep: slice) -> Positions:
        """Positions of what comes from some sources."""
        return listing.of_sources(keep)

    # ---- what a mix builds on

    def _check_mixable(self) -> None:
        """Raise `ConfigError` for a dataset whose samples cannot be drawn one by one, as far as that can be known."""
        if self._partition_sources_by_worker:
            raise ConfigError("partition_sources_by_worker deals sources; a mix deals samples")

    def _drawn_from(self, items: Callable[[], Iterator[Positions]] | None, resume: Resume) -> AISBaseIterDataset:
        """A copy whose iteration reads these items, whichever rank and worker this is, and counts for ``resume``."""
        part = copy.copy(self)
        part.__dict__.update(_drawn=items, _resume=resume)
        return part

    def _ordered(self, shares: Iterable[Positions], epoch: int) -> Iterator[Positions]:
        """The items at some positions of the order of an epoch, some at a time."""
        return self._order_of_items.ordered(shares, self._number(), epoch)

    # ---- state

    def _begin(self, cursor: Cursor) -> tuple[Start, World]:
        return self._resume.begin(cursor, self._order, self._identity)

    def _identity(self, _epoch: int) -> Items:
        """What a state must be of."""
        listing = self._listing()
        return Items(listing.fingerprint, len(listing))

    def _standing(self, cursor: Cursor | None) -> Standing:
        return self._resume.standing(cursor, self._order, self._identity)

    def _checked_standing(self, state: Any) -> Standing:
        return self._resume.checked_standing(state, self._order, self._known_identity())

    def _known_identity(self) -> Identity | None:
        """The same where it costs nothing; else a state is compared when iteration begins."""
        return self._identity if self._catalog.known else None

    def _check_countable(self, batches: int) -> None:
        """Raise `NotResumable` where a number of batches does not say what was consumed."""
        if not self._samples_are_items:
            raise NotResumable(
                f"state_dict(batches={batches}): {type(self).__name__} deals shards, which have different numbers of "
                "samples; use state_dict() of a loop without workers, or a StatefulDataLoader"
            )
        if self._partition_sources_by_worker:
            raise NotResumable(
                f"state_dict(batches={batches}): with partition_sources_by_worker the order depends on the number of "
                "workers; deal objects (partition_sources_by_worker=False), or use a StatefulDataLoader"
            )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_open"], state["_obj_iterator"]  # what moves stays behind
        state["_order"] = with_rank(self._order)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = weakref.WeakSet()
        self._obj_iterator = None


def _with_state(
    iterate: Callable[[AISBaseIterDataset], Iterator[Any]],
) -> Callable[[AISBaseIterDataset], Iterator[Any]]:
    @functools.wraps(iterate)
    def iterated(self: AISBaseIterDataset) -> Iterator[Any]:
        found = iterate(self)
        return found if isinstance(found, (Pass, UserPass)) else UserPass(self, found)

    return iterated


def _starts(share: Positions) -> range:
    return range(0, len(share), _URLS_AT_ONCE)


def worker_name() -> str:
    """How this worker is called in titles: empty with none or one of them, as in the reference."""
    info = get_worker_info()
    return f" (Worker {info.id})" if info is not None and info.num_workers > 1 else ""
