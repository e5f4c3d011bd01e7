"""States of the iterations over one dataset or plan: where they begin, how far they are, and how they go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.model.errors import ConfigError, NotResumable
from aisdatapipes.model.world import World
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Standing, Start, job_state, place_of_worker
from aisdatapipes.order.state import OrderState
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.shared import Shared
from aisdatapipes.store.forks import Home

log = logging.getLogger("aisdatapipes")


class Items(NamedTuple):
    """What an order is about.

    Attributes:
        fingerprint: 16 hex digits.
        number: How many there are; None where nobody knows.
    """

    fingerprint: str
    number: int | None


# The items of an epoch, by its number: the same in every epoch, but for batches that are made anew.
Identity = Callable[[int], Items]


class Cursor:
    """Where one iteration stands: the iteration writes it, whoever asks for the state reads it.

    Args:
        meter: Counts what the iteration handed out and left out: its items, where nothing else is said.
        reached: Counts them where the items are not what is metered.
        divisible: An item has several samples, so that an iteration can stand, and begin, inside one.
    """

    def __init__(self, meter: Meter, reached: Reached | None = None, *, divisible: bool = False) -> None:
        self.meter, self.reached, self.divisible = meter, reached, divisible
        self.loaded: Start | None = None  # where to begin, if it was told
        self.has_begun = False
        self.begun, self.place = Start(), World()  # where it began, and as which part of the job
        self.ended = False
        self._home = Home()

    def begin(self, start: Start, world: World) -> None:
        """The iteration begins; `NotResumable` if it cannot begin there."""
        if (start.within or start.passed) and not self.divisible:
            raise NotResumable("the state stands inside a shard, but here shards are not read sample by sample")
        self.has_begun, self.begun, self.place = True, start, world
        if self.reached is not None:
            self.reached.passed, self.reached.offset = start.inside(world)
            self.reached.drawn = start.drawn

    def hand_out(self, items: int = 1) -> None:
        """So many items are handed out, or left out."""
        if self.reached is not None:
            self.reached.items += items

    @property
    def taken(self) -> int:
        """Items of the worker's share that were handed out, or left out before one that was."""
        # The meter counts at no cost what is wanted here: an iterator that has handed out an item stands behind it.
        own = self.meter.objects + self.meter.skipped if self.reached is None else self.reached.items
        return own + self.begun.taken

    @property
    def passed(self) -> int:
        """Samples of the item after these that were handed out or left out."""
        return self.reached.passed if self.reached is not None else 0

    @property
    def offset(self) -> int:
        """The byte of that item behind these samples; 0 where only its beginning will do."""
        return self.reached.offset if self.reached is not None else 0

    @property
    def drawn(self) -> int:
        """Samples behind all these that were handed out, out of the shuffle buffer."""
        return self.reached.drawn if self.reached is not None else 0

    @property
    def is_own(self) -> bool:
        """False for what a forked process inherited: it lets go of it, and its parent goes on and counts."""
        return self._home.is_here


