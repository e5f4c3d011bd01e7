"""The members of a tar archive while it arrives.

Read are ustar, v7, GNU and pax archives; a hard link is the member it points to, and folders, symbolic links,
devices and pipes are passed over, as WebDataset does. What cannot be read as it was meant is an error, never
left out: sparse members, archives over several volumes, unknown types, and a second archive behind the first,
which ``tar`` would ignore. Other bytes behind the end are ignored.

Errors come after every member that was complete before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire.payload import Payload
from aisdatapipes.wire.tar_header import (
    ANY_SIZE,
    BLOCK,
    END,
    ZEROS,
    check_room,
    checked_size,
    entry,
    link_name,
    parsed,
    pax_records,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["END", "Member", "TarParser", "entry", "members"]

# Payload of one pax or long-name header; the same limit as Go's archive/tar.
MAX_HEADER_BYTES = 1 << 20
# Members that a hard link may point to: the last ones, LINK_BYTES of the archive altogether, none larger than
# LINK_MEMBER_BYTES. A target that is linked to again and again stays: a label file shared by a whole class.
LINK_BYTES = 8 << 20
LINK_MEMBER_BYTES = 1 << 20
_REGULAR = b"0\x007"  # file, file of a v7 archive, "contiguous" file
_LINK = ord("1")
_WITHOUT_DATA = b"23456"  # symbolic link, character and block device, folder, pipe
_EXTENDED = b"xXgLK"  # pax (also Solaris), pax global, GNU long name, GNU long link
_PASSED_OVER = b"DV"  # GNU: a folder's listing, a volume's label
_ADVICE = {
    ord("S"): "it is sparse; pack it without --sparse",
    ord("M"): "it continues another volume; join the volumes first",
}
_REMEMBERED = ("path", "size", "linkpath")  # the pax keys that matter here
_HEADER = ""  # no pax key: there was a header, whatever it said, and its member has to follow


class Member(NamedTuple):
    """One file of an archive.

    Attributes:
        name: As it stands in the archive, ``./`` included; bytes that are no UTF-8 as ``surrogateescape``.
        data: The content.
        offset: Bytes from the start of the (uncompressed) tar to the 512-byte header right before the data,
            which begin at ``offset + 512``. That of a hard link is the offset of the member it points to.
        end: The byte behind the member and its padding, where a parser may begin anew (``start``); -1 where none
            may, because what follows can need what was before it: behind a hard link, or a global header that names.
    """

    name: str
    data: bytes
    offset: int
    end: int = -1


class Unlinked(CorruptShard):
    """A hard link to a member before the byte at which the parser began: the archive is to be read from its start."""


class _Before(ValueError):
    """What `Unlinked` says, without the place."""


class TarParser:
    """The members of one tar archive, out of the pieces in which it arrives.

    Args:
        shard: Name or URL for messages.
        link_bytes: Bytes of the archive that are kept, so that a hard link finds its target; 0 keeps nothing,
            for archives that have no links (the answer to a get-batch).
        start: The byte of the archive with which the first piece begins: 0, or the ``end`` of a member.
        tied: Whether no member has an ``end``: what arrives is not what is stored.
        member_bytes: Of one member, at most; a larger one is an error before its data are collected.

    Memory: the member that is arriving, the piece, and ``link_bytes``.

    >>> parser = TarParser("a.tar")
    >>> archive = entry("a.txt", b"A") + END
    >>> [member for at in (0, 700) for member in parser.feed(archive[at : at + 700])]
    [Member(name='a.txt', data=b'A', offset=0, end=1024)]
    >>> parser.close()
    """

    # fmt: off
    __slots__ = (
        "_at", "_broken", "_garbage", "_global", "_kept_bytes", "_kind", "_link_bytes", "_missing", "_most", "_name",
        "_offset", "_older", "_own", "_partial", "_payload", "_recent", "_size", "_skip", "_start", "_tied", "_turn_at",
        "_zero_blocks", "shard", "unterminated",
    )
    # fmt: on

    def __init__(
        self, shard: str, *, link_bytes: int = LINK_BYTES, start: int = 0, tied: bool = False,
        member_bytes: int = ANY_SIZE,
    ) -> None:  # fmt: skip
        self.shard = shard
        self.unterminated = False
        self._start, self._tied, self._most = start, tied, member_bytes
        self._offset = start  # bytes of the archive that came in, or were left out before
        self._broken: CorruptShard | None = None
        self._zero_blocks = 0
        self._garbage = False
        # The entry that is open: its header's offset, name, type, size, and what of its payload is there.
        self._at, self._name, self._kind, self._size = 0, b"", 0, 0
        self._payload = Payload()
        self._missing = 0
        self._skip = 0  # bytes of padding and of payloads that nobody wants
        self._partial = b""  # of a header
        self._own: dict[str, bytes] = {}  # what extended headers say of the next member,
        self._global: dict[str, bytes] = {}  # and of all further ones
        # Two generations of what hard links may point to, so that a member costs one assignment and hardly
        # any bookkeeping; None is a symbolic link, a folder and the like.
        self._link_bytes = link_bytes
        self._kept_bytes = LINK_MEMBER_BYTES if link_bytes else -1
        self._recent: dict[str, Member | None] = {}
        self._older: dict[str, Member | None] = {}
        self._turn_at = link_bytes // 2  # where the next generation begins, by the archive's own bytes

    @property
    def ended(self) -> bool:
        """Whether the two zero blocks that end an archive were seen."""
        return self._zero_blocks == 2

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[Member]:
        """All members that are complete with this piece, in archive order.

        Raises: ``CorruptShard``; with the next call (or ``close``) when this one has members to hand out.
        """
        if self._broken is not None:
            raise self._broken
        if not isinstance(chunk, bytes):
            chunk = bytes(chunk)
        done: list[Member] = []
        try:
            self._read(chunk, done)
        except ValueError as cause:
            self._broken = self._corrupt(str(cause), Unlinked if isinstance(cause, _Before) else CorruptShard)
            if not done:
                raise self._broken from None
        return done

    def close(self) -> None:
        """Nothing, when the archive is complete.

        ``unterminated`` is True afterwards when all members are whole, but the two zero blocks that end an
        archive are not: whether this is the end, only the length of the body can tell.

        Raises: ``CorruptShard`` when the archive stops anywhere else.
        """
        if self._broken is None and self._zero_blocks < 2:
            cut = self._cut()
            if cut is None:
                self.unterminated = True
            else:
                self._broken = self._corrupt(cut)
        if self._broken is not None:
            raise self._broken

    def _read(self, chunk: bytes, done: list[Member]) -> None:
        pos, end = 0, len(chunk)
        start = self._offset
        self._offset += end
        while pos < end and not self._garbage:
            if self._skip:
                step = min(self._skip, end - pos)
                self._skip -= step
                pos += step
                continue
            if self._missing:
                piece = chunk[pos : pos + self._missing]
                self._payload.add(piece, self._size)
                self._missing -= len(piece)
                pos += len(piece)
                if not self._missing:
                    self._complete(self._payload.taken(), done)
                continue
            if self._partial or end - pos < BLOCK:
                piece = chunk[pos : pos + BLOCK - len(self._partial)]
                self._partial += piece
                pos += len(piece)
                if len(self._partial) < BLOCK:
                    return
                block, self._partial = self._partial, b""
            else:
                block = chunk[pos : pos + BLOCK]
                pos += BLOCK
            if not self._opened(block, start + pos - BLOCK, done):
                continue
            stop = pos + self._size
            if stop <= end:
                self._complete(chunk[pos:stop], done)
            else:
                check_room(self._size, self._most)
                self._missing = stop - end
                if pos < end:
                    self._payload.add(chunk[pos:], self._size)
            pos = stop

    def _is_regular(self) -> bool:
        return self._kind in _REGULAR

    def _opened(self, block: bytes, offset: int, done: list[Member]) -> bool:
        """Whether the header has a payload that is wanted; ``_size`` is its length."""
        if block == ZEROS or self._zero_blocks:
            self._at_end(block, offset)
            return False
        self._at, self._name = offset, b""
        self._name, self._size, self._kind = parsed(block)
        if self._kind in _REGULAR and not self._own and not self._global:
            return self._kind != 0 or not self._passed_v7_folder()
        return self._opened_unusual(block, done)

    def _opened_unusual(self, block: bytes, done: list[Member]) -> bool:
        kind = self._kind
        if kind in _EXTENDED:
            if self._size > MAX_HEADER_BYTES:
                raise ValueError(f"an extended header of {self._size} bytes; {MAX_HEADER_BYTES} are allowed")
            return True
        said = {**self._global, **self._own}
        self._own = {}
        self._name = said.get("path") or self._name
        if said.get("size"):
            self._size = _decimal(said["size"])
        if "GNU.sparse" in said:
            raise ValueError(_ADVICE[ord("S")])
        if kind in _REGULAR:
            return kind != 0 or not self._passed_v7_folder()
        if kind == _LINK:
            self._linked(said.get("linkpath") or link_name(block), done)
        elif kind in _WITHOUT_DATA:
            self._remember(text(self._name), None)
        elif kind in _PASSED_OVER:
            self._skip = self._size + -self._size % BLOCK
        else:
            raise ValueError(_ADVICE.get(kind, f"its type {chr(kind)!r} is unknown; pack it as a plain file"))
        return False

    def _passed_v7_folder(self) -> bool:
        """Whether this is a folder of the time when tar had no type for it."""
        if not self._name.endswith(b"/"):
            return False
        self._skip = self._size + -self._size % BLOCK
        return True

    def _complete(self, payload: bytes, done: list[Member]) -> None:
        self._skip = -self._size % BLOCK
        if self._kind in _REGULAR:
            name = text(self._name)
            # tuple.__new__ takes half the time of Member(...), which is a Python function
            end = -1 if self._tied else self._at + BLOCK + self._size + self._skip
            member = tuple.__new__(Member, (name, payload, self._at, end))
            done.append(member)
            if self._size <= self._kept_bytes:
                self._remember(name, member)
            return
        if self._kind == ord("L"):
            self._own["path"] = payload.partition(b"\0")[0]
        elif self._kind == ord("K"):
            self._own["linkpath"] = payload.partition(b"\0")[0]
        else:
            said = self._global if self._kind == ord("g") else self._own
            said.update(_remembered(pax_records(payload)))
            if said is self._own:
                said[_HEADER] = b""
            self._tied = self._tied or bool(self._global)

    def _linked(self, target: bytes, done: list[Member]) -> None:
        name, wanted = text(self._name), text(target)
        self._tied = True
        if wanted not in self._recent:
            if wanted not in self._older:
                raise (_Before if self._start else ValueError)(
                    f"it is a hard link to {wanted!r}, which is not among the {self._link_bytes} bytes before"
                    " it, or is large; pack the files with tar --hard-dereference"
                )
            member = self._recent[wanted] = self._older[wanted]
            self._turn_at -= len(member.data) if member else 0  # it takes the room of newer ones
        else:
            member = self._recent[wanted]
        if member is not None:
            member = Member(name, member.data, member.offset)
            done.append(member)
        self._remember(name, member)

    def _remember(self, name: str, member: Member | None) -> None:
        if self._at >= self._turn_at:
            self._older, self._recent = self._recent, {}
            self._turn_at = self._at + self._link_bytes // 2
        self._recent[name] = member

    def _at_end(self, block: bytes, offset: int) -> None:
        if self._own:
            raise ValueError("an extended header without its member")
        if block == ZEROS:
            self._zero_blocks = min(self._zero_blocks + 1, 2)
            return
        self._at, self._name = offset, b""
        if self._zero_blocks == 1:
            raise ValueError("a zero block amid the archive")
        try:
            self._name = parsed(block)[0]
        except ValueError:
            self._garbage = True
            return
        raise ValueError("another archive begins behind the first one; join tars with tar --concatenate, not with cat")

    def _cut(self) -> str | None:
        """In what the archive was cut; None when it stops behind a complete member."""
        if len(self._partial) == self._offset:  # nothing but a piece of one header came
            what = f"{self._offset} bytes are less than one header" if self._offset else "empty file"
        elif self._missing:
            what = f"truncated: {self._size - self._missing} of {self._size} bytes are there"
        elif self._skip:
            what = "truncated behind its data"
        elif self._own:
            what = "truncated: an extended header without its member"
        elif self._partial.strip(b"\0"):
            self._at, self._name = self._offset - len(self._partial), b""
            what = f"truncated: {len(self._partial)} of the header's {BLOCK} bytes are there"
        else:
            return None
        return what

    def _corrupt(self, what: str, kind: type[CorruptShard] = CorruptShard) -> CorruptShard:
        if self._at == 0 and not self._name and self._offset:
            what = f"not a tar archive, or a broken one: {what}"
        member = f"member {text(self._name)!r}" if self._name else "header"
        return kind(f"{member} at offset {self._at}: {what}", url=self.shard)


def members(
    chunks: Iterable[bytes],
    shard: str,
    *,
    on_unterminated: Callable[[str], None] | None = None,
    start: int = 0,
    tied: bool = False,
    member_bytes: int = ANY_SIZE,
) -> Iterator[Member]:
    """The members of a tar archive, each as soon as its last byte is there.

    Args:
        chunks: The archive in pieces of any size.
        shard: Name or URL for messages.
        on_unterminated: Called with ``shard`` at the end of an archive whose members are whole, but whose end
            is not marked by two zero blocks.
        start: As in `TarParser`.
        tied: As there.
        member_bytes: As there.

    Raises: ``CorruptShard`` behind the last complete member.

    >>> [member.name for member in members([entry("a.txt", b"A"), END], "a.tar")]
    ['a.txt']
    """
    parser = TarParser(shard, start=start, tied=tied, member_bytes=member_bytes)
    for chunk in chunks:
        done = parser.feed(chunk)
        done.reverse()
        while done:
            yield done.pop()  # nobody else has a member when the next one is read
    parser.close()
    if parser.unterminated and on_unterminated is not None:
        on_unterminated(shard)


def _remembered(records: dict[str, bytes]) -> dict[str, bytes]:
    """What matters of pax records; an empty value takes an earlier one back."""
    said = {key: records[key] for key in _REMEMBERED if key in records}
    if any(b"\0" in value for value in said.values()):
        raise ValueError("a pax record with a NUL in it")
    if any(key.startswith("GNU.sparse.") for key in records):
        said["GNU.sparse"] = b""
    return said


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError(f"a pax record with the size {digits[:20]!r}")
    return checked_size(int(digits))
