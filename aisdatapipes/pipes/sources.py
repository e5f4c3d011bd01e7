"""From objects of the AIStore SDK to the addresses of what they contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterDataPipe

from aisdatapipes.flow.listing import NameFilter, listed
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL, http_url
from aisdatapipes.pipes.base import AISPipe, functional
from aisdatapipes.pipes.lister import checked_name_filter
from aisdatapipes.store.source import Source, source_of


@functional("ais_list_sources")
class AISSourceLister(AISPipe[AISURL]):
    """The full HTTP address of every object of every source (functional name: ``ais_list_sources``).

    Such an address can be opened by any HTTP client (a cluster without tokens), for instance by WebDataset:
    ``WebDataset(AISSourceLister([bucket]).map(lambda url: {"url": url}))``; and ``ais_load_files`` loads it.

    Args:
        ais_sources: ``Bucket``, ``ObjectGroup``, ``Object`` or ``DataShard`` of the SDK, or a URL: one of them, a
            list, a tuple, or a pipe (``IterableWrapper(sources, deepcopy=False)``).
        prefix: Only objects whose name begins with it, in every source.
        etl_name: ETL on the cluster that whoever opens the address gets applied.
        name_filter: Keep objects whose name matches a regular expression, or satisfies a callable.

    Yields: ``AISURL`` such as ``http://localhost:8080/v1/objects/bucket/a%20b.jpg?provider=ais``.
    Order: that of the sources, and of each source's listing.
    Raises: ``ConfigError`` at construction for what is no source, ``BucketNotFound`` and the like when reached.
    """

    def __init__(
        self, ais_sources: Any, prefix: str = "", etl_name: str | None = None, *, name_filter: Any = None
    ) -> None:
        super().__init__()
        # Values only: clients of the SDK hold locks and sessions, which a graph of pipes should not.
        self._sources = ais_sources if isinstance(ais_sources, IterDataPipe) else _all(ais_sources)
        if not isinstance(prefix, str):
            raise ConfigError(f"AISSourceLister: prefix is one text for all sources, not {prefix!r}")
        self._prefix = prefix
        self._etl_name = etl_name
        self._name_filter: NameFilter | None = checked_name_filter(name_filter)
        self._meter = Meter()

    def __iter__(self) -> Iterator[AISURL]:
        return self._run()

    def stats(self) -> dict[str, Any]:
        """What this pipe did in this process so far, by counter."""
        return self._meter.stats()

    def _run(self) -> Iterator[AISURL]:
        for thing in self._sources:
            source = _narrowed(source_of(thing), self._prefix)
            etl_name = self._etl_name or source.etl_name
            for chunk in listed(source, self._name_filter):
                for name, size in zip(*chunk, strict=True):
                    yield _address(source, name, size, etl_name)
            self._meter.lists += 1


def _address(source: Source, name: str, size: int, etl_name: str | None) -> AISURL:
    bucket, endpoint = source.bucket, source.config.endpoint
    text = http_url(endpoint, bucket.provider, bucket.bucket, name, bucket.namespace, etl_name)
    return AISURL.make(
        text, bucket.provider, bucket.bucket, name, namespace=bucket.namespace, size=size, endpoint=endpoint,
        etl_name=etl_name,
    )  # fmt: skip


def _narrowed(source: Source, prefix: str) -> Source:
    """The source with only names that begin with its own prefix and with ``prefix``."""
    if not prefix:
        return source
    both = (_both(own, prefix) for own in source.prefixes)
    return source.with_prefixes(longer for longer in both if longer is not None)


def _both(own: str, prefix: str) -> str | None:
    if own.startswith(prefix):
        return own
    return prefix if prefix.startswith(own) else None


def _all(things: Any) -> tuple[Source, ...]:
    one = isinstance(things, str) or not isinstance(things, Iterable)
    sources = tuple(source_of(thing) for thing in ([things] if one else things))
    if not sources:
        raise ConfigError("AISSourceLister: ais_sources is empty; expected at least one source")
    return sources
