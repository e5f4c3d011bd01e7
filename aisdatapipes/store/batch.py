"""One get-batch: many objects in one request, of which any may be missing from the answer.

The format is that of ``/v1/ml/moss`` (`wire.batch`). The answer begins before the cluster knows what it can read, so
its status says nothing: members are counted, and their names compared. What is missing, misplaced or cut off is left
``None`` for the caller to ask for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aisdatapipes.model.errors import CorruptBody, CorruptShard, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.batch import BatchEntry, BatchRequest, decoded_reply, encoded_request, member_name
from aisdatapipes.wire.malformed import Malformed

_NO_SUCH_PATH = frozenset((404, 405, 501))  # what servers answer that do not know it


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


class BatchRead(Exchange):
    """One get-batch; when it has ended, ``contents`` has bytes or None for each URL.

    Args:
        cluster: Where all the objects are.
        urls: The objects, at least one.
        form: How the answer is packed.
    """

    __slots__ = ("contents", "form", "held", "urls")

    def __init__(self, cluster: Cluster, urls: Sequence[AISURL], form: BatchForm) -> None:
        shown = f"{urls[0]} and {len(urls) - 1} more" if len(urls) > 1 else urls[0]
        super().__init__(cluster, shown, "/v1/ml/moss?provider=ais", "cannot read by get-batch")
        self.urls, self.form = urls, form
        self.contents: list[bytes | None] = [None] * len(urls)
        self.held = 0
        self.headers = ("Content-Type: application/json",)
        self.body = encoded_request(
            BatchRequest(
                tuple(self._entry(url) for url in urls),
                mime=form.mime, streaming=form.streaming, colocation=form.colocation,
            )
        )  # fmt: skip

    @property
    def cost(self) -> int:
        """Bytes of all objects; -1 when the size of one is not known."""
        sizes = [url.size for url in self.urls]
        return -1 if min(sizes) < 0 else sum(sizes)

    @property
    def unknown_to_the_server(self) -> bool:
        """True where the endpoint itself does not know get-batch; once redirected, a 404 means a lost batch."""
        return self.error is not None and self.error.status in _NO_SUCH_PATH and not self.redirects

    def accept(self, reply: Reply) -> StoreError | None:
        """Take the members out of the archive, as far as it goes."""
        try:
            archive = reply.body
            if not self.form.streaming:
                archive = decoded_reply(archive, reply.header("Content-Type") or "").archive
            self._take(archive)
        except Malformed as error:
            return CorruptBody(f"{self.what}: {error}", url=self.subject, status=200, attempts=self.attempts)
        return None

    def _take(self, archive: bytes) -> None:
        # A missing object has another name (`wire.batch.MISSING`), so it is not taken.
        names = [member_name(self._entry(url), only_names=False) for url in self.urls]
        at = 0
        try:
            for member in opened([archive], f"answer{self.form.mime}"):
                if at < len(names) and member.name == names[at]:
                    self.contents[at] = member.data
                    self.held += len(member.data)
                at += 1
        except CorruptShard:
            pass  # cut off: what came before it counts

    @staticmethod
    def _entry(url: AISURL) -> BatchEntry:
        return BatchEntry(url.bucket, url.provider, url.name, namespace=url.namespace)
