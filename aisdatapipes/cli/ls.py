"""``aisdatapipes ls``: the objects that URLs stand for."""

from __future__ import annotations

import click

from aisdatapipes.cli.asking import asks_cluster, say, sources_of
from aisdatapipes.flow.listing import listed
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.source import Source


@click.command()
@asks_cluster
@click.option("-l", "--long", "with_sizes", is_flag=True, help="Sizes in bytes too.")
def ls(urls: tuple[AISURL, ...], endpoint: str | None, *, with_sizes: bool) -> None:
    """List the objects below each URL, one a line, as they come."""
    for source in sources_of(urls, endpoint):
        _list(source, with_sizes=with_sizes)


def _list(source: Source, *, with_sizes: bool) -> None:
    for names, sizes in listed(source):
        for name, size in zip(names, sizes, strict=True):
            line = f"{source.bucket.bucket_url}/{name}"
            say(f"{size:>14}  {line}" if with_sizes else line)
