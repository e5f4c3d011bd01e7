"""What the cluster's listing of an archive tells of the samples in it, before a byte of the archive is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shardindex import server_indexes
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.errors import StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import PageRead, PageTurns
from aisdatapipes.wire.listing import ARCH_DIR, BriefPage, ListOptions
from aisdatapipes.wire.samples import split
from aisdatapipes.wire.shardindex import ShardIndex

_WIDTH = 8  # shards whose members are listed at a time: the cluster reads each of them for it
_WINDOW_BYTES = 32 << 20
_INDEXES = 64  # that are in memory at a time
_ATTEMPTS = 2  # where the listing only helps, it is not worth waiting for


class Members:
    """The names of the members of one shard, asked for in advance.

    Args:
        cluster: Where the shard is.
        url: The shard.
    """

    def __init__(self, cluster: Cluster, url: AISURL) -> None:
        self._cluster, self._url = cluster, url
        self._first = members_page(cluster, url, BriefPage())
        self._first.attempts_at_most = _ATTEMPTS
        self._first.begin()

    def extensions(self) -> list[str]:
        """Extensions of all samples in the shard, in order; empty where the cluster cannot list it."""
        try:
            self._first.result()
            names = list(_names(self._cluster, self._url, self._first))
        except StoreError:
            return []  # what the shard is, reading it will tell
        parts = (split(name) for name in names)
        return list(dict.fromkeys(part[1] for part in parts if part is not None))


def sample_counts(urls: Iterable[AISURL], clusters: Clusters, meter: Meter) -> npt.NDArray[np.int64]:
    """Samples in each shard, by the cluster's listing of it: shape (N,); -1 where it cannot list one.

    Raises: ``StoreError`` where a shard is not there or the cluster does not answer.
    """
    asked = list(urls)
    pages = (members_page(clusters.of(url), url, BriefPage()) for url in asked)
    counts = []
    for url, read in zip(asked, ordered(pages, _WIDTH, _WINDOW_BYTES, meter), strict=True):
        if read.error is None:
            parts = (split(name) for name in _names(read.cluster, url, read))
            keys = {part[0] for part in parts if part is not None}
            # An archive without samples and a file that is no archive look the same: one entry, the object itself.
            counts.append(len(keys) or -1)
        elif read.unreadable:
            counts.append(-1)  # what is wrong with it, reading it will tell
        else:
            raise read.error
    return np.array(counts, np.int64)


def member_counts(urls: Sequence[AISURL], clusters: Clusters, meter: Meter) -> npt.NDArray[np.int64]:
    """Members of each shard, by the server's index of it: shape (N,); -1 where it has none that says all.

    Two small requests a shard (`server_indexes`), and none for what an ETL answers.
    """
    if any(url.etl_name for url in urls):
        return np.full(len(urls), -1, np.int64)
    counts: list[int] = []
    for start in range(0, len(urls), _INDEXES):
        try:
            found = server_indexes(urls[start : start + _INDEXES], clusters, meter, attempts=_ATTEMPTS)
        except StoreError:
            return np.full(len(urls), -1, np.int64)  # what the matter is, reading will tell
        counts += [len(index) if isinstance(index, ShardIndex) else -1 for index in found]
    return np.array(counts, np.int64)


def members_page(cluster: Cluster, url: AISURL, after: BriefPage) -> PageRead:
    """The page of members behind ``after``; an empty page stands for the beginning."""
    options = ListOptions(prefix=url.name, token=after.token, uuid=after.uuid, props="name", flags=ARCH_DIR)
    return PageRead(cluster, url, options)


def _names(cluster: Cluster, url: AISURL, first: PageRead) -> Iterator[str]:
    root, read, turns = f"{url.name}/", first, PageTurns()
    while True:
        # The listing is by prefix: `a.tar` brings `a.tar.idx` too.
        names = [entry.name[len(root) :] for entry in read.page.entries if entry.name.startswith(root)]
        endless = turns.error(read, len(read.page.entries))
        if endless is not None:
            raise endless
        yield from names
        if not read.page.token:
            return
        read = members_page(cluster, url, read.page)
        read.wait()
