"""Pages of a listing, and the size of a single object."""

from __future__ import annotations

from urllib.parse import quote

from aisdatapipes.model.errors import CorruptBody, InvalidURL, StoreError, Unavailable
from aisdatapipes.model.url import AISURL, bucket_url, object_path
from aisdatapipes.store import answers
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.listing import (
    ARCH_DIR,
    REBALANCING,
    BriefPage,
    Entry,
    ListOptions,
    decoded_brief_page,
    decoded_page,
    encoded_list,
)
from aisdatapipes.wire.malformed import Malformed

_AS_OFTEN_AS_IT_TAKES = 1_000_000  # attempts, of which the deadline allows much fewer
_HEADERS = ("Content-Type: application/json", "Accept: application/msgpack")


EMPTY_PAGES = 100  # in a row; clouds give some, where objects were deleted


class PageRead(Exchange):
    """One page of a bucket's listing; when it has ended, ``page`` is there, or ``error``.

    A cluster that moves objects between its targets leaves some of them out, and says so: it is asked until it has
    done so, or the deadline is over.
    """

    __slots__ = ("_in_order", "_of_the_cluster", "_token", "held", "page")

    cost = 1 << 20  # bytes in a window, roughly: 10,000 names

    def __init__(self, cluster: Cluster, bucket: AISURL, options: ListOptions) -> None:
        shown = bucket_url(bucket.provider, bucket.bucket, bucket.namespace)
        super().__init__(cluster, shown, _bucket_path(bucket), "cannot list")
        self.headers = _HEADERS
        try:
            self.body = encoded_list(options)
        except Malformed as error:
            raise InvalidURL(str(error), url=shown) from None
        self._token = options.token
        self._of_the_cluster = bucket.provider == "ais"  # what is in a cloud, the cloud lists
        # The cluster's own tokens are names, and each page begins behind the one before it. Clouds have tokens of
        # their own, and members of archives another order.
        self._in_order = self._of_the_cluster and not options.flags & ARCH_DIR
        self.page = BriefPage()
        self.held = 0

    def entries(self) -> list[Entry]:
        """All that the page tells of its objects, where ``page`` has names and sizes; raises ``CorruptBody``."""
        try:
            return decoded_page(self.result().body).entries
        except Malformed as error:
            raise self.corrupt(str(error)) from None

    @property
    def unreadable(self) -> bool:
        """True where the cluster could not list the members of an archive, for it is none that it can read."""
        return self.error is not None and self.error.status == 400 and not isinstance(self.error, Unavailable)

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the body is a page."""
        try:
            self.page = decoded_brief_page(reply.body)
        except Malformed as error:
            return self.corrupt(str(error))
        token = self.page.token
        if token and token == self._token:
            return self.corrupt("the token of a page leads to itself, so the listing would never end")
        if token and self._in_order and _bytes(token) < _bytes(self._token):
            return self.corrupt("the token of a page leads back, so the listing would never end")
        if not all(_is_unicode(text) for text in (token, self.page.uuid)):
            return self.corrupt("the token of a page is no text that could be sent back")
        if self.page.flags & REBALANCING and self._of_the_cluster:
            self.attempts_at_most = _AS_OFTEN_AS_IT_TAKES
            return self._unavailable(
                "the cluster rebalances, and leaves out objects meanwhile; list again when it has done so, or use a "
                "Manifest that was made before"
            )
        return None

    def corrupt(self, text: str) -> CorruptBody:
        """The error of a page that cannot be."""
        return CorruptBody(f"{self.what}: {text}", url=self.subject, status=200, attempts=self.attempts)


class PageTurns:
    """Keeps a listing from going on for ever: asked of every page before the next one is asked for.

    A token that leads back to an earlier page is found as Brent finds a cycle (BIT 20, 1980): each is compared with
    one that is kept, and after 1, 2, 4, 8 ... pages the newest is kept.
    """

    def __init__(self) -> None:
        self._kept, self._until_next, self._run = "", 1, 1
        self._empty = 0

    def error(self, read: PageRead, objects: int) -> StoreError | None:
        """Why the listing shall not go on behind this page, which brought so many objects; None where it can."""
        token = read.page.token
        self._empty = 0 if objects else self._empty + 1
        if self._empty > EMPTY_PAGES:
            return read.corrupt(f"{self._empty} pages in a row have no object, and the last one says that more follow")
        if token and token == self._kept:
            return read.corrupt("the token of a page leads to an earlier one, so the listing would never end")
        self._until_next -= 1
        if not self._until_next:
            self._run *= 2
            self._kept, self._until_next = token, self._run
        return None


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
        self.size = answers.number_in(reply.header("Content-Length"))
        if self.size >= 0:
            return None
        text = f"{self.what}: the answer tells no length"
        return CorruptBody(text, url=self.subject, status=reply.status, attempts=self.attempts)


def object_size(cluster: Cluster, url: AISURL) -> int:
    """Bytes of the object; raises `ObjectNotFound` and `BucketNotFound`."""
    read = SizeRead(cluster, url)
    read.wait()
    return read.size


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bucket_path(bucket: AISURL) -> str:
    return f"/v1/buckets/{bucket.bucket}?{_query(bucket)}"


def _query(url: AISURL) -> str:
    namespace = f"&namespace={quote(url.namespace, safe='')}" if url.namespace else ""
    return f"provider={url.provider}{namespace}"
