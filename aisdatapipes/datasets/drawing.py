"""One source of a mix: its samples, draw by draw, whatever reads them ahead and whatever it leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World
from aisdatapipes.order.permutation import Positions
from aisdatapipes.order.plan import Order
from aisdatapipes.order.standing import Start
from aisdatapipes.pipes.resume import Cursor, Identity, Resume
from aisdatapipes.pipes.shared import Shared

if TYPE_CHECKING:
    from aisdatapipes.datasets.iterable import AISBaseIterDataset

LEFT_OUT = object()  # what a draw gives whose item made no sample


class SourceResume(Resume):
    """In place of a source's own: its iterations begin when the mix says, and what they do is counted with the mix's.

    Args:
        shared: Of the mix.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = _Counted(shared)
        self._cursor = None

    def begin(self, cursor: Cursor, _order: Order, _identity: Identity) -> tuple[Start, World]:
        """Always at the first of the items that are drawn: the mix has dealt already, and knows where it stands."""
        start, world = Start(), World()
        cursor.begin(start, world)
        self._cursor = cursor
        return start, world


class _Counted(Shared):
    """The counters of a mix, as its sources see them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    # It has no memory of its own to begin anew.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def add(self, meter: Meter, before: Meter) -> Meter:
        """Count what was done; not the time until the source was asked again, in which others were waited for."""
        return self._shared.add(dataclasses.replace(meter, consumer_s=0.0), before)

    def end_pass(self) -> bool:
        """The end of a source is not that of the mix."""
        return False


class Drawing:
    """The samples of one source in one iteration of a mix.

    Args:
        source: Whose.
        items: The items that are drawn from it, in order; read ahead.
        shared: Counters of the mix.
        name: Of the source, for messages.
    """

    def __init__(
        self, source: AISBaseIterDataset, items: Callable[[], Iterator[Positions]], shared: Shared, name: str
    ) -> None:
        self._resume = SourceResume(shared)
        self._part = source._drawn_from(items, self._resume)
        self._samples: Iterator[Any] = iter(self._part)
        self._draws = 0  # so far
        self._held: tuple[int, Any] | None = None  # a sample, and the draw that it is for
        self._over = False
        self._name = name

    def next(self) -> Any:
        """The sample of the next draw; `LEFT_OUT` where its item made none (``on_error``, ``missing``, a subclass)."""
        draw, held = self._draws, self._held or self._read()
        self._draws += 1
        if held is None or held[0] > draw:
            self._held = held
            return LEFT_OUT
        self._held = None
        if held[0] < draw:
            raise self._too_many()
        return held[1]

    def finish(self) -> None:
        """After the last draw: there must not be more, and the source ends as it would by itself."""
        if self._held is not None or self._read() is not None:
            raise self._too_many()

    def close(self) -> None:
        """Stop what is under way."""
        self._part.close()

    def _read(self) -> tuple[int, Any] | None:
        if self._over:
            return None
        try:
            sample = next(self._samples)
        except StopIteration:
            self._over = True
            return None
        cursor = self._resume.cursor
        # What it has taken of the drawn items ends with the one that this is the sample of.
        return (cursor.taken if cursor is not None else 0) - 1, sample

    def _too_many(self) -> ConfigError:
        return ConfigError(
            f"AISMix: {self._name} gives samples that are not one for each of its items; its __iter__ may map what "
            "super().__iter__() gives, or leave some out, but not read ahead, repeat, or bring others"
        )
