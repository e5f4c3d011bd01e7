"""From URLs of buckets and prefixes to URLs of objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aisdatapipes.flow.listing import NameFilter, listed
from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.pipes.base import (
    AISPipe,
    Urls,
    checked_length,
    checked_source,
    functional,
    legacy_name,
    length_of,
)
from aisdatapipes.store.source import Source, config_of, source_of

if TYPE_CHECKING:
    from aistore.sdk import Client

    from aisdatapipes.model.config import ClientConfig


@legacy_name("list_files_by_ais")
@functional("ais_list_files")
class AISFileListerIterDataPipe(AISPipe[AISURL]):
    """The URL of every object under every prefix (functional names: ``ais_list_files``, ``list_files_by_ais``).

    Args:
        source_datapipe: Pipe, list or tuple of prefix URLs such as ``ais://bucket/folder/``, or one URL. The part
            after the bucket is compared with the beginning of names, character by character.
        url: Endpoint such as ``http://localhost:8080``, a `ClientConfig`, or a ``Client`` of the SDK; None for
            ``AIS_ENDPOINT``.
        length: What ``len()`` answers; -1 for "unknown".
        name_filter: Keep objects whose name matches a regular expression (``re.search``), or satisfies a callable.

    Yields: ``AISURL``, a ``str`` that carries provider, bucket, name and size.
    Order: that of the prefixes, and by name (bytewise) within each; an object under two prefixes comes twice.
    Memory: two pages of the listing, 10,000 objects each.
    Raises: ``InvalidURL`` at construction where the URLs are there to see, ``BucketNotFound``, ``Denied`` and
        ``Unavailable`` when the prefix is reached.

    >>> from aisdatapipes.devserver import DevCluster
    >>> with DevCluster.demo() as cluster:
    ...     list(AISFileListerIterDataPipe("ais://demo/", cluster.endpoint))
    ['ais://demo/a.txt', 'ais://demo/b.txt']
    """

    def __init__(
        self,
        source_datapipe: Urls,
        url: str | ClientConfig | Client | None = None,
        length: int = -1,
        *,
        name_filter: Any = None,
    ) -> None:
        super().__init__()
        self.source_datapipe = checked_source(source_datapipe, type(self).__name__)
        self._config = config_of(url)
        self._length = checked_length(length, type(self).__name__)
        self._name_filter = checked_name_filter(name_filter)
        self._meter = Meter()

    def __iter__(self) -> Iterator[AISURL]:
        return self._run()

    def __len__(self) -> int:
        return length_of(self, self._length)

    def stats(self) -> dict[str, Any]:
        """What this pipe did in this process so far, by counter."""
        return self._meter.stats()

    def _run(self) -> Iterator[AISURL]:
        for text in self.source_datapipe:
            prefix = AISURL.parse(text)
            source = _source(prefix, self._config)
            root = _root(prefix)
            make, shared = AISURL.make, prefix
            for chunk in listed(source, self._name_filter, self._meter):
                self._meter.objects += len(chunk.names)
                for name, size in zip(*chunk, strict=True):
                    yield make(
                        root + name, shared.provider, shared.bucket, name, namespace=shared.namespace, size=size,
                        endpoint=shared.endpoint, etl_name=shared.etl_name,
                    )  # fmt: skip
            self._meter.lists += 1


def checked_name_filter(name_filter: Any) -> NameFilter | None:
    """A predicate on names, from a callable, a regular expression or its text."""
    found: NameFilter
    if name_filter is None:
        return None
    if callable(name_filter):
        found = name_filter
        return found
    if isinstance(name_filter, re.Pattern):
        return name_filter.search
    if isinstance(name_filter, str):
        try:
            return re.compile(name_filter).search
        except re.error as error:
            raise ConfigError(f"name_filter is no regular expression: {name_filter!r} ({error})") from None
    raise ConfigError(f"name_filter is a callable on the name or a regular expression, not {name_filter!r}")


def _source(prefix: AISURL, config: ClientConfig) -> Source:
    where = config if prefix.endpoint is None else config.at(prefix.endpoint)
    return source_of(prefix, where)


def _root(prefix: AISURL) -> str:
    """What stands before the name in the URLs, with the scheme as the user wrote it."""
    if prefix.endpoint is not None:
        return f"{prefix.bucket_url}/"
    scheme = prefix.partition(":")[0].lower()
    return f"{scheme}://{f'{prefix.namespace}/' if prefix.namespace else ''}{prefix.bucket}/"
