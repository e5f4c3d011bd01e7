"""The index of a shard, made by reading its headers: small members are streamed, large ones passed over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from aisdatapipes.model.errors import AISPipeError, ConfigError, CorruptBody, CorruptShard, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.wire.archive import kind
from aisdatapipes.wire.shardindex import MAX_MEMBERS, ShardIndex
from aisdatapipes.wire.tar_places import Place, PlaceParser

FIRST_BYTES = 16 << 10  # of a shard, and behind every member that was passed over
LARGEST_BYTES = 4 << 20  # read at a time where nothing is passed over
# A request costs about what it costs to receive so many bytes.
WORTH_PASSING_OVER = 256 << 10
_GROWTH = 4


def first_part(cluster: Cluster, url: AISURL, owner: str | None) -> PartInPieces:
    """The read with which a pass begins; it also tells size and version of the shard."""
    return PartInPieces(cluster, url, owner, 0, FIRST_BYTES)


def checksum_in(part: PartInPieces) -> str:
    """The shard's checksum, of whichever kind, as it came with a part; empty where the cluster keeps none."""
    return part.version.partition("/")[0]


class HeaderPass:
    """One pass over the headers of a shard; a job of a window. When it has ended, `index` gives the result.

    Args:
        first: What `first_part` read; it has ended.
    """

    early = False
    weight = 1
    waited_s = 0.0
    cost = room = LARGEST_BYTES
    outgrown = False

    def __init__(self, first: PartInPieces) -> None:
        self.error: StoreError | None = None
        self.url = first.url
        self.attempts = self.retries = self.held = 0
        self._first = first
        self._version, self._size = first.version, first.total
        self._parser = PlaceParser(first.url)
        self._places: list[Place] = []
        self._bad: AISPipeError | None = None
        self._length = FIRST_BYTES
        self._lock = threading.RLock()  # the collector may cancel this while it is held
        self._part: PartInPieces | None = None
        self._cancelled = False

    def index(self) -> ShardIndex:
        """The index; raises ``CorruptShard``, ``StoreError``, and ``ConfigError`` for what is no plain tar."""
        if self.error is not None:
            raise self.error
        if self._bad is not None:
            raise self._bad
        entries = ((name.encode("utf-8", "surrogateescape"), at, size) for name, at, size in self._places)
        return ShardIndex.of(entries, checksum_in(self._first), self._size)

    def start(self, done: Callable[[Any], None]) -> None:
        """Begin; ``done`` is called once."""
        self._done = done
        self._take(self._first)

    def cancel(self) -> None:
        """Stop; idempotent."""
        with self._lock:
            self._cancelled = True
            part = self._part
        if part is not None:
            part.cancel()

    # ---- on the transport's thread, but for the first part

    def _arrived(self, part: PartInPieces) -> None:
        self.attempts += part.attempts
        self.retries += part.retries
        self._take(part)

    def _take(self, part: PartInPieces) -> None:
        try:
            following = self._read(part)
        except AISPipeError as error:
            self._end(error)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            self._end(AISPipeError(f"{self.url}: a defect in aisdatapipes, please report it: {error!r}"))
            return
        if following is None:
            self._end(None)
            return
        with self._lock:
            self._part = following
            cancelled = self._cancelled
        if not cancelled:
            following.start(self._arrived)

    def _read(self, part: PartInPieces) -> PartInPieces | None:
        """Read the headers in a part; the part to be read next, or None at the end."""
        if part.error is not None:
            raise _told(part.error, part)
        if part.version != self._version or part.total != self._size:
            text = part.why_another("it was overwritten while it was read")
            raise CorruptBody(f"cannot index: {text}", url=self.url, status=206, attempts=part.attempts)
        parser, data = self._parser, part.content()
        if part is self._first:
            _check_plain(kind(self.url, data), self.url)
        self._places += parser.places(data)
        if len(self._places) > MAX_MEMBERS:
            raise ConfigError(f"{self.url}: more than {MAX_MEMBERS} members cannot be indexed; use index='off'")
        here = part.start_at + len(data)
        if parser.wanted - here >= WORTH_PASSING_OVER:
            here, self._length = parser.pass_over(self._size), FIRST_BYTES
        else:
            self._length = min(self._length * _GROWTH, LARGEST_BYTES)
        if parser.at_garbage or here >= self._size:
            parser.close()
            return None
        length = min(self._length, self._size - here)
        return PartInPieces(part.cluster, self.url, part.owner, here, length)

    def _end(self, error: AISPipeError | None) -> None:
        if isinstance(error, StoreError):
            self.error = error
        else:
            self._bad = error
        self._done(self)


def _told(error: StoreError, part: PartInPieces) -> AISPipeError:
    """What the error means: an empty object has no bytes that could be asked for."""
    if error.status == 416 and part.start_at == 0:
        return CorruptShard("empty file", url=part.url)
    return error


def _check_plain(what: str, url: AISURL) -> None:
    if what != "tar":
        raise ConfigError(
            f"{url}: it is {what}, and only plain tars can be indexed; unpack it, or stream it: index='off'"
        )
