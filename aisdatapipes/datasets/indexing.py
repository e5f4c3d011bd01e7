"""The indexes of a dataset's shards: which are taken, and what people are told of it."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, get_args

from tqdm import tqdm

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.resolve import IndexMode, Resolved, resolve
from aisdatapipes.model.config import cache_folder
from aisdatapipes.model.errors import ConfigError

log = logging.getLogger("aisdatapipes")

_LINE_EVERY = 10.0  # seconds between two lines in a log


def checked_index(index: Any) -> IndexMode:
    """``index`` if it is one of the four words."""
    if index not in get_args(IndexMode):
        raise ConfigError(f"index must be one of {get_args(IndexMode)}, not {index!r}")
    chosen: IndexMode = index
    return chosen


def resolved(
    listing: Listing,
    index: IndexMode,
    clusters: Clusters,
    meter: Meter,
    *,
    show_progress: bool,
    of_all_ranks: bool = False,
) -> Resolved:
    """The table of the samples of all shards, or none; raises as `resolve`.

    ``of_all_ranks`` where other ranks must come to the same result: what only this machine has does not count then.
    """
    shards = listing.urls(range(len(listing)))
    shown = _Shown() if show_progress else None
    cache = None if of_all_ranks and index == "auto" else IndexCache(cache_folder() / "indexes")
    try:
        found = resolve(shards, index, clusters, meter, cache, shown)
    finally:
        if shown is not None:
            shown.close()
    log.info("index of %d shards: %s", len(shards), found.how)
    return found


class _Shown:
    """Progress, for people: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._last_line = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show where things stand."""
        if sys.stderr.isatty():
            if self._bar is None or self._bar.desc != what:
                self.close()
                self._bar = tqdm(desc=what, total=total or None, dynamic_ncols=True, leave=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._last_line >= _LINE_EVERY:
            self._last_line = time.monotonic()
            sys.stderr.write(f"{what}: {done}{f'/{total}' if total else ''}\n")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
