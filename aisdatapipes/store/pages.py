"""Pages of a listing, and the size of a single object."""

from __future__ import annotations

from urllib.parse import quote

from aisdatapipes.model.errors import CorruptBody, StoreError, Unavailable
from aisdatapipes.model.url import AISURL, bucket_url, object_path
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.listing import REBALANCING, BriefPage, ListOptions, decoded_brief_page, encoded_list
from aisdatapipes.wire.malformed import Malformed

_AS_OFTEN_AS_IT_TAKES = 1_000_000  # attempts, of which the deadline allows much fewer
_HEADERS = ("Content-Type: application/json", "Accept: application/msgpack")


class PageRead(Exchange):
    """One page of a bucket's listing; when it has ended, ``page`` is there, or ``error``.

    A cluster that moves objects between its targets leaves some of them out, and says so: it is asked until it has
    done so, or the deadline is over.
    """

    __slots__ = ("_of_the_cluster", "_token", "held", "page")

    cost = 1 << 20  # bytes in a window, roughly: 10,000 names

    def __init__(self, cluster: Cluster, bucket: AISURL, options: ListOptions) -> None:
        shown = bucket_url(bucket.provider, bucket.bucket, bucket.namespace)
        super().__init__(cluster, shown, _bucket_path(bucket), "cannot list")
        self.headers = _HEADERS
        self.body = encoded_list(options)
        self._token = options.token
        self._of_the_cluster = bucket.provider == "ais"  # what is in a cloud, the cloud lists
        self.page = BriefPage()
        self.held = 0

    @property
    def unreadable(self) -> bool:
        """True where the cluster could not list the members of an archive, for it is none that it can read."""
        return self.error is not None and self.error.status == 400 and not isinstance(self.error, Unavailable)

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the body is a page."""
        try:
            self.page = decoded_brief_page(reply.body)
        except Malformed as error:
            return self._corrupt(str(error))
        if self.page.token and self.page.token == self._token:
            return self._corrupt("the token of a page leads to itself, so the listing would never end")
        if self.page.flags & REBALANCING and self._of_the_cluster:
            self.attempts_at_most = _AS_OFTEN_AS_IT_TAKES
            return self._unavailable(
                "the cluster rebalances, and leaves out objects meanwhile; list again when it has done so, or use a "
                "Manifest that was made before"
            )
        return None

    def _corrupt(self, text: str) -> CorruptBody:
        return CorruptBody(f"{self.what}: {text}", url=self.subject, status=200, attempts=self.attempts)


class SizeRead(Exchange):
    """The size of one object; when it has ended, ``size`` is there, or ``error``."""

    __slots__ = ("size",)

    cost = held = 0  # bytes in a window

    def __init__(self, cluster: Cluster, url: AISURL) -> None:
        super().__init__(cluster, url, f"{object_path(url.bucket, url.name)}?{_query(url)}&props=size", "cannot stat")
        self.method = "HEAD"
        self.listed = url.size >= 0
        self.size = -1

    def accept(self, reply: Reply) -> StoreError | None:
        """Take the size out of the answer."""
        self.size = int(reply.header("Content-Length") or 0)
        return None


def object_size(cluster: Cluster, url: AISURL) -> int:
    """Bytes of the object; raises `ObjectNotFound` and `BucketNotFound`."""
    read = SizeRead(cluster, url)
    read.wait()
    return read.size


def _bucket_path(bucket: AISURL) -> str:
    return f"/v1/buckets/{bucket.bucket}?{_query(bucket)}"


def _query(url: AISURL) -> str:
    namespace = f"&namespace={quote(url.namespace, safe='')}" if url.namespace else ""
    return f"provider={url.provider}{namespace}"
