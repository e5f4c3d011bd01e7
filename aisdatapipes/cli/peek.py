"""``aisdatapipes peek``: one sample of the shards."""

from __future__ import annotations

import codecs
import io
from importlib.util import find_spec

import click

from aisdatapipes.cli.asking import Failure, asks_cluster, clusters_of, say, sources_of
from aisdatapipes.flow.listing import Listing
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shards import streamed
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.samples import samples

_SHOWN = 60  # characters of a text, and half as many bytes of anything else


@click.command()
@asks_cluster
@click.option("--key", help="This sample, not the first one.")
def peek(urls: tuple[AISURL, ...], endpoint: str | None, *, key: str | None) -> None:
    """Show one sample of the shards below the URLs: key, fields, sizes, and how each begins.

    Nothing is read of what comes behind it.
    """
    sources = sources_of(urls, endpoint)
    listing = Listing.of(sources, Meter())
    streams = streamed(listing, clusters_of(sources), FetchPlan(width=2), Meter())
    for stream in streams:
        members = opened(stream, stream.url, seekable=stream.file, member_bytes=most_in_memory())
        for name, sample in samples(members, stream.url):
            if key in (None, name):
                _show(name, sample)
                return
    raise Failure(f"{', '.join(urls)}: there is no sample {'' if key is None else repr(key)}".rstrip())


def _show(key: str, sample: dict[str, bytes]) -> None:
    say(key)
    width = max(map(len, sample))
    for extension, content in sample.items():
        say(f"  {extension:<{width}}  {len(content):>12,} bytes  {_beginning(content)}".rstrip())


def _beginning(content: bytes) -> str:
    """How a content begins: a text as such, the kind and the size of a picture, else bytes."""
    try:
        # Incremental: a letter that is cut at the end is no error.
        start = codecs.getincrementaldecoder("utf-8")().decode(content[: 5 * _SHOWN]).partition("\n")[0]
    except UnicodeDecodeError:
        start = "\0"
    if start.isprintable():
        return start if len(start) <= _SHOWN else f"{start[:_SHOWN]}..."
    return _picture(content) or content[: _SHOWN // 2].hex(" ")


def _picture(content: bytes) -> str:
    """Empty where it is none, or Pillow is not installed."""
    if find_spec("PIL") is None:
        return ""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - an extra

    try:
        with Image.open(io.BytesIO(content)) as image:
            return f"{image.format}, {image.width} x {image.height}, {image.mode}"
    except (UnidentifiedImageError, OSError, ValueError):
        return ""
