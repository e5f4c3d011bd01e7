"""The clusters of this process: one for each configuration, dropped in a forked child.

A child that inherited an engine would wait for a thread that it does not have. So it starts with an empty pool and a
new lock; what it inherited is kept unused, because cleaning it up would write into its parent's connections.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.transport import Transport

try:
    from aisdatapipes.store.engine import CurlTransport

    _HAS_ENGINE = hasattr(os, "eventfd")  # Linux
except ImportError:  # no pycurl
    _HAS_ENGINE = False

log = logging.getLogger("aisdatapipes")

_warned = False
_lock = threading.Lock()
_clusters: dict[ClientConfig, Cluster] = {}
_ending = False
_inherited: list[dict[ClientConfig, Cluster]] = []


def cluster_of(config: ClientConfig) -> Cluster:
    """The one `Cluster` of this process for ``config``; no I/O."""
    with _lock:
        found = _clusters.get(config)
        if found is None:
            # A target that is away when a worker begins was there when its parent listed.
            known = frozenset[str]().union(*(some[config].membership.known for some in _inherited if config in some))
            found = _clusters[config] = Cluster(config, new_transport(config), known)
            if _ending:
                found.transport.close()  # a daemon thread goes on, but starts no other
        return found


def new_transport(config: ClientConfig) -> Transport:
    """The fastest transport that this place offers."""
    _warn_of_open_doors(config)
    if _HAS_ENGINE:
        return CurlTransport(config)
    from aisdatapipes.store.threads import ThreadTransport  # noqa: PLC0415 - only where it is needed

    return ThreadTransport(config)


def _warn_of_open_doors(config: ClientConfig) -> None:
    """Say once in a process, and in those forked from it, that certificates are not checked."""
    global _warned  # noqa: PLW0603 - once
    if config.verify or _warned or not config.endpoint.startswith("https:"):
        return
    _warned = True
    log.warning(
        "%s: certificates are not checked (verify=False or AIS_SKIP_VERIFY_CRT): whoever is between here and there can "
        "read and change everything, tokens too; for a private authority pass ca_file= or AIS_CLIENT_CA instead",
        config.endpoint,
    )


def close_all() -> None:
    """End every transport of this process; the next `cluster_of` starts anew."""
    with _lock:
        clusters = list(_clusters.values())
        _clusters.clear()
    for cluster in clusters:
        cluster.transport.close()


def _after_fork() -> None:
    global _lock, _clusters  # noqa: PLW0603 - a child's fresh start
    _inherited.append(_clusters)
    _lock = threading.Lock()
    _clusters = {}


def _end() -> None:
    """A thread inside libcurl must not outlive the interpreter."""
    global _ending  # noqa: PLW0603 - the program has one end
    _ending = True
    close_all()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_end)
