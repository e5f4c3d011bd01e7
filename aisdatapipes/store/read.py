"""Reading one object: the job that windows carry.

The form of the request and of its answer is that of AIStore's object API (``docs/http_api.md``): ``provider``,
``namespace`` and ``etl_name`` in the query; ``Ais-Checksum-Value`` is the xxh64 (seed 0) of the whole object, also on
the answer to a range.
"""

from __future__ import annotations

from urllib.parse import quote

import xxhash

from aisdatapipes.model.errors import CorruptBody, StoreError, Truncated
from aisdatapipes.model.url import AISURL, object_path
from aisdatapipes.store import answers
from aisdatapipes.store.ceiling import SLACK_BYTES, most_in_memory
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply


class Read(Exchange):
    """One read; when it has ended, ``data`` is there, or ``error``.

    A body that breaks off is resumed where it broke, if it is still the same version of the object.

    Args:
        cluster: Where the object is.
        url: The object.
        owner: Origin of the target that should have it (`Cluster.owners_of`); None asks the endpoint.
        verify: Compare the object with the checksum that comes with it.
    """

    __slots__ = ("_kept", "_kept_version", "data", "url", "verify")

    last_index = 0  # of its contents
    last = True  # there are no parts of it

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None = None, *, verify: bool = True) -> None:
        super().__init__(cluster, url, path_of(url), "cannot read", owner)
        self.url, self.verify = url, verify
        self.listed = url.size >= 0
        self.data = b""
        self._kept = b""  # the beginning of a body that broke off
        self._kept_version = ""

    def content(self, _index: int = 0) -> bytes | None:
        """The bytes, once it has ended; None where there is an error."""
        return self.data if self.error is None else None

    @property
    def cost(self) -> int:
        """Bytes that it will occupy; -1 when nobody knows."""
        return -1 if self.url.etl_name else self.url.size

    @property
    def held(self) -> int:
        """Bytes that it occupies."""
        return len(self.data)

    @property
    def plain(self) -> bool:
        """Of an ETL nobody knows how much it will send."""
        return not self.url.etl_name

    @property
    def expected(self) -> int:
        """What the listing told, or what is left of it."""
        return -1 if self.cost < 0 else max(0, self.cost - len(self._kept))

    @property
    def most_bytes(self) -> int:
        """What its window keeps for it, or the size that the listing told, and some more; alone, what there is."""
        expected = max(self.room, self.cost)
        most = most_in_memory() if expected < 0 else min(expected + SLACK_BYTES, most_in_memory())
        return max(1, most - len(self._kept))

    def keep(self, reply: Reply) -> None:
        """Keep what came of a body that broke off, and ask for the rest in the next try."""
        version = version_of(reply)
        continues = reply.status == (206 if self._kept else 200)
        if not version or not continues or self.url.etl_name:
            return  # whether a part can be asked for is not known
        if self._kept and version != self._kept_version:
            self._ask_anew()
            return
        self._kept, self._kept_version = self._kept + reply.body, version
        self.byte_range = (len(self._kept), None)

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the bytes are all there and the promised ones."""
        body = reply.body
        if self._kept:
            if version_of(reply) != self._kept_version or reply.status != 206:
                return self._corrupt(reply, "it was overwritten while it was read")
            if answers.range_in(reply)[0] != len(self._kept):
                return self._corrupt(reply, "the answer is another part of it than was asked for")
            body = self._kept + body
        promised = checksum_of(reply)
        if not (promised or len(body) == self.url.size or _tells_its_length(reply)):
            self._ask_anew()
            text = f"{self.what}: the answer does not tell its length, so nobody knows whether this is all"
            return Truncated(text, url=self.url, status=reply.status, attempts=self.attempts)
        if self.verify and promised:
            found = xxhash.xxh64_hexdigest(body)
            if found != promised:
                return self._corrupt(reply, f"the content's xxh64 is {found}, the cluster promised {promised}")
        self.data = body
        return None

    def _refused(self, reply: Reply) -> None:
        # Alone it could have all that there is room for: then that was too much. And only an ETL does not know in
        # advance how much it will send.
        told = bool(self.url.etl_name) or reply.header("Content-Length") is not None
        self.outgrown = is_excess(reply) and reply.status == 200 and told and max(self.room, self.cost) >= 0
        if reply.status == 416 and self._kept:
            self._again(self._corrupt(reply, "it ends before the length that was promised"), reply)
        else:
            super()._refused(reply)

    def _ask_anew(self) -> None:
        """Of what was kept nothing counts: the next try asks for everything."""
        self._kept, self._kept_version, self.byte_range = b"", "", None

    def _corrupt(self, reply: Reply, text: str) -> CorruptBody:
        self._ask_anew()
        return CorruptBody(f"{self.what}: {text}", url=self.url, status=reply.status, attempts=self.attempts)


def taken_alone(read: Read) -> Read:
    """The read, ended; where the object is larger than was expected, another one that takes it without a window.

    So what is under way at the same time keeps within its bytes, whatever an object has become since it was listed,
    and whatever answers come without end.
    """
    if not read.outgrown:
        return read
    url = read.url
    unsized = AISURL.make(
        url, url.provider, url.bucket, url.name, namespace=url.namespace, endpoint=url.endpoint, etl_name=url.etl_name
    )
    alone = Read(read.cluster, unsized, *read.cluster.owners_of([unsized]), verify=read.verify)
    alone.begin()
    alone.wait_for_end()
    return alone


def is_excess(reply: Reply) -> bool:
    """Whether an answer was given up for its length."""
    return reply.failure is not None and reply.failure.kind == "excess"


def _tells_its_length(reply: Reply) -> bool:
    """False for an answer that ends where the connection does, as one that broke off."""
    return reply.header("Content-Length") is not None or reply.header("Transfer-Encoding") is not None


def version_of(reply: Reply) -> str:
    """What tells two versions of an object apart; empty where the cluster tells nothing."""
    checksum, number = reply.header("Ais-Checksum-Value"), reply.header("Ais-Version")
    return f"{checksum}/{number}" if checksum or number else ""


def checksum_of(reply: Reply) -> str | None:
    """xxh64 of the whole object; None where the cluster keeps another digest or none."""
    return reply.header("Ais-Checksum-Value") if reply.header("Ais-Checksum-Type") == "xxhash2" else None


def path_of(url: AISURL) -> str:
    """Path and query of an object."""
    parts = [f"provider={url.provider}"]
    if url.namespace:
        parts.append(f"namespace={quote(url.namespace, safe='')}")
    if url.etl_name:
        parts.append(f"etl_name={quote(url.etl_name, safe='')}")
    return f"{object_path(url.bucket, url.name)}?{'&'.join(parts)}"
