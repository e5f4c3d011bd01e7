"""Writing one object, in one piece: for the small things that a job leaves for others."""

from __future__ import annotations

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.pool import cluster_of
from aisdatapipes.store.read import Read, path_of


class Write(Exchange):
    """One PUT. The cluster shows the object when all of it is there, so a try that broke off can be made again."""

    __slots__ = ()

    def __init__(self, cluster: Cluster, url: AISURL, data: bytes) -> None:
        super().__init__(cluster, url, path_of(url), "cannot write")
        self.method = "PUT"
        # The endpoint redirects without reading, and closes the connection on a body that it did not ask for.
        self.headers = ("Content-Type: application/octet-stream", "Expect: 100-continue")
        self.body = data


def write_object(url: AISURL, config: ClientConfig, data: bytes) -> None:
    """Store an object, or replace it; raises `BucketNotFound`, `Denied`, `Unavailable`."""
    write = Write(cluster_of(config), url, data)
    try:
        write.wait()
    finally:
        # An exchange and who waits for it know each other: without this the data would stay until a collection.
        write.body = None


def read_object(url: AISURL, config: ClientConfig) -> bytes:
    """The whole of an object, compared with its checksum; raises `ObjectNotFound` and the like."""
    read = Read(cluster_of(config), url)
    read.wait()
    return read.data
