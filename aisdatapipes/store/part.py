"""Reading a part of an object: bytes that are put where they belong as they come, and resumed where they broke off."""

from __future__ import annotations

from abc import abstractmethod

import xxhash

from aisdatapipes.model.errors import StoreError, Truncated
from aisdatapipes.model.url import AISURL
from aisdatapipes.store import answers
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.read import checksum_of, is_excess, path_of, version_of
from aisdatapipes.store.transport import Reply

_ERROR_BYTES = 64 << 10  # of an answer that is no part, such as an error
_SUMS_OF_RANGES = (
    "its bucket gives a checksum of each range instead of the whole, so nothing tells whether it was overwritten "
    "meanwhile; switch that off (the bucket's property checksum.enable_read_range)"
)


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
        self.listed = url.size >= 0
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

    @property
    def plain(self) -> bool:
        """A part is of what is stored."""
        return True

    @property
    def expected(self) -> int:
        """What is left of it."""
        return self.length - self._kept

    @property
    def most_bytes(self) -> int:
        """The part, or the words of an error."""
        return max(self.length, _ERROR_BYTES)

    def _refused(self, reply: Reply) -> None:
        if is_excess(reply):
            self._end(None, self._anew(reply, "asked for a part of it, the cluster sent more"))
        else:
            super()._refused(reply)

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
        first, self.total = answers.range_in(reply)
        if kept and version != self.version:
            return self._anew(reply, "it was overwritten while it was read")
        if reply.status != 206:
            return self._anew(reply, "asked for a part of it, the cluster sent everything")
        if first != self.start_at + kept:
            return self._anew(reply, "the answer does not tell which part it is, or is another one than was asked for")
        expected = min(self.length, self.total - self.start_at)
        if self._came != expected:
            text = f"{self._came} bytes of the {expected} asked for, from byte {self.start_at} on"
            return self._anew(reply, text)
        self.version = version
        return None

    @property
    def checksum(self) -> str | None:
        """xxh64 of the whole object, as it came with the part; None where the cluster keeps another digest or none."""
        return None if self.reply is None else checksum_of(self.reply)

    def why_another(self, otherwise: str) -> str:
        """Why this is of another version than a part before it; ``otherwise``, where nothing else explains it."""
        data = self._data()
        of_itself = len(data) < self.total and self.checksum == xxhash.xxh64_hexdigest(data)
        return _SUMS_OF_RANGES if of_itself else otherwise

    @abstractmethod
    def _data(self) -> bytes | memoryview:
        """What has come."""

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

    def _data(self) -> bytes:
        return self.content()


class PartInMemory(Part):
    """A part that is written into the memory of the whole: a `BufferedSink`.

    Attributes:
        memory: Where it belongs.
    """

    __slots__ = ("memory",)

    def __init__(self, cluster: Cluster, url: AISURL, owner: str | None, start: int, memory: memoryview) -> None:
        super().__init__(cluster, url, owner, start, len(memory))
        self.memory = memory
        self.sink = self

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong."""
        return self.memory[self._came :]

    def buffer_updated(self, size: int) -> None:
        """So many bytes were written there."""
        self._came += size

    def _data(self) -> memoryview:
        return self.memory[: self._came]

    def put(self, at: int, data: bytes) -> None:
        """Write a piece where it belongs."""
        end = max(at, min(at + len(data), self.length))  # more may come than was asked for
        self.memory[at:end] = data[: end - at]
