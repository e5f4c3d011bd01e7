"""From URLs of shards to their streams: the loader for what is too large to be held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shards import ShardStream, streamed
from aisdatapipes.model.config import ClientConfig, FetchPlan
from aisdatapipes.model.url import AISURL
from aisdatapipes.pipes.base import AISPipe
from aisdatapipes.pipes.loader import object_url


class AISShardStreams(AISPipe["tuple[AISURL, ShardStream]"]):
    """Every shard as a stream, the next ones under way meanwhile.

    Args:
        source_datapipe: URLs of shards.
        configs: How to reach the clusters that the URLs name.
        fetch: Size of parts, width and window.

    Yields: ``(url, stream)``; the stream is valid until the next one is asked for, and stays in this process.
    Memory: ``fetch.window_bytes``, whatever the size of the shards.
    """

    def __init__(
        self,
        source_datapipe: Iterable[str],
        configs: tuple[ClientConfig, ...],
        fetch: FetchPlan,
        meter: Meter,
    ) -> None:
        super().__init__()
        self.source_datapipe = source_datapipe
        self._configs = frozenset(configs)
        self._fetch = fetch
        self._meter = meter

    def __iter__(self) -> Iterator[tuple[AISURL, ShardStream]]:
        clusters = Clusters(None, {config.endpoint: config for config in self._configs})
        urls = (object_url(text) for text in self.source_datapipe)
        return ((stream.url, stream) for stream in streamed(urls, clusters, self._fetch, self._meter))
