"""The indexes of a dataset's shards: which are taken, and what people are told of it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

from tqdm import tqdm

from aisdatapipes.datasets.sources import as_list, checked_parts
from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.join import joined_by_key
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.resolve import IndexMode, Resolved, resolve
from aisdatapipes.flow.savedtable import table_of
from aisdatapipes.flow.shardtable import ShardTable
from aisdatapipes.model.config import cache_folder
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.store.source import Where

log = logging.getLogger("aisdatapipes")

_LINE_EVERY = 10.0  # seconds between two lines in a log


def kept_tables(ais_source_list: Any, join: Any = None) -> tuple[ShardTable, ...]:
    """The tables of samples that manifests among some sources have, and among those that are joined to them."""
    lists = [ais_source_list, *(join if isinstance(join, (list, tuple)) else [join])]
    things = (thing for some in lists for thing in (some if isinstance(some, (list, tuple)) else [some]))
    tables = (getattr(thing, "table", None) for thing in things)
    return tuple(table for table in tables if isinstance(table, ShardTable))


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
    kept: Sequence[ShardTable] = (),
) -> Resolved:
    """The table of the samples of all shards, or none; raises as `resolve`.

    ``of_all_ranks`` where other ranks must come to the same result: what only this machine has does not count then.
    Tables that manifests ``kept`` are taken instead, without a request, if they have all the shards.
    """
    shards = listing.urls(range(len(listing)))
    if kept and index != "off" and not any(shard.etl_name for shard in shards):
        table = table_of(shards, kept)
        if table is not None:
            log.info("index of %d shards: that of the manifest", len(shards))
            return Resolved(table, "that of the manifest")
        log.info("index of %d shards: the manifest does not have all of them", len(shards))
    shown = _Shown() if show_progress else None
    cache = None if of_all_ranks and index == "auto" else IndexCache(cache_folder() / "indexes")
    try:
        found = resolve(shards, index, clusters, meter, cache, shown)
    finally:
        if shown is not None:
            shown.close()
    log.info("index of %d shards: %s", len(shards), found.how)
    return found


def joined_columns(join: Any, owner: str, config: Where | None = None, name_filter: Any = None) -> tuple[Catalog, ...]:
    """What is to be listed for ``join=``: one source, or several, each of which may be a list of sources of its own."""
    if join is None:
        return ()
    chosen = checked_name_filter(name_filter)
    columns = as_list(join, f"{owner}(join=...)")
    return tuple(
        Catalog(checked_parts(as_list(column, f"{owner}(join=...)"), None, config, None, chosen), chosen)
        for column in columns
    )


def joined(listings: Sequence[Listing], index: IndexMode, clusters: Clusters, meter: Meter, **options: Any) -> Resolved:
    """As `resolved`, of the first listing joined with the others.

    Raises: also ``ConfigError`` where a shard has no index: keys of streams cannot be looked up.
    """
    found = [resolved(listing, index, clusters, meter, **options) for listing in listings]
    if len(found) == 1:
        return found[0]
    lacking = next((one for one in found if one.table is None), None)
    if lacking is not None:
        raise ConfigError(
            f"join needs an index of every shard, index='server' or index='client' makes what is missing: {lacking.how}"
        )
    return Resolved(joined_by_key([one.table for one in found if one.table is not None]), found[0].how)


def clusters_of(*catalogs: Catalog) -> Clusters:
    """The clusters of all their sources."""
    sources = [source for catalog in catalogs for source in catalog.sources]
    return Clusters(None, {source.config.endpoint: source.config for source in sources})


def checked_join(join: Any, index: IndexMode) -> None:
    """Raise `ConfigError` where a join cannot work."""
    if join is not None and index == "off":
        raise ConfigError("join needs an index: index='server' or 'client', not 'off'")


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
