"""Reading a part of an object: bytes that are put where they belong as they come, and resumed where they broke off."""

from __future__ import annotations

from abc import abstractmethod

from aisdatapipes.model.errors import StoreError, Truncated
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.read import checksum_of, path_of, version_of
from aisdatapipes.store.transport import Reply


class Part(Exchange):
    """A range of an object; a subclass says where its bytes go.

    Args:
        cluster: Where the object is.
        url: The object.
        owner: As in `store.read.Read`.
        start: First byte.
        length: Bytes; fewer come where the object ends before.
        last: False for a part that others of the same object follow.
        path: Path and query of the object, where the caller has them already; else they are made.
    """

    __slots__ = ("_came", "_kept", "last", "length", "start_at", "total", "url", "version")

    def __init__(
        self,
        cluster: Cluster,
        url: AISURL,
        owner: str | None,
        start: int,
        length: int,
        *,
        last: bool = True,
        path: str = "",
    ) -> None:
        super().__init__(cluster, url, path or path_of(url), "cannot read", owner)
        self.url, self.start_at, self.length, self.last = url, start, length, last
        self._came = 0  # bytes that are there
        self._kept = 0  # of these, those that the current try began with
        self.total = -1  # bytes of the whole object
        self.version = ""  # changes when the object is overwritten

    @property
    def cost(self) -> int:
        """Bytes that it will occupy."""
        return self.length

    @property
    def held(self) -> int:
        """Bytes that it occupies."""
        return self._came if self.error is None else 0

    @abstractmethod
    def put(self, at: int, data: bytes) -> None:
        """Keep ``data``, which begins ``at`` bytes into the part; it may reach beyond its end."""

    def write(self, data: bytes) -> bool:
        """Take a piece: this is its `Sink`."""
        self.put(self._came, data)
        self._came += len(data)
        return True

    def keep(self, reply: Reply) -> None:
        """Keep what came of a body that broke off; the next try asks for the rest."""
        self._put_body(reply)
        version = version_of(reply)
        same = version in (self.version or version, "")
        self._kept = self._came if reply.status == 206 and version and same and self._came < self.length else 0
        self.version = version if self._kept else ""

    def accept(self, reply: Reply) -> StoreError | None:
        """None if all of the part is there."""
        self._put_body(reply)
        version, kept = version_of(reply), self._kept
        self.total = _total(reply)
        expected = min(self.length, self.total - self.start_at)
        if kept and version != self.version:
            return self._anew(reply, "it was overwritten while it was read")
        if reply.status != 206:
            return self._anew(reply, "asked for a part of it, the cluster sent everything")
        if self._came != expected:
            text = f"{self._came} bytes of the {expected} asked for, from byte {self.start_at} on"
            return self._anew(reply, text)
        self.version = version
        return None

    @property
    def checksum(self) -> str | None:
        """xxh64 of the whole object, as it came with the part; None where the cluster keeps another digest or none."""
        return None if self.reply is None else checksum_of(self.reply)

    def _put_body(self, reply: Reply) -> None:
        if self.sink is None:
            self.write(reply.body)

    def _anew(self, reply: Reply, text: str) -> Truncated:
        """Nothing of what came counts; the error that says why."""
        self._kept, self.version = 0, ""
        return Truncated(f"{self.what}: {text}", url=self.url, status=reply.status, attempts=self.attempts)

    def _try(self, origin: str | None, delay: float = 0.0) -> None:
        self._came = self._kept
        self.byte_range = (self.start_at + self._kept, self.start_at + self.length - 1)
        super()._try(origin, delay)


class PartInPieces(Part):
    """A part in the pieces in which its tries brought it: mostly one."""

    __slots__ = ("_pieces",)

    def __init__(
        self,
        cluster: Cluster,
        url: AISURL,
        owner: str | None,
        start: int,
        length: int,
        *,
        last: bool = True,
        path: str = "",
    ) -> None:
        super().__init__(cluster, url, owner, start, length, last=last, path=path)
        self._pieces: list[bytes] = []

    def put(self, at: int, data: bytes) -> None:
        """Keep a piece."""
        if at == 0:
            self._pieces = []  # a try that began anew
        self._pieces.append(data)

    def content(self) -> bytes:
        """The bytes."""
        return b"".join(self._pieces)  # of a single piece no copy


class PartInMemory(Part):
    """A part that is written into the memory of the whole.

    Attributes:
        memory: Where it belongs.
    """

    __slots__ = ("memory",)

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None, start: int, memory: memoryview) -> None:
        super().__init__(cluster, url, owner, start, len(memory))
        self.memory = memory
        self.sink = self

    def put(self, at: int, data: bytes) -> None:
        """Write a piece where it belongs."""
        end = min(at + len(data), self.length)
        self.memory[at:end] = data[: end - at]


def _total(reply: Reply) -> int:
    """Bytes of the whole object by ``Content-Range: bytes 0-9/100``."""
    total = (reply.header("Content-Range") or "").rpartition("/")[2]
    return int(total) if total.isdecimal() else -1
