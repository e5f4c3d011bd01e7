"""``aisdatapipes check``: whether shards can be read to their ends."""

from __future__ import annotations

import click
from tqdm import tqdm

from aisdatapipes.cli.asking import Failure, asks_cluster, clusters_of, say, sources_of
from aisdatapipes.flow.lint import looked_through
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.url import AISURL

# What readers take for shards, and what nobody calls otherwise: a .gz alone may be anything.
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")


@click.command()
@asks_cluster
def check(urls: tuple[AISURL, ...], endpoint: str | None) -> None:
    """Read every shard below each URL (tar, also compressed, and zip) and tell what is wrong with it.

    A problem is told with shard, member and offset, the first one of each shard: behind it nothing can be told for
    sure. Checksums are compared. What is odd, but readable, is a note. The exit status is 1 if there is a problem.
    """
    sources = sources_of(urls, endpoint)
    listing = Listing.of(sources, Meter(), lambda name: name.lower().endswith(_SHARDS))
    if not len(listing):
        raise Failure(f"{', '.join(urls)}: no object there has the name of a shard: {' '.join(_SHARDS)}")
    samples = problems = 0
    found = looked_through(listing, clusters_of(sources), FetchPlan(), Meter())
    for shard in tqdm(found, "shards", len(listing), unit="", leave=False, disable=None):
        samples += shard.samples
        for note in shard.notes:
            say(f"{shard.url}: note: {note}")
        if shard.problem is not None:
            problems += 1
            say(str(shard.problem))
    say(f"{len(listing):,} shards, {samples:,} samples, {problems:,} problems")
    if problems:
        raise click.exceptions.Exit(1)
