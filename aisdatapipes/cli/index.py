"""``aisdatapipes index``: indexes of shards, so that their samples can be read, shuffled and resumed one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from aisdatapipes.cli.asking import Failure, asks_cluster, clusters_of, say, sources_of
from aisdatapipes.datasets.indexing import resolved
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shardindex import Lack, kept_indexes, server_indexes
from aisdatapipes.model.config import cache_folder
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.source import Source
from aisdatapipes.wire.shardindex import ShardIndex

_AT_ONCE = 64  # shards whose indexes are in memory


@click.command()
@asks_cluster
@click.option("--client", is_flag=True, help="Make the indexes here, by one pass over the headers, and keep them.")
@click.option("--check", "only_check", is_flag=True, help="Make nothing; tell which shards have an index.")
def index(urls: tuple[AISURL, ...], endpoint: str | None, *, client: bool, only_check: bool) -> None:
    """Have the shards (.tar) below each URL indexed, and wait for it.

    The cluster (AIStore 5.0 or later) makes the indexes and keeps them, of all tars of the bucket; the few that it
    cannot make (of hard links and the like) are made here. What is there already is not made again.

    With --check the exit status is 1 if a shard has none.
    """
    if client and only_check:
        raise click.UsageError("--check makes nothing: leave out --client.")
    sources = sources_of(urls, endpoint)
    shards, clusters = _shards(sources, urls), clusters_of(sources)
    if only_check:
        _check(shards, clusters)
        return
    found = resolved(shards, "client" if client else "server", clusters, Meter(), show_progress=True)
    assert found.table is not None  # noqa: S101 - an index is made, or an error raised
    say(f"{len(shards):,} shards, {len(found.table):,} samples, {found.table.members:,} members")
    say(found.how)


def _shards(sources: Sequence[Source], urls: Sequence[AISURL]) -> Listing:
    listing = Listing.of(sources, Meter(), lambda name: name.endswith(".tar"))
    if not len(listing):
        raise Failure(f"{', '.join(urls)}: no object there has a name that ends in .tar")
    return listing


def _check(listing: Listing, clusters: Clusters) -> None:
    shards = listing.urls(range(len(listing)))
    without = 0
    for start in range(0, len(shards), _AT_ONCE):
        for shard, has, state in _states(shards[start : start + _AT_ONCE], clusters):
            without += not has
            say(f"{shard}: {state}")
    say(f"{len(shards) - without:,} of {len(shards):,} shards have an index")
    if without:
        raise click.exceptions.Exit(1)


def _states(shards: Sequence[AISURL], clusters: Clusters) -> Iterator[tuple[AISURL, bool, str]]:
    """Each shard, whether it has an index, and in words which one, or why none."""
    meter = Meter()
    found = server_indexes(shards, clusters, meter)
    lacking = [shard for shard, one in zip(shards, found, strict=True) if isinstance(one, Lack)]
    kept = iter(kept_indexes(lacking, clusters, meter, IndexCache(cache_folder() / "indexes")))
    for shard, one in zip(shards, found, strict=True):
        if not isinstance(one, Lack):
            yield shard, True, "an index of the cluster's"
        elif isinstance(next(kept), ShardIndex):
            yield shard, True, "an index of this machine's"
        else:
            yield shard, False, f"no index ({one.value})"
