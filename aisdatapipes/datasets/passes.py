"""One iteration over an iterable dataset: it alone has anything that moves, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from aisdatapipes.datasets.progress import Progress
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError, NotResumable
from aisdatapipes.order.standing import Standing
from aisdatapipes.pipes.closing import closed_at_exit, held_at_exit
from aisdatapipes.pipes.place import current_world
from aisdatapipes.pipes.resume import Cursor, Resume
from aisdatapipes.store.forks import Home

if TYPE_CHECKING:
    from aisdatapipes.datasets.iterable import AISBaseIterDataset

# Makes samples of the items of a worker: URLs, or arrays of positions.
Begin = Callable[[Iterator[Any], Meter], Iterator[Any]]

_RECORD_EVERY = 64  # samples between two visits to the shared counters


class Resumable(Protocol):
    """What knows where its iterations stand."""

    def _standing(self, cursor: Cursor | None) -> Standing: ...

    def _checked_standing(self, state: Any) -> Standing: ...


class Pass(Iterator[Any]):
    """One iteration over a dataset.

    Its state is what StatefulDataLoader saves for each of its workers; it goes on in the same place only.

    Args:
        dataset: Whose.
        samples: Begins ``cursor`` and ends it.
        cursor: Where it stands.
    """

    def __init__(self, dataset: Resumable, samples: Generator[Any, None, None], cursor: Cursor) -> None:
        self._dataset = dataset
        self._cursor = cursor
        # A generator that does not know this object: no cycle, so a loop that breaks off ends it at once.
        self._samples = closed_at_exit(samples)
        self._over: dict[str, Any] | None = None
        self._home = Home()
        self._closing = False  # by another thread than the one that waits for a sample

    def __iter__(self) -> Pass:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "an iteration is under way in one process only: copy the dataset, and begin an iteration of that"
        )

    def __next__(self) -> Any:
        self._home.check()
        held_at_exit()
        try:
            sample = next(self._samples)
        except StopIteration:
            raise
        except Exception as error:
            self._check_alone(error)
            held_at_exit()
            raise
        if self._closing:
            self._samples.close()
            raise StopIteration
        return sample

    def _check_alone(self, error: Exception) -> None:
        """Raise `ConfigError` where it was not the samples that failed, but another thread is waiting for one."""
        if isinstance(error, ValueError) and inspect.getgeneratorstate(self._samples) == inspect.GEN_RUNNING:
            text = "this iteration is under way in another thread: begin one in each thread, or take turns by a lock"
            raise ConfigError(text) from error

    def close(self) -> None:
        """Stop: nothing is under way any more. An iteration that another thread waits in ends with its next sample."""
        self._closing = True
        with contextlib.suppress(ValueError):  # another thread is in it
            self._samples.close()

    def state_dict(self) -> dict[str, Any]:
        """Where this iteration stands: behind the sample that it gave last."""
        return self._over or self._dataset._standing(self._cursor).to_dict()  # noqa: SLF001 - one concept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` says, instead of where this iteration would begin; before its first sample only."""
        if self._cursor.has_begun:
            raise NotResumable("this iteration has begun already: load the state before its first sample")
        standing = self._dataset._checked_standing(state)  # noqa: SLF001
        self._cursor.loaded = standing.start
        if standing.ended:
            self.close()  # nothing is left of it, and the epoch after it begins with the next iteration
            self._over = dict(state)


class Stateful(Protocol):
    """What has a state that belongs to the iteration which this process began last."""

    @property
    def _resume(self) -> Resume: ...

    def _standing(self, cursor: Cursor | None) -> Standing: ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on there."""


class UserPass(Iterator[Any]):
    """One iteration by a subclass's own ``__iter__``, with a state: that of the objects it has taken from below."""

    def __init__(self, dataset: Stateful, samples: Iterator[Any]) -> None:
        self._dataset, self._samples = dataset, samples
        self._before = dataset._resume.cursor  # noqa: SLF001 - one concept
        self._over: dict[str, Any] | None = None

    def __iter__(self) -> UserPass:
        return self

    def __next__(self) -> Any:
        if self._over is not None:
            raise StopIteration
        try:
            return next(self._samples)
        except StopIteration:
            if (cursor := self._own()) is not None:
                cursor.ended = True
            raise

    def _own(self) -> Cursor | None:
        cursor = self._dataset._resume.cursor  # noqa: SLF001
        return None if cursor is self._before else cursor

    def state_dict(self) -> dict[str, Any]:
        """As `Pass.state_dict`."""
        return self._over or self._dataset._standing(self._own()).to_dict()  # noqa: SLF001

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Pass.load_state_dict`."""
        if self._own() is not None:
            raise NotResumable("this iteration has begun already: load the state before its first sample")
        self._dataset.load_state_dict(state)
        self._before = None
        if state["ended"]:
            self._over = dict(state)


def passed(dataset: AISBaseIterDataset, begin: Begin, unit: str | None, cursor: Cursor) -> Generator[Any, None, None]:
    """The samples that ``begin`` makes; counted, and shown where ``unit`` says of what."""
    shared = dataset._shared  # noqa: SLF001 - one concept with the dataset
    meter, recorded = cursor.meter, Meter()
    mine = dataset._dealt(meter, cursor)  # noqa: SLF001
    progress = _progress(dataset, unit) if unit is not None else None
    try:
        samples = begin(mine, meter)
        for count in itertools.count(1):  # a loop over the samples would keep each until the next one is there
            try:
                sample = next(samples)
            except StopIteration:
                break
            yield sample
            del sample
            if not count % _RECORD_EVERY:
                recorded = shared.add(meter, recorded)
                if progress is not None:
                    progress.look()
        cursor.ended = True
    finally:
        if cursor.is_own:
            shared.add(meter, recorded)
            _end(dataset, cursor, progress)


def _end(dataset: AISBaseIterDataset, cursor: Cursor, progress: Progress | None) -> None:
    shared = dataset._shared  # noqa: SLF001
    last = False
    if progress is None or not cursor.ended:  # then nobody asks who was the last one, and no file is made for that
        shared.end_pass()
    else:
        with dataset._catalog.alone():  # noqa: SLF001 - else two workers that end together are both the last
            last = shared.end_pass()
    if progress is not None:
        progress.close(complete=last)


def _progress(dataset: AISBaseIterDataset, unit: str) -> Progress | None:
    """Progress of the first rank: its first worker shows the counters of all, its last one the closing line."""
    world = current_world(dataset._order.world)  # noqa: SLF001
    if world.rank:
        return None
    total = dataset._items() if dataset._catalog.known else None  # noqa: SLF001
    title = type(dataset).__name__
    pass_counts = dataset._shared.pass_counts  # noqa: SLF001
    return Progress(title, unit, total, pass_counts, shown=not world.worker)
