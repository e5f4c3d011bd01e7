"""From URLs of objects to their contents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.fetch import fetched
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import OnError, Tolerance
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import ConfigError, InvalidURL
from aisdatapipes.model.url import AISURL
from aisdatapipes.pipes.base import AISPipe, Urls, checked_length, checked_source, functional, legacy_name
from aisdatapipes.pipes.handed import noted
from aisdatapipes.pipes.stream import ObjectStream
from aisdatapipes.store.source import config_of

if TYPE_CHECKING:
    from aistore.sdk import Client

    from aisdatapipes.model.config import ClientConfig


@legacy_name("load_files_by_ais")
@functional("ais_load_files")
class AISFileLoaderIterDataPipe(AISPipe["tuple[AISURL, ObjectStream]"]):
    """The content of every object, in order (functional names: ``ais_load_files``, ``load_files_by_ais``).

    Args:
        source_datapipe: Pipe, list or tuple of object URLs, or one URL; plain text is parsed here, an ``AISURL`` is
            used as it is. URLs of `AISSourceLister` say their cluster themselves.
        url: Endpoint such as ``http://localhost:8080``, a `ClientConfig`, or a ``Client`` of the SDK; None for
            ``AIS_ENDPOINT``.
        length: What ``len()`` answers; -1 for the length of the source, where that is known.
        etl_name: ETL on the cluster that is applied to each object.
        fetch: How objects are fetched.
        on_error: ``"raise"``, ``"skip"`` (counted in ``stats()``, warned of once), or a callable on the error that
            answers one of these.
        max_errors: Objects that may be skipped: a number, or a share (below 1) of those seen; None for any number.

    Yields: ``(url, stream)``; ``stream.read()`` is the whole content in bytes. The stream (a ``StreamWrapper`` over
        ``BytesIO``) holds all of it, so it can be read later, twice, or in another process.
    Order: that of the source, whatever arrives first.
    Memory: at most ``fetch.window_bytes`` that the consumer has not taken yet.
    Raises: ``NotFound``, ``Denied``, ``Unavailable`` when the object is reached, not before.

    >>> from aisdatapipes.devserver import DevCluster
    >>> with DevCluster.demo() as cluster:
    ...     pipe = AISFileLoaderIterDataPipe("ais://demo/a.txt", cluster.endpoint)
    ...     [(url, stream.read()) for url, stream in pipe]
    [('ais://demo/a.txt', b'A')]
    """

    def __init__(
        self,
        source_datapipe: Urls,
        url: str | ClientConfig | Client | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        fetch: FetchPlan | None = None,
        on_error: OnError = "raise",
        max_errors: float | None = None,
    ) -> None:
        super().__init__()
        self.source_datapipe = checked_source(source_datapipe, type(self).__name__)
        if isinstance(self.source_datapipe, (list, tuple)):
            for text in self.source_datapipe:
                object_url(text)
        self._config = self._checked_config(url)
        self._length = checked_length(length, type(self).__name__)
        self._etl_name = etl_name
        self._fetch = FetchPlan.of(fetch)
        self._tolerance = Tolerance(on_error, max_errors)
        self._meter = Meter()

    def _checked_config(self, url: str | ClientConfig | Client | None) -> ClientConfig | None:
        try:
            return config_of(url)
        except ConfigError:
            urls = self.source_datapipe
            # URLs of `AISSourceLister` say their cluster themselves; in a pipe they are not there to see yet.
            known = not isinstance(urls, (list, tuple)) or all(AISURL.parse(text).endpoint for text in urls)
            if url is None and known:
                return None
            raise

    def __iter__(self) -> Iterator[tuple[AISURL, ObjectStream]]:
        return ((url, ObjectStream(data)) for url, data in self._run())

    def __len__(self) -> int:
        return self._length if self._length >= 0 else len(self.source_datapipe)

    def stats(self) -> dict[str, Any]:
        """What this pipe did in this process so far, by counter."""
        return self._meter.stats()

    def _run(self) -> Iterator[tuple[AISURL, bytes]]:
        meter, before = self._meter, self._meter.objects + self._meter.skipped
        source = noted(self, self.source_datapipe, lambda: meter.objects + meter.skipped - before)
        urls = (object_url(text, self._etl_name) for text in source)
        return fetched(urls, Clusters(self._config), self._fetch, self._meter, self._tolerance)


def object_url(text: str, etl_name: str | None = None) -> AISURL:
    """The parsed URL of an object; a bucket where an object is meant is an `InvalidURL`."""
    url = AISURL.parse(text)
    if not url.name:
        raise InvalidURL(f"{text!r} is a bucket, an object is meant; list it first: .ais_list_files(...)")
    if etl_name and url.etl_name != etl_name:
        return AISURL.make(
            url, url.provider, url.bucket, url.name, namespace=url.namespace, size=url.size, endpoint=url.endpoint,
            etl_name=etl_name,
        )  # fmt: skip
    return url
