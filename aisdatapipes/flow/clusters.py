"""Which cluster each URL means."""

from __future__ import annotations

from collections.abc import Mapping

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pool import cluster_of


class Clusters:
    """The cluster that each URL means, opened when it is first needed.

    Args:
        default: For URLs that do not say an endpoint.
        others: Configs of further endpoints, by endpoint.
    """

    def __init__(self, default: ClientConfig | None, others: Mapping[str, ClientConfig] | None = None) -> None:
        self._default = default
        self._others = dict(others or {})
        self._open: dict[str | None, Cluster] = {}

    def of(self, url: AISURL) -> Cluster:
        """The cluster of ``url``; its map has been read."""
        found = self._open.get(url.endpoint)
        if found is None:
            found = self._open[url.endpoint] = cluster_of(self._config(url))
            found.open()
        return found

    def _config(self, url: AISURL) -> ClientConfig:
        if url.endpoint is None:
            if self._default is None:
                raise ConfigError(f"{url}: no endpoint; pass url='http://host:port', or set AIS_ENDPOINT")
            return self._default
        known = self._others.get(url.endpoint)
        if known is not None:
            return known
        if self._default is None:
            return ClientConfig(url.endpoint)
        return self._default.at(url.endpoint)