class Resume:
    """The states of one dataset or plan.

    Attributes:
        shared: Where the iterations of all its processes begin.
    """

    def __init__(self) -> None:
        self.shared = Shared()
        self._cursor: Cursor | None = None  # of the iteration that this process began last

    @property
    def cursor(self) -> Cursor | None:
        """That of the iteration which this process began last, since an epoch was set or a state loaded."""
        return self._cursor if self._cursor is not None and self._cursor.is_own else None

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch ``epoch``, at the position that was loaded if it is the loaded one."""
        self._cursor = None
        self.shared.set_epoch(epoch)

    def begin(self, cursor: Cursor, order: Order, identity: Identity) -> tuple[Start, World]:
        """An iteration begins: where, and in which place. Raises `NotResumable` if the items are not the saved ones."""
        world = current_world(order.world)
        start = cursor.loaded or self.shared.next_start()
        if start.fingerprint is not None:
            OrderState(start.fingerprint, None, start.epoch, start.position).check_items(*identity(start.epoch))
        cursor.begin(start, world)
        self.shared.begin(start)
        self._cursor = cursor
        if log.isEnabledFor(logging.INFO):  # else nobody asks for the fingerprint
            _tell(start, world, identity(start.epoch))
        return start, world

    def standing(self, cursor: Cursor | None, order: Order, identity: Identity) -> Standing:
        """Where an iteration of this process stands; without one, where the next one begins."""
        if cursor is not None and cursor.has_begun:
            start, world, ended = cursor.begun, cursor.place, cursor.ended
            taken, passed, offset, drawn = cursor.taken, cursor.passed, cursor.offset, cursor.drawn
        else:
            start = (cursor and cursor.loaded) or self.shared.next_start()
            world, ended = current_world(order.world), False
            taken, (passed, offset), drawn = start.taken, start.inside(world), start.drawn
        begun, place = _state(identity(start.epoch), order, start), place_of_worker(world, order.batch_size)
        return Standing(begun, place, taken, passed, ended, offset, drawn, order.buffer)

    def state_dict(
        self, order: Order, identity: Identity, batches: int | None, epoch: int | None, *, own: bool = False
    ) -> dict[str, Any]:
        """The state after ``batches``, or of this process's own iteration; a worker's `Standing` inside a worker.

        ``own`` where ranks do not stand at the same step: then one of several has a `Standing` too, and so has one
        that stands inside a shuffle buffer.
        """
        if batches is not None or epoch is not None:
            return self._after(order, identity, checked_batches(batches or 0), epoch).to_dict()
        standing = self.standing(self.cursor, order, identity)
        _, ranks, _, workers, _ = standing.place
        if get_worker_info() is not None or workers > 1 or (own and (ranks > 1 or standing.drawn)):
            return standing.to_dict()
        return job_state(standing, order, identity(standing.begun.epoch).number).to_dict()

    def begins(self, order: Order, identity: Identity, epoch: int | None) -> OrderState:
        """Where the job's iteration under way began, else where the next one begins; or where ``epoch`` does."""
        return self._after(order, identity, 0, epoch)

    def _after(self, order: Order, identity: Identity, batches: int, epoch: int | None) -> OrderState:
        start = self.shared.current_start(under_way=not batches)
        if epoch is not None and epoch != start.epoch:
            start = Start(epoch)
        world, items = current_world(order.world), identity(start.epoch)
        if start.fingerprint is not None:
            OrderState(start.fingerprint, None, start.epoch, start.position).check_items(*items)
        begun = _state(items, order, start)
        place = place_of_worker(World(world.rank, world.world_size), order.batch_size)
        begun = job_state(Standing(begun, place, start.taken), order, items.number)
        even = order.even_for(world.world_size)
        return begun.after(batches, items.number, world.world_size, order.batch_size, even)

    def load_state_dict(self, state: Any, order: Order, identity: Identity | None) -> None:
        """The next iteration goes on from ``state``; what cannot go on is `NotResumable`.

        Without ``identity`` the items are compared when the next iteration begins.
        """
        in_worker = get_worker_info() is not None
        if isinstance(state, Mapping) and "begun" in state:
            standing = self.checked_standing(state, order, identity)
            start, everywhere = standing.start, False
        else:
            saved = OrderState.from_dict(state)
            self._check(saved, order, identity)
            start = Start(
                saved.epoch, saved.position, saved.within, fingerprint=saved.fingerprint, within_offset=saved.offset
            )
            everywhere = not in_worker
        self._cursor = None
        self.shared.load(start, everywhere=everywhere)

    def checked_standing(self, state: Any, order: Order, identity: Identity | None) -> Standing:
        """The worker's state that was saved, if it can go on here."""
        if not isinstance(state, Mapping) or "begun" not in state:
            raise NotResumable("an iterator goes on from what an iterator's state_dict() returned, unchanged")
        standing = Standing.from_dict(state)
        self._check(standing.begun, order, identity)
        standing.check_place(current_world(order.world), order.batch_size)
        standing.check_buffer(order.buffer)
        return standing

    def _check(self, saved: OrderState, order: Order, identity: Identity | None) -> None:
        saved.check_order(order.state_seed, order.state_blocks)
        if identity is not None:
            saved.check_items(*identity(saved.epoch))

    def __getstate__(self) -> dict[str, Any]:
        return {"shared": self.shared}  # what moves stays behind

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shared, self._cursor = state["shared"], None


def _state(items: Items, order: Order, start: Start) -> OrderState:
    """The state at ``start``."""
    return OrderState(
        items.fingerprint,
        order.state_seed,
        start.epoch,
        start.position,
        start.within,
        blocks=order.state_blocks,
        offset=start.within_offset,
    )


def checked_batches(batches: Any) -> int:
    """``batches`` if it can be a number of batches."""
    if type(batches) is not int or batches < 0:
        raise ConfigError(f"batches must be a number, 0 or more: those that each rank took; not {batches!r}")
    return batches


def _tell(start: Start, world: World, items: Items) -> None:
    """One line for each iteration of each worker: ranks whose fingerprints differ do not read the same items."""
    number = "an unknown number of" if items.number is None else items.number
    log.info(
        "rank %d of %d, worker %d of %d: epoch %d begins at position %d of %s items, fingerprint %s",
        world.rank, world.world_size, world.worker, world.num_workers, start.epoch, start.position, number,
        items.fingerprint,
    )  # fmt: skip
