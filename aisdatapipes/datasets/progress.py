"""Progress, for people: a bar on a terminal, a plain line now and then elsewhere, nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

_LINE_EVERY = 10.0  # seconds between two lines in a log
_LOOK_EVERY = 0.2  # seconds between two looks at the counters


class Progress:
    """How far the job is: of all its workers together, shown by one of them.

    Args:
        title: What is read.
        unit: What is counted, such as ``"objects"``.
        total: How many there are.
        counts: (items, bytes) of this pass so far, over all workers of this rank.
        shown: Whether this worker shows what moves; any worker can write the closing line.
    """

    def __init__(
        self, title: str, unit: str, total: int | None, counts: Callable[[], tuple[int, int]], *, shown: bool
    ) -> None:
        self._title, self._unit, self._total, self._counts = title, unit, total, counts
        self._shown = shown
        self._began = self._last_line = self._last_look = time.monotonic()
        self._bar = (
            tqdm(desc=title, total=total, unit=f" {unit}", dynamic_ncols=True, leave=False)
            if shown and sys.stderr.isatty()
            else None
        )

    def look(self) -> None:
        """Show where things stand, if it is time to."""
        now = time.monotonic()
        if now - self._last_look < _LOOK_EVERY:
            return
        self._last_look = now
        if not self._shown:
            return
        if self._bar is not None:
            items, _, rate = self._state()
            self._bar.set_postfix_str(f"{rate:.1f} MB/s", refresh=False)
            self._bar.update(items - self._bar.n)
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self._line()

    def close(self, *, complete: bool) -> None:
        """Take the bar away; the closing line, where this is the end of the whole job, stays."""
        if self._bar is not None:
            self._bar.close()
        if complete:
            self._line()

    def _state(self) -> tuple[int, float, float]:
        """(items, megabytes, megabytes a second) of this pass."""
        items, size = self._counts()
        megabytes = size / 1e6
        return items, megabytes, megabytes / max(1e-9, time.monotonic() - self._began)

    def _line(self) -> None:
        items, megabytes, rate = self._state()
        of = f"/{self._total}" if self._total is not None else ""
        sys.stderr.write(f"{self._title}: {items}{of} {self._unit}, {megabytes:.1f} MB, {rate:.1f} MB/s\n")
