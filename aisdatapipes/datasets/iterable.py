"""What all iterable datasets share: iterations that own all that moves, and one listing for the job.

A dataset is a description: it holds values, and pickles whatever was done with it before. Everything that moves
belongs to an iteration, so two loops over one dataset, or ``len()`` inside a loop, do not see each other.
"""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from aistore.sdk.obj.object import Object
from torch.utils.data import IterableDataset, get_worker_info

from aisdatapipes.datasets.objects import ObjectList
from aisdatapipes.datasets.progress import Progress
from aisdatapipes.datasets.sources import Prefixes, as_list, checked_parts, per_source, without_manifests
from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import OnError, Tolerance
from aisdatapipes.model.config import ClientConfig, FetchPlan
from aisdatapipes.model.url import AISURL
from aisdatapipes.model.world import World
from aisdatapipes.order.deal import Even
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.pipes.place import current_world, rank_and_size
from aisdatapipes.pipes.shared import Shared

Begin = Callable[[Iterator[AISURL], Meter], Iterator[Any]]

_URLS_AT_ONCE = 64
_RECORD_EVERY = 64  # samples between two visits to the shared counters


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
        config: How to reach the cluster; None for what the clients of the sources say.
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
        config: ClientConfig | None = None,
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
        self._fetch = fetch or FetchPlan()
        self._tolerance = Tolerance(on_error, max_errors)
        self._shared = Shared()
        self._open: weakref.WeakSet[Pass] = weakref.WeakSet()
        self._obj_iterator: Iterator[Object] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """The samples of this rank and worker, in this epoch's order."""

    def __len__(self) -> int:
        """Samples of this rank in an epoch; lists once, if nothing has been listed yet."""
        return self._items()

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``, in all workers, persistent ones too; without it they count up."""
        self._shared.set_epoch(epoch)

    def stats(self) -> dict[str, float]:
        """What was done so far, workers included, by counter.

        ``objects, bytes, requests, retries, skipped, lists, wait_s``, and ``fallbacks``: objects read by GET because
        the cluster has no get-batch.
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

    def _clusters(self) -> Clusters:
        """The clusters of the sources, for one iteration."""
        return Clusters(None, {source.config.endpoint: source.config for source in self._catalog.sources})

    def _iterate(self, begin: Begin, unit: str | None = None) -> Pass:
        """An iteration: ``begin(urls, meter)`` makes an iterator of samples out of the URLs of this worker.

        With a ``unit``, progress is shown, counted in it.
        """
        current = Pass(self, begin, unit)
        self._open.add(current)
        return current

    def _items(self) -> int:
        """What this rank reads in an epoch: objects, or shards."""
        return self._order.samples(len(self._listing()), current_world(self._order.world))

    def _listing(self, meter: Meter | None = None) -> Listing:
        own = meter or Meter()
        listing = self._catalog.listing(own)
        if meter is None:
            self._shared.add(own, Meter())
        return listing

    def _urls(self, meter: Meter) -> Iterator[AISURL]:
        listing = self._listing(meter)
        some = (share[at : at + _URLS_AT_ONCE] for share in self._shares(listing) for at in _starts(share))
        return itertools.chain.from_iterable(map(listing.urls, some))

    def _positions(self, listing: Listing) -> Iterator[int]:
        """Where the items of this rank and worker stand in the listing, in this epoch's order."""
        for share in self._shares(listing):
            yield from share.tolist()

    def _shares(self, listing: Listing) -> Iterator[Positions]:
        """The same, some at a time."""
        epoch, world = self._shared.begin_epoch(), current_world(self._order.world)
        if self._partition_sources_by_worker and world.num_workers > 1:
            mine = listing.of_sources(slice(world.worker, None, world.num_workers))
            alone = World(world.rank, world.world_size)
            return (mine[share] for share in self._order.positions(len(mine), epoch, alone))
        return self._order.positions(len(listing), epoch, world)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_open"], state["_obj_iterator"]  # what moves stays behind
        rank, size = rank_and_size()
        if self._order.world is None and size > 1:
            # A spawned worker has no torch.distributed: it is told its rank here. One rank alone is no knowledge:
            # the process that unpickles may be one of several.
            state["_order"] = dataclasses.replace(self._order, world=World(rank, size))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = weakref.WeakSet()
        self._obj_iterator = None


def _starts(share: Positions) -> range:
    return range(0, len(share), _URLS_AT_ONCE)


class Pass(Iterator[Any]):
    """One iteration over a dataset: it alone has anything that moves, and it leaves nothing behind."""

    def __init__(self, dataset: AISBaseIterDataset, begin: Begin, unit: str | None) -> None:
        # A generator that does not know this object: no cycle, so a loop that breaks off ends it at once.
        self._samples = _passed(dataset, begin, unit)
        _begun.add(self)

    def __iter__(self) -> Pass:
        return self

    def __next__(self) -> Any:
        return next(self._samples)

    def close(self) -> None:
        """Stop: nothing is under way any more."""
        self._samples.close()


# An iterator that a program forgets ends with the program, but not later: then torch is half gone, and would abort.
_begun: weakref.WeakSet[Pass] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for one in list(_begun):
        one.close()


def _passed(dataset: AISBaseIterDataset, begin: Begin, unit: str | None) -> Generator[Any, None, None]:
    """The samples that ``begin`` makes; counted, and shown where ``unit`` says of what."""
    shared = dataset._shared  # noqa: SLF001 - one concept with the dataset
    meter, recorded = Meter(), Meter()
    urls = dataset._urls(meter)  # noqa: SLF001
    progress = _progress(dataset, unit) if unit is not None else None
    whole = False
    try:
        for count, sample in enumerate(begin(urls, meter), 1):
            yield sample
            if not count % _RECORD_EVERY:
                recorded = shared.add(meter, recorded)
                if progress is not None:
                    progress.look()
        whole = True
    finally:
        shared.add(meter, recorded)
        if progress is None:
            shared.end_pass()
        else:
            with dataset._catalog.alone():  # noqa: SLF001 - else two workers that end together are both the last
                last = shared.end_pass()
            progress.close(complete=whole and last)


def _progress(dataset: AISBaseIterDataset, unit: str) -> Progress | None:
    """Progress of the first rank: its first worker shows the counters of all, its last one the closing line."""
    world = current_world(dataset._order.world)  # noqa: SLF001
    if world.rank:
        return None
    total = dataset._items() if dataset._catalog.known else None  # noqa: SLF001
    title = type(dataset).__name__
    return Progress(title, unit, total, dataset._shared.pass_counts, shown=not world.worker)  # noqa: SLF001


def worker_name() -> str:
    """How this worker is called in titles: empty with none or one of them, as in the reference."""
    info = get_worker_info()
    return f" (Worker {info.id})" if info is not None and info.num_workers > 1 else ""
