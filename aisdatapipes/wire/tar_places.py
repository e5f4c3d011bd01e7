"""Where the members of a tar are: the archive read by its headers alone, so that whoever has it can pass over the data.

Headers are read by `aisdatapipes.wire.tar`, so names, sizes, links and what is an error are the same as there. One
thing is more: a hard link may point to any member before it, for nothing of that has to be kept but its place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire.tar import TarParser
from aisdatapipes.wire.tar_header import BLOCK, text


class Place(NamedTuple):
    """Where one member is.

    Attributes:
        name, offset: As in `wire.tar.Member`.
        size: Bytes of its data.
    """

    name: str
    offset: int
    size: int


class PlaceParser(TarParser):
    """The places of the members of one tar archive, out of those pieces of it in which headers are.

    Args:
        shard: Name or URL for messages.
        start: Byte of the archive with which the first piece begins: that of a header.

    Memory: the names and places so far.

    >>> from aisdatapipes.wire.tar import END, entry
    >>> archive = entry("a.txt", bytes(5000)) + entry("b.txt", b"B") + END
    >>> parser = PlaceParser("a.tar")
    >>> parser.places(archive[:512]), parser.pass_over()
    ([Place(name='a.txt', offset=0, size=5000)], 5632)
    >>> parser.places(archive[5632:])
    [Place(name='b.txt', offset=5632, size=1)]
    """

    __slots__ = ("_found",)

    def __init__(self, shard: str, start: int = 0) -> None:
        super().__init__(shard, start=start)
        self._found: dict[str, Place | None] = {}  # None is a symbolic link, a folder and the like

    @property
    def wanted(self) -> int:
        """The byte of the archive that is to be looked at next."""
        return self._offset + self._skip

    @property
    def at_garbage(self) -> bool:
        """Whether the archive has ended, and what follows is none."""
        return self._garbage

    @property
    def renames(self) -> bool:
        """Whether a global header changes the names or sizes of what follows."""
        return bool(self._global)

    def places(self, chunk: bytes) -> list[Place]:
        """All members whose headers are complete with this piece, in archive order; raises as `feed` does."""
        found: list[Any] = self.feed(chunk)
        return found

    def pass_over(self, end: int | None = None) -> int:
        """Leave out the bytes up to `wanted`, or to the ``end`` of the archive; the answer is where that is."""
        stop = self.wanted if end is None else min(self.wanted, end)
        self._skip -= stop - self._offset
        self._offset = stop
        return stop

    def _opened(self, block: bytes, offset: int, done: list[Any]) -> bool:
        if not super()._opened(block, offset, done):
            return False
        if not self._is_regular():
            return True  # the payload of an extended header
        place = Place(text(self._name), self._at, self._size)
        done.append(place)
        self._found[place.name] = place
        self._skip = self._size + -self._size % BLOCK
        return False

    def _linked(self, target: bytes, done: list[Any]) -> None:
        name, wanted = text(self._name), text(target)
        if wanted not in self._found:
            raise ValueError(f"it is a hard link to {wanted!r}, which is not before it")
        place = self._found[wanted]
        if place is not None:
            place = Place(name, place.offset, place.size)
            done.append(place)
        self._found[name] = place

    def _remember(self, name: str, member: Any) -> None:
        self._found[name] = member

    def _cut(self) -> str | None:
        lacking = self._skip - (-self._size % BLOCK)
        if self._skip and lacking > 0:
            return f"truncated: {self._size - lacking} of {self._size} bytes are there"
        return super()._cut()


def is_nothing_but(data: bytes, start: int, following: Place | None) -> bool:
    """Whether bytes between two members hold no member: only folders, symbolic links, or what belongs to the next one.

    Args:
        data: The bytes, and where a member follows, its header.
        start: Where they begin in the archive.
        following: The member; None at the end of the archive, where nothing but its end may be.
    """
    parser = PlaceParser("", start)
    try:
        found = parser.places(data)
        if following is not None:
            return found == [following] and not parser.renames
        parser.close()
    except CorruptShard:
        return False
    return not found
