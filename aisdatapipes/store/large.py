"""Reading one large object in parts, several at a time, into one piece of memory.

All parts are of one version: where the object is overwritten meanwhile, it is read anew; where the cluster keeps
neither versions nor checksums, so that nothing tells, it is read by one request. The checksum that comes with
every part is that of the whole; it is computed along, part by part, as far as there are no gaps.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import xxhash

from aisdatapipes.model.errors import CorruptBody, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.pages import SizeRead
from aisdatapipes.store.part import PartInMemory
from aisdatapipes.store.read import Read

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
        as_view: The content is a memoryview instead of bytes, which is faster.
    """

    early = False
    last_index = 0  # of its contents
    waited_s = 0.0
    outgrown = False
    room = -1

    def __init__(
        self,
        cluster: Cluster,
        url: AISURL,
        owner: str | None,
        *,
        part_bytes: int,
        width: int,
        verify: bool,
        as_view: bool = False,
    ) -> None:
        self.cluster, self.url, self.owner = cluster, url, owner
        self._part_bytes, self._verify, self._as_view = part_bytes, verify, as_view
        self.weight = max(1, min(width, PARTS_AT_ONCE, -(-url.size // part_bytes)))
        self.error: StoreError | None = None
        self.attempts = self.retries = 0
        self.cost = url.size
        self._times = self._size = 0
        self._lock = threading.RLock()  # the collector may cancel this while it is held
        self._cancelled = False
        self._parts: list[PartInMemory] = []  # of the present beginning
        self._whole: Read | None = None  # in their place
        self._unasked: deque[PartInMemory] = deque()

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
            under_way = [*self._parts, *([self._whole] if self._whole is not None else [])]
        for read in under_way:
            read.cancel()

    def content(self, _index: int = 0) -> bytes | memoryview | None:
        """The bytes, without a copy, once it has ended; None where there is an error."""
        return self._give() if self.error is None else None

    # ---- on the transport's thread

    def _begin(self, size: int) -> None:
        """Ask for the first parts of an object of this size."""
        if size > most_in_memory():
            text = f"cannot read: {size:,} bytes do not fit in the memory of this machine"
            self._end(StoreError(text, url=self.url, attempts=self.attempts))
            return
        memory, give = _memory(size, as_view=self._as_view)
        starts = range(0, size, self._part_bytes)
        with self._lock:
            self._times += 1
            self._size, self._give = size, give
            self._version: str | None = None
            self._checksum: str | None = None
            self._parts = [
                PartInMemory(self.cluster, self.url, self.owner, at, memory[at : at + self._part_bytes])
                for at in starts
            ]
            self._unasked = deque(self._parts)
            self._there: set[PartInMemory] = set()
            self._hash, self._hashed = xxhash.xxh64(), 0  # of the parts from the first one to the first gap
        for _ in range(self.weight):
            self._ask_next()
        if not starts:
            self._end(None)

    def _ask_next(self) -> None:
        with self._lock:
            part = self._unasked.popleft() if self._unasked and not self._cancelled else None
        if part is not None:
            part.start(self._arrived)

    def _arrived(self, part: PartInMemory) -> None:
        with self._lock:  # a transport may have several threads
            self.attempts += part.attempts
            self.retries += part.retries
            if part not in self._parts:
                return  # of an earlier beginning, or there is nobody any more who wants it
            untold = part.error is None and not part.version and len(self._parts) > 1
            outdated = not untold and self._outdated(part)
            if not untold and not outdated and part.error is None:
                self._version, self._checksum = part.version, part.checksum
                self._there.add(part)
                self._hash_on()
            complete = len(self._there) == len(self._parts)
            others = self._forget_parts() if untold or outdated or complete or part.error is not None else []
        for other in others:
            other.cancel()
        if untold:
            self._read_whole()
        elif outdated:
            self._begin_anew(part.why_another("the object was overwritten again and again while it was read"))
        elif part.error is not None:
            self._end(part.error)
        elif complete:
            self._complete()
        else:
            self._ask_next()

    def _outdated(self, part: PartInMemory) -> bool:
        """True for a part that is not of the object that is being read: another size, another version, or no more."""
        if part.error is not None:
            return part.error.status == 416  # the object ends before it
        return part.total != self._size or self._version not in (None, part.version)

    def _read_whole(self) -> None:
        read = Read(self.cluster, self.url, self.owner, verify=self._verify)
        with self._lock:
            if self._cancelled:
                return
            self._give, self._whole = bytes, read  # lets go of the memory of the parts
        read.start(self._whole_is_there)

    def _whole_is_there(self, read: Read) -> None:
        self.attempts += read.attempts
        self.retries += read.retries
        data, self._size = read.data, len(read.data)
        self._give = lambda: memoryview(data) if self._as_view else data
        self._whole = None  # it knows this, and the content is not to wait for the collector
        self._end(read.error)

    def _begin_anew(self, why: str) -> None:
        if self._times >= _TIMES:
            self._end(CorruptBody(f"cannot read: {why}", url=self.url, status=206, attempts=self.attempts))
        else:
            SizeRead(self.cluster, self.url).start(self._sized)

    def _sized(self, read: SizeRead) -> None:
        if read.error is not None:
            self._end(read.error)
        else:
            self._begin(read.size)

    def _forget_parts(self) -> list[PartInMemory]:
        parts, self._parts = self._parts, []
        self._unasked.clear()
        return [part for part in parts if part not in self._there]

    def _hash_on(self) -> None:
        while self._verify and self._hashed < len(self._parts) and self._parts[self._hashed] in self._there:
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
        self._there = set()
        self._done(self)


def _memory(size: int, *, as_view: bool) -> tuple[memoryview, Callable[[], bytes | memoryview]]:
    """Where to write, and how to get all of it in the end: `bytes` that can be written to, those of a file in memory.

    In CPython the zeros are memory that the system has not touched yet, the file takes them without a copy, and gives
    them back without one. No huge pages are asked for, as numpy does: where the system has none at hand, making them
    takes longer than they spare (`benchmarks/large.py`).
    """
    file = io.BytesIO(bytes(size))
    memory = file.getbuffer()
    return memory, memory.toreadonly if as_view else file.getvalue
