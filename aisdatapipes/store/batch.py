"""One get-batch: many objects in one request, of which any may be missing from the answer.

The format is that of ``/v1/ml/moss`` (`wire.batch`). The answer begins before the cluster knows what it can read, so
its status says nothing: members are counted, and their names and lengths compared. What is missing, misplaced,
changed or cut off is left out, for the caller to ask for again.

The answer is parsed as it arrives, and a batch has ended when its last member is there: the cluster holds the end of
the archive back for about 100 ms, and whoever waited for it would wait at every batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aisdatapipes.model.errors import BucketNotFound, CorruptBody, CorruptShard, StoreError, Unavailable
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.ceiling import SLACK_BYTES, most_in_memory
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.forks import Home
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.batch import BatchEntry, BatchRequest, decoded_reply, encoded_request, member_name
from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.tar import Member, TarParser

_NO_SUCH_PATH = frozenset((404, 405, 501))  # what servers answer that do not know it
# The cluster writes through a buffer of 4 KiB: with small objects, the end of the last one stays there as long as the
# end of the archive is held back. So the last one is asked for once more, or a few times: that pushes it out.
_BUFFER_BYTES = 4096
_TAR_BLOCK = 512
# Of a member in an archive, or in the words about one, at most; its name not counted.
_AROUND_BYTES = 4 * _TAR_BLOCK
# A cluster that is too busy for batches may still serve objects, which have all tries of the policy.
_ATTEMPTS = 3
# Seconds in which a batch brings not one byte, and then its objects are read one by one: that tells whose fault it is.
# The cluster sends an object when it has all of it, from a slow disk at so many bytes a second.
SILENCE_S, SLOW_RATE = 4.0, 4 << 20


@dataclass(frozen=True, slots=True)
class BatchForm:
    """How the answer is packed.

    Args:
        mime: ``.tar``, ``.tgz``, ``.tar.gz`` or ``.zip``.
        streaming: The archive alone, as the cluster reads; else in one piece when it is complete.
        colocation: 1 lets the owner of most objects answer.
    """

    mime: str = ".tar"
    streaming: bool = True
    colocation: int = 0

    @property
    def arrives_member_by_member(self) -> bool:
        """True where the answer is parsed while it arrives."""
        return self.streaming and self.mime == ".tar"


class BatchRead(Exchange):
    """One get-batch; its contents are there one after the other.

    Args:
        cluster: Where all the objects are.
        form: How the answer is packed.
        weight: Of the job, in a window.
    """

    # fmt: off
    __slots__ = (
        "_at", "_contents", "_entries", "_names", "_news", "_parser", "_waiting", "cost", "form", "held",
        "urls", "waited_s", "weight",
    )
    # fmt: on

    early = True

    def __init__(self, cluster: Cluster, form: BatchForm, weight: int = 1) -> None:
        super().__init__(cluster, "", "/v1/ml/moss?provider=ais", "cannot read by get-batch")
        self.form, self.weight = form, weight
        self.urls: list[AISURL] = []
        self.cost = 0  # bytes of all objects; -1 when the size of one is not known
        self.held = 0  # bytes of those that have come
        self.attempts_at_most = min(self.attempts_at_most, _ATTEMPTS)
        self._entries: list[BatchEntry] = []
        self._names: list[str] = []  # under which the answer has them
        self._contents: list[bytes | None] = []
        self._at = 0  # members that have come, or never will
        self._news = threading.Condition(threading.Lock())
        self._waiting = False
        self.waited_s = 0.0  # by the consumer, for members
        self._home = Home()

    @property
    def most_bytes(self) -> int:
        """All the objects, and what the archive adds to each; of unknown sizes, what the window keeps for them."""
        contents = max(self.room, self.cost)
        if contents < 0:
            return most_in_memory()
        around = sum(_AROUND_BYTES + 8 * len(url.name) for url in self.urls)
        return contents + 2 * around + len(self._tail()) * (_AROUND_BYTES + 2 * _BUFFER_BYTES) + SLACK_BYTES

    def add(self, url: AISURL) -> int:
        """One object more, before the start; its index."""
        entry = BatchEntry(url.bucket, url.provider, url.name, namespace=url.namespace)
        self.urls.append(url)
        self._entries.append(entry)
        self._names.append(member_name(entry, only_names=False))
        self._contents.append(None)
        self.cost = self.cost + url.size if min(self.cost, url.size) >= 0 else -1
        return len(self.urls) - 1

    def start(self, done: Callable[[Any], None], delay: float = 0.0) -> None:
        """Ask; ``done`` is called when all that the answer has is there."""
        if self.cluster.batches_rest:
            self._done = done
            error = Unavailable(f"{self.what}: the last one brought nothing", url=self.urls[0])
            self._end(None, error)  # whoever takes it reads its objects one by one
            return
        first, others = self.urls[0], len(self.urls) - 1
        self.subject = f"{first} and {others} more" if others else first
        self.headers = ("Content-Type: application/json",)
        if self.form.arrives_member_by_member and self.cost >= 0:
            self.silence_s = min(SILENCE_S + self.cost / SLOW_RATE, self.cluster.config.read_timeout)
        self.body = encoded_request(
            BatchRequest(
                (*self._entries, *self._tail()),
                mime=self.form.mime, streaming=self.form.streaming, colocation=self.form.colocation,
            )
        )  # fmt: skip
        super().start(done, delay)

    @property
    def last_index(self) -> int:
        """Index of its last content."""
        return len(self.urls) - 1

    @property
    def unknown_to_the_server(self) -> bool:
        """True where the endpoint itself does not know get-batch; once redirected, a 404 means a lost batch."""
        error = self.error
        if error is None or self.redirects or isinstance(error, BucketNotFound):
            return False
        return error.status in _NO_SUCH_PATH

    def content(self, index: int) -> bytes | None:
        """Content of an object, waited for; None where the answer does not have it."""
        if index >= self._at and not self.ended:
            self._wait_for(index)
        return self._contents[index]

    def lacking(self, index: int) -> list[AISURL]:
        """The objects from ``index`` on that the answer does not have, once it has ended."""
        self._wait_for(len(self.urls))
        return [url for url, data in zip(self.urls[index:], self._contents[index:], strict=True) if data is None]

    def _wait_for(self, index: int) -> None:
        self._home.check()
        began = time.perf_counter()
        with self._news:
            self._waiting = True  # before it looks: the other thread looks here after it has changed something
            while index >= self._at and not self.ended:
                self._news.wait()
                self._waiting = True
            self._waiting = False
        self.waited_s += time.perf_counter() - began

    # ---- on the transport's thread

    def write(self, data: bytes) -> bool:
        """Take a piece of the answer: this is its `Sink`."""
        if not self.ended:
            try:
                for member in self._parser.feed(data):
                    self._take(member)
            except CorruptShard as error:
                self.cancel()
                self._end(None, StoreError(f"{self.what}: {error}", url=self.subject, attempts=self.attempts))
            if self._at >= len(self.urls) and not self.ended:
                self._end(None, None)  # the connection is drained aside
            self._tell_consumer()
        return True

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the answer could be read, as far as it goes."""
        if self.form.arrives_member_by_member:
            return None
        try:
            archive = reply.body
            if not self.form.streaming:
                archive = decoded_reply(archive, reply.header("Content-Type") or "").archive
            for member in opened([archive], f"answer{self.form.mime}", member_bytes=self._largest()):
                self._take(member)
                if self._at >= len(self.urls):
                    break  # whatever else it unpacks to, nobody asked for it
        except Malformed as error:
            return CorruptBody(f"{self.what}: {error}", url=self.subject, status=200, attempts=self.attempts)
        except CorruptShard:
            pass  # cut off: what came before it counts
        return None

    def _largest(self) -> int:
        """Bytes of the largest member that there can be."""
        sizes = [url.size for url in self.urls]
        return max(sizes) if min(sizes) >= 0 else most_in_memory()

    def _tail(self) -> list[BatchEntry]:
        """The last object again, as often as it takes to push it out of the cluster's buffer."""
        size = self.urls[-1].size
        if not self.form.arrives_member_by_member or not 0 <= size < 2 * _BUFFER_BYTES:
            return []
        in_archive = _TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK
        return [self._entries[-1]] * -(-_BUFFER_BYTES // in_archive)

    def _take(self, member: Member) -> None:
        # A missing object has another name (`wire.batch.MISSING`), so it is not taken.
        at = self._at
        if at < len(self.urls):
            data = member.data
            if member.name == self._names[at] and self.urls[at].size in (-1, len(data)):
                self._contents[at] = data
                self.held += len(data)
            self._at = at + 1

    def _try(self, origin: str | None, delay: float = 0.0) -> None:
        if self.form.arrives_member_by_member:
            self._parser = TarParser("answer", link_bytes=0)
            self.sink = self
        super()._try(origin, delay)

    def _again(self, error: StoreError, reply: Reply) -> None:
        silent = reply.failure is not None and reply.failure.kind == "timeout"
        if silent:
            self.cluster.rest_from_batches()
        if self._at or silent:
            self._end(None, error)  # what has come stays; the rest is asked for object by object
        else:
            super()._again(error, reply)

    def _end(self, reply: Reply | None, error: StoreError | None) -> None:
        super()._end(reply, error)
        self._tell_consumer()

    def _tell_consumer(self) -> None:
        if self._waiting:
            with self._news:
                self._waiting = False
                self._news.notify_all()
