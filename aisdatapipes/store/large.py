"""Reading one large object in parts, several at a time, into one piece of memory.

All parts are of one version: where the object is overwritten meanwhile, it is read anew. The checksum that comes with
every part is that of the whole; it is computed along, part by part, as far as there are no gaps.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import xxhash

from aisdatapipes.model.errors import CorruptBody, StoreError, Truncated
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.pages import SizeRead
from aisdatapipes.store.read import checksum_of, path_of, total_of, version_of
from aisdatapipes.store.transport import Reply

# More connections than that bring nothing even where each is slow (benchmarks/large.py).
PARTS_AT_ONCE = 16
# How often an object is read that is overwritten meanwhile, or comes out wrong.
_TIMES = 4


class LargeRead:
    """One large object; a job of a window. When it has ended, `content` gives its bytes, or there is an ``error``.

    Args:
        cluster: Where the object is.
        url: The object; its size is known.
        owner: As in `Read`.
        part_bytes: Bytes of one part.
        width: Parts under way at the same time, at most; also the weight of the job.
        verify: Compare the whole with the checksum that comes with it.
    """

    early = False
    last_index = 0  # of its contents

    def __init__(
        self, cluster: Cluster, url: AISURL, owner: str | None, *, part_bytes: int, width: int, verify: bool
    ) -> None:
        self.cluster, self.url, self.owner = cluster, url, owner
        self._part_bytes, self._verify = part_bytes, verify
        self.weight = max(1, min(width, PARTS_AT_ONCE, -(-url.size // part_bytes)))
        self.error: StoreError | None = None
        self.attempts = self.retries = 0
        self.cost = url.size
        self._times = 0
        self._lock = threading.Lock()  # the consumer may cancel while the transport's thread goes on
        self._cancelled = False
        self._parts: list[_Part] = []

    @property
    def held(self) -> int:
        """Bytes that it occupies."""
        return 0 if self.error is not None else self._size

    def start(self, done: Callable[[Any], None]) -> None:
        """Begin; ``done`` is called once."""
        self._done = done
        self._begin(self.url.size)

    def cancel(self) -> None:
        """Stop; idempotent."""
        with self._lock:
            self._cancelled = True
            parts = self._parts
        for part in parts:
            part.cancel()

    def content(self, _index: int = 0) -> bytes | None:
        """The bytes, without a copy, once it has ended; None where there is an error."""
        return self._file.getvalue() if self.error is None else None

    # ---- on the transport's thread

    def _begin(self, size: int) -> None:
        """Ask for the first parts of an object of this size."""
        self._times += 1
        self._size = size
        # The one way to make `bytes` whose memory can be written to before: the zeros are the file's own, untouched
        # memory of the system, and `getvalue` hands them on as they are (both without a copy, in CPython).
        self._file = io.BytesIO(bytes(size))
        self._memory = self._file.getbuffer()
        self._version: str | None = None
        self._checksum: str | None = None
        self._next = self._left = 0  # the part to be asked for next; parts that are under way
        self._hash, self._hashed = xxhash.xxh64(), 0  # of the parts from the first one to the first gap
        starts = range(0, size, self._part_bytes)
        with self._lock:
            self._parts = [_Part(self, self._memory[at : at + self._part_bytes], at) for at in starts]
        for _ in range(self.weight):
            self._ask_next()
        if not starts:
            self._end(None)

    def _ask_next(self) -> None:
        if self._next < len(self._parts) and not self._cancelled:
            part = self._parts[self._next]
            self._next += 1
            self._left += 1
            part.start(self._arrived)

    def _arrived(self, part: _Part) -> None:
        self.attempts += part.attempts
        self.retries += part.retries
        if part not in self._parts:
            return  # of an earlier beginning, or there is nobody any more who wants it
        self._left -= 1
        part.there = True
        if part.outdated(self._size, self._version):
            self._begin_anew("the object was overwritten again and again while it was read")
        elif part.error is not None:
            self._end(part.error)
        else:
            self._version, self._checksum = part.version, part.checksum
            self._hash_on()
            self._ask_next()
            if not self._left:
                self._complete()

    def _begin_anew(self, why: str) -> None:
        self._forget_parts()
        if self._times >= _TIMES:
            self._end(CorruptBody(f"cannot read: {why}", url=self.url, status=206, attempts=self.attempts))
        else:
            SizeRead(self.cluster, self.url).start(self._sized)

    def _sized(self, read: SizeRead) -> None:
        if read.error is not None:
            self._end(read.error)
        else:
            self._begin(read.size)

    def _forget_parts(self) -> None:
        with self._lock:
            parts, self._parts = self._parts, []
        for part in parts:
            part.cancel()

    def _hash_on(self) -> None:
        while self._verify and self._hashed < len(self._parts) and self._parts[self._hashed].there:
            self._hash.update(self._parts[self._hashed].memory)
            self._hashed += 1

    def _complete(self) -> None:
        found, promised = self._hash.hexdigest(), self._checksum
        if self._verify and promised not in (None, found):
            self._begin_anew(f"the content's xxh64 is {found}, the cluster promised {promised}")
        else:
            self._end(None)

    def _end(self, error: StoreError | None) -> None:
        self.error = error
        self._forget_parts()
        self._done(self)


class _Part(Exchange):
    """A part, written where it belongs as it arrives, and resumed where it broke off.

    Args:
        whole: What it is a part of.
        memory: Where it belongs.
        start: Its first byte in the object.
    """

    __slots__ = ("_came", "_kept", "_start", "checksum", "memory", "there", "total", "version")

    def __init__(self, whole: LargeRead, memory: memoryview, start: int) -> None:
        super().__init__(whole.cluster, whole.url, path_of(whole.url), "cannot read", whole.owner)
        self.memory, self._start = memory, start
        self._came = self._kept = 0  # bytes that this try has brought so far, after those that it began with
        self.there = False
        self.total = -1  # bytes of the whole object
        self.version = ""
        self.checksum: str | None = None
        self.sink = self
        self.byte_range = self._missing()

    def outdated(self, size: int, version: str | None) -> bool:
        """True where it is not of the object that its whole is read as: another size, another version, or no more."""
        if self.error is not None:
            return self.error.status == 416  # the object ends before it
        return self.total != size or version not in (None, self.version)

    def write(self, data: bytes) -> bool:
        """Take a piece: this is its `Sink`."""
        room = self.memory[self._came : self._came + len(data)]
        room[:] = data[: len(room)]
        self._came += len(data)
        return True

    def keep(self, reply: Reply) -> None:
        """Keep what came of a body that broke off, and ask for the rest in the next try."""
        version = version_of(reply)
        same = reply.status == 206 and version and version == (self.version or version)
        self.version = version if same else ""
        self._kept = min(self._came, len(self.memory) - 1) if same else 0

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the part is there; one of another version of the object is for the whole to see."""
        version, kept = version_of(reply), self._kept
        self.total = total_of(reply)
        if kept and version != self.version:
            self._kept = 0
            return self._short(reply, "it was overwritten while it was read")
        self.version = version
        self.checksum = checksum_of(reply)
        expected = min(len(self.memory), self.total - self._start)
        if reply.status != 206 or self._came != expected:
            self._kept = 0
            return self._short(reply, f"{self._came} bytes of the {expected} asked for, from byte {self._start} on")
        return None

    def _try(self, origin: str | None, delay: float = 0.0) -> None:
        self._came = self._kept
        self.byte_range = self._missing()
        super()._try(origin, delay)

    def _missing(self) -> tuple[int, int]:
        return self._start + self._kept, self._start + len(self.memory) - 1

    def _short(self, reply: Reply, text: str) -> Truncated:
        return Truncated(f"{self.what}: {text}", url=self.subject, status=reply.status, attempts=self.attempts)
