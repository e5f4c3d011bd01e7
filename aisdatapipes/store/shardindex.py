"""The server's index of a shard: reading it, and having it made.

AIStore 5.0 keeps an index as an object of the bucket ``.sys-shardidx``, under the full name of its shard and on the
target that owns the *shard*; so the endpoint, which places by the index's own name, finds only some of them.
"""

from __future__ import annotations

import json
from urllib.parse import quote

import msgspec

from aisdatapipes.model.errors import CorruptBody, StoreError
from aisdatapipes.model.url import AISURL, object_path
from aisdatapipes.store.ceiling import SLACK_BYTES
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.read import Read
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.placement import uname

_BUCKET = ".sys-shardidx"
LARGEST_BYTES = 64 << 20  # of an index: a million members, whose names are longer than most
_SHARE = 8  # of a shard, that its index is at most
_COST = 64 << 10  # bytes in a window, roughly: the index of 4,000 members
# There is none, we may not have it, or the cluster is too old to know of such things.
_ABSENT = frozenset((400, 401, 403, 404, 405, 501))
_ACTION = "index-shard"


class IndexRead(Read):
    """The server's index of one shard; when it has ended, ``data`` is there, or ``error``.

    Args:
        cluster: Where the shard is.
        url: The shard.
        owner: As in `Read`, of the shard.
    """

    __slots__ = ()

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None) -> None:
        super().__init__(cluster, url, owner)
        self.listed = False  # the shard was; its index need not be there
        name = f"{uname(url.provider, url.namespace, url.bucket, url.name)}.idx"
        self.path, self.what = f"{object_path(_BUCKET, name)}?provider=ais", "cannot read its index"

    @property
    def absent(self) -> bool:
        """True where the cluster has no index of this shard for us."""
        return self.error is not None and self.error.status in _ABSENT

    @property
    def cost(self) -> int:
        """Bytes that it will occupy, by experience: nobody tells."""
        return _COST

    @property
    def most_bytes(self) -> int:
        """A member takes a header and a block of its shard, and little more than its name here."""
        expected = self.url.size // _SHARE if self.url.size >= 0 else LARGEST_BYTES
        return min(expected + SLACK_BYTES, LARGEST_BYTES)

    def _ask_endpoint(self, reply: Reply) -> None:
        # That the owner has no index says nothing against the map, and nobody else has it.
        if reply.failure is None and reply.status in _ABSENT:
            self._refused(reply)
        else:
            super()._ask_endpoint(reply)


class IndexJob(Exchange):
    """Starts the job that indexes all tars of a bucket; when it has ended, ``job`` is its id, or there is ``error``."""

    __slots__ = ("job",)

    def __init__(self, cluster: Cluster, shard: AISURL) -> None:
        space = f"&namespace={quote(shard.namespace, safe='')}" if shard.namespace else ""
        path = f"/v1/buckets/{shard.bucket}?provider={shard.provider}{space}"
        what = "the cluster does not index its shards for us (index='client' does it here)"
        super().__init__(cluster, shard.bucket_url, path, what)
        self.method, self.headers = "POST", ("Content-Type: application/json",)
        self.body = json.dumps({"action": _ACTION, "name": "", "value": None}).encode()
        self.job = ""

    def accept(self, reply: Reply) -> StoreError | None:
        """Take the id out of the answer."""
        self.job = reply.body.decode("utf-8", "replace").strip().strip('"')
        if self.job:
            return None
        return CorruptBody(f"{self.what}: no id of a job came", url=self.subject, status=200, attempts=self.attempts)


class _Status(msgspec.Struct):
    end_time: int = 0  # nanoseconds; 0 while it runs
    err: str = ""
    aborted: bool = False


class JobRead(Exchange):
    """Where a job stands; when it has ended, there are the attributes, or ``error``.

    Attributes:
        over: Whether the job runs no more.
        stopped: Whether somebody has stopped it.
        failure: What went wrong in it, in the cluster's words; else empty.
    """

    __slots__ = ("failure", "over", "stopped")

    def __init__(self, cluster: Cluster, subject: str, job: str) -> None:
        super().__init__(cluster, subject, "/v1/cluster?what=status", f"cannot ask after job {job}")
        self.headers = ("Content-Type: application/json",)
        self.body = json.dumps({"id": job}).encode()
        self.over = self.stopped = False
        self.failure = ""

    def accept(self, reply: Reply) -> StoreError | None:
        """Take the state of the job out of the answer."""
        try:
            status = msgspec.json.decode(reply.body, type=_Status)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return CorruptBody(f"{self.what}: {error}", url=self.subject, status=200, attempts=self.attempts)
        self.over, self.stopped = status.end_time > 0 or status.aborted, status.aborted
        self.failure = status.err
        return None
