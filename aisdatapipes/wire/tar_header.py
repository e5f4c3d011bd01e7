"""The 512-byte header of a tar member and the records of a pax header, as values; both ways.

Formats: POSIX.1-2017, "pax Interchange Format" and "ustar Interchange Format"
(https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), and "Basic Tar Format" of the GNU tar
manual. Where readers differ this one does as Go's ``archive/tar``, because that is what AIStore reads and
writes shards with. A function here raises ``ValueError`` with the reason alone; `aisdatapipes.wire.tar` adds
which shard, which member, and where.
"""

from __future__ import annotations

from zlib import adler32

from aisdatapipes.model.errors import ConfigError

BLOCK = 512
ZEROS = bytes(BLOCK)
END = bytes(2 * BLOCK)  # what ends an archive

# A larger member cannot be held by any process that trains: the size field is broken.
MAX_MEMBER_BYTES = 1 << 40
_MAX_OCTAL = 8**11 - 1  # 11 digits and a NUL
_ADLER_BASE = 65521


def parsed(block: bytes) -> tuple[bytes, int, int]:
    """``(name, size, type flag)`` of a header block; raises ``ValueError`` when it is none."""
    field = block[148:156]
    # The checksum is the sum of all bytes, its own field counted as 8 blanks. The low half of adler32 is
    # 1 + that sum modulo 65521, ten times faster than sum(); a sum is at most 130560, so that only a field
    # that is wrong by exactly 65521 gets past, and no change of a single byte is that large.
    if (octal(field) + sum(field) - 255) % _ADLER_BASE != adler32(block) & 0xFFFF:
        _check_signed(block, octal(field))
    end = block.find(0, 0, 100)
    name = block[: end if end >= 0 else 100]
    if block[345] and block[257:263] == b"ustar\0":  # GNU keeps times where POSIX keeps the prefix
        # star has times behind a shorter prefix
        prefix = block[345 : 476 if block[508:] == b"tar\0" else 500]
        name = prefix.partition(b"\0")[0] + b"/" + name
    return name, number(block[124:136]), block[156]


def link_name(block: bytes) -> bytes:
    """The target of a link."""
    return block[157:257].partition(b"\0")[0]


def octal(field: bytes) -> int:
    r"""An octal number between blanks and NULs; an empty field is 0, as old archives have it.

    >>> octal(b"0000644\0"), octal(b"  1750 \0"), octal(bytes(12))
    (420, 1000, 0)
    """
    text = field.strip(b" \0")
    if not text.isdigit():
        text = text.partition(b"\0")[0].rstrip()  # what stands behind a NUL does not count
        if not text:
            return 0
    try:
        if text.isdigit():  # int() alone would take signs and underscores too
            return int(text, 8)
    except ValueError:  # 8 or 9
        pass
    raise ValueError(f"{field!r} is no octal number")


def number(field: bytes) -> int:
    """An octal or, with the first bit set, a binary number (base 256, GNU and star), checked to be a size."""
    if field[0] < 0x80:
        return octal(field)
    if field[0] & 0x40:
        raise ValueError("the size is negative")
    return checked_size(int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1))


def checked_size(size: int) -> int:
    """``size`` when a member can have it."""
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"a size of {size} bytes cannot be")
    return size


def pax_records(payload: bytes) -> dict[str, bytes]:
    r"""The records ``"<length> <key>=<value>\n"`` of a pax header.

    >>> pax_records(b"12 path=a/b\n11 size=99\n")
    {'path': b'a/b', 'size': b'99'}
    """
    records: dict[str, bytes] = {}
    pos, end = 0, len(payload)
    while pos < end and payload[pos]:  # some writers fill up with NULs
        space = payload.find(b" ", pos, pos + 9)  # a record is no longer than a header, 7 digits
        digits = payload[pos:space] if space >= 0 else b""
        stop = pos + int(digits) if digits.isdigit() else pos
        if not pos < space < stop <= end or payload[stop - 1] != 10:
            raise ValueError(f"a pax record with a wrong length, {payload[pos : pos + 20]!r}")
        key, equals, value = payload[space + 1 : stop - 1].partition(b"=")
        if not equals or not key:
            raise ValueError(f"a pax record without a key, {payload[pos : pos + 20]!r}")
        records[text(key)] = value
        pos = stop
    return records


def text(name: bytes) -> str:
    """A name as text; bytes that are no UTF-8 come back when it is encoded with ``surrogateescape``."""
    return name.decode("utf-8", "surrogateescape")


def entry(name: str, data: bytes, *, mtime: int = 0) -> bytes:
    """One member with header and padding: ustar, with a pax header where ustar cannot say it.

    Args:
        name: At most 100 ASCII characters for plain ustar; anything else costs a pax header (1024 bytes).
        data: The content.
        mtime: Seconds since 1970.

    Raises: ``ConfigError`` for names and times that no tar can hold.

    >>> len(entry("a.txt", b"A")), len(entry("ü.txt", b"A"))
    (1024, 2048)
    """
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or b"\0" in raw:
        raise ConfigError(f"a member's name must not be empty or contain NUL, as {name!r} is or does")
    if not 0 <= mtime <= _MAX_OCTAL:
        raise ConfigError(f"a member's mtime must be in [0, {_MAX_OCTAL}] seconds, not {mtime!r}")
    size = len(data)
    extended = b"".join(_extended(name, raw, size))
    head = _padded(extended, header(b"PaxHeaders/" + raw[-64:], len(extended), b"x", mtime)) if extended else b""
    return head + _padded(data, header(raw, min(size, _MAX_OCTAL), b"0", mtime))


def header(name: bytes, size: int, kind: bytes, mtime: int = 0, link: bytes = b"") -> bytes:
    """A ustar header block; a name that is too long is cut, because a pax header then has it whole."""
    head = b"%b0000644\x000000000\x000000000\0%011o\0%011o\0" % (name[:100].ljust(100, b"\0"), size, mtime)
    tail = kind + link[:100].ljust(100, b"\0") + b"ustar\x0000"  # no owner's name, no device, no prefix
    block = (head + b" " * 8 + tail).ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _extended(name: str, raw: bytes, size: int) -> list[bytes]:
    records = []
    if len(raw) > 100 or not raw.isascii():
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            records.append(_record(b"hdrcharset", b"BINARY"))  # POSIX: the path that follows is no UTF-8
        records.append(_record(b"path", raw))
    if size > _MAX_OCTAL:
        records.append(_record(b"size", b"%d" % size))
    return records


def _record(key: bytes, value: bytes) -> bytes:
    # The length counts its own digits.
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _padded(data: bytes, head: bytes) -> bytes:
    return head + data + bytes(-len(data) % BLOCK)


def _check_signed(block: bytes, stored: int) -> None:
    """Some old writers summed signed bytes."""
    total = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    if total != stored:
        raise ValueError("the header's checksum is wrong")
