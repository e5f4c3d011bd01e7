"""Nasty tars, made in code: what people's tools write, and what nobody should have to read."""

from __future__ import annotations

import io
import tarfile
from typing import NamedTuple

from aisdatapipes.wire.tar_header import header

SIZES = (0, 1, 511, 512, 513, 1023, 1024, 1025, 4096)  # around a block, where padding goes wrong
LONG = "folder/" * 20 + "long name.jpg"  # 153 characters: not in 100, not in ustar's prefix in one way only


class Tar(NamedTuple):
    """An archive and what is in it."""

    archive: bytes
    files: list[tuple[str, bytes]]


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere near a block's length."""
    return bytes((seed + i * 7 + i // 251) % 256 for i in range(size))


def block(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"", **fields: bytes) -> bytes:
    """A header block with any field replaced (``at_124=b"..."``) and the checksum made good again."""
    made = bytearray(header(name, size, kind, link=link))
    for field, value in fields.items():
        at = int(field.removeprefix("at_"))
        made[at : at + len(value)] = value
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def by_tarfile(files: list[tuple[str, bytes]], form: int, **extra: object) -> bytes:
    """What Python's tarfile writes, without the zeros behind the two end blocks."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in extra.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return made.getvalue()[:end] + bytes(1024)


def cases() -> dict[str, Tar]:
    """Archives that read well, by what is special about them."""
    sizes = [(f"s/{size}.bin", content(size, size)) for size in SIZES]
    long = [("a.jpg", b"A"), (LONG, b"L" * 700), ("b.jpg", b"B"), ("ü" * 80, b"u")]
    odd = [("caf\udce9.jpg", b"latin-1"), ("\udcff\udcfe", b""), ("ok.jpg", b"x")]
    dotted = [("./a/x.jpg", b"1"), ("./a/x.cls", b"2")]
    plain = [("a.txt", b"A" * 10), ("b.txt", b"B" * 600)]
    first, second = padded(b"A" * 10), padded(b"B" * 600)
    return {
        "ustar": Tar(by_tarfile(sizes, tarfile.USTAR_FORMAT), sizes),
        "gnu": Tar(by_tarfile(sizes, tarfile.GNU_FORMAT), sizes),
        "pax": Tar(by_tarfile(sizes, tarfile.PAX_FORMAT), sizes),
        "pax header each": Tar(by_tarfile(sizes, tarfile.PAX_FORMAT, mtime=1.5), sizes),
        "ustar prefix": Tar(
            by_tarfile([("p" * 90 + "/" + "n" * 90, b"x")], tarfile.USTAR_FORMAT),
            [("p" * 90 + "/" + "n" * 90, b"x")],
        ),
        "gnu long names": Tar(by_tarfile(long, tarfile.GNU_FORMAT), long),
        "pax long names": Tar(by_tarfile(long, tarfile.PAX_FORMAT), long),
        "gnu non-UTF-8 names": Tar(by_tarfile(odd, tarfile.GNU_FORMAT), odd),
        "pax non-UTF-8 names": Tar(by_tarfile(odd, tarfile.PAX_FORMAT), odd),
        "a name of exactly 100": Tar(by_tarfile([("n" * 100, b"x")], tarfile.USTAR_FORMAT), [("n" * 100, b"x")]),
        "gnu times in the prefix": Tar(
            block(b"a.txt", 1, at_257=b"ustar  \0", at_345=b"14000000000\x0014000000000\0")
            + padded(b"A")
            + bytes(1024),
            [("a.txt", b"A")],
        ),
        "v7, without magic": Tar(
            block(b"d/", 0, b"\0", at_257=bytes(8))
            + block(b"d/a.txt", 10, b"\0", at_257=bytes(8))
            + first
            + bytes(1024),
            [("d/a.txt", b"A" * 10)],
        ),
        "contiguous file": Tar(block(b"a.txt", 10, b"7") + first + bytes(1024), plain[:1]),
        "dot slash": Tar(by_tarfile(dotted, tarfile.GNU_FORMAT), dotted),
        "base-256 size": Tar(
            block(b"a.txt", at_124=b"\x80" + (10).to_bytes(11, "big")) + first + bytes(1024), plain[:1]
        ),
        "size between blanks": Tar(block(b"a.txt", at_124=b"         12 ") + first + bytes(1024), plain[:1]),
        "pax size": Tar(
            block(b"x", 11, b"x")
            + padded(b"11 size=10\n")
            + block(b"a.txt", 0)
            + first
            + block(b"b.txt", 600)
            + second
            + bytes(1024),
            plain,
        ),
        "global pax header": Tar(
            block(b"g", 16, b"g") + padded(b"16 comment=abcd\n") + block(b"a.txt", 10) + first + bytes(1024),
            plain[:1],
        ),
        "signed checksum": Tar(_signed() + bytes(1024), [("\udce9\udce9", b"")]),
        "hard link": Tar(
            block(b"a.txt", 10)
            + first
            + block(b"b.txt", 600)
            + second
            + block(b"c.txt", 0, b"1", b"a.txt")
            + block(b"d.txt", 0, b"1", b"c.txt")
            + bytes(1024),
            [*plain, ("c.txt", b"A" * 10), ("d.txt", b"A" * 10)],
        ),
        "hard link with a size": Tar(  # tar of some systems repeats the size without the data
            block(b"a.txt", 10) + first + block(b"c.txt", 10, b"1", b"a.txt") + bytes(1024),
            [plain[0], ("c.txt", b"A" * 10)],
        ),
        "gnu long link": Tar(_long_link(), [(LONG, b"L"), ("l.jpg", b"L")]),
        "links, devices, pipes, folders": Tar(
            block(b"d/", 0, b"5")
            + block(b"s", 0, b"2", b"a.txt")
            + block(b"c", 0, b"3")
            + block(b"b", 0, b"4")
            + block(b"p", 0, b"6")
            + block(b"a.txt", 10)
            + first
            + bytes(1024),
            plain[:1],
        ),
        "zeros up to a record": Tar(by_tarfile(plain, tarfile.GNU_FORMAT) + bytes(10240), plain),
        "garbage behind the end": Tar(by_tarfile(plain, tarfile.GNU_FORMAT) + content(1000), plain),
        "nothing": Tar(bytes(1024), []),
    }


def hostile() -> dict[str, tuple[bytes, str]]:
    """Archives that must not be read, and a word of the error."""
    a = block(b"a.txt", 1) + padded(b"A")
    return {
        "empty": (b"", "empty file"),
        "a few bytes": (b"hello", "5 bytes are less than one header"),
        "text": (b"<html>404</html>" * 100, "not a tar archive"),
        "random": (content(5000), "not a tar archive"),
        "wrong checksum": (a + a[:10] + b"X" + a[11:], "checksum is wrong"),
        "negative size": (block(b"n", at_124=b"\xff" * 12), "negative"),
        "minus in octal": (block(b"n", at_124=b"-0000000001\0"), "no octal"),
        "underscores": (block(b"n", at_124=b"1_000000001\0"), "no octal"),
        "letters": (block(b"n", at_124=b"garbage size"), "no octal"),
        "digit 9": (block(b"n", at_124=b"00000000009\0"), "no octal"),
        "absurd size": (block(b"n", at_124=b"\x80" + b"\x7f" * 11), "cannot be"),
        "large size, no data": (block(b"n", at_124=b"77777777777\0") + bytes(512), "truncated"),
        "pax of an absurd size": (
            block(b"x", at_124=b"77777777777\0", kind=b"x") + bytes(512),
            "1048576 are allowed",
        ),
        "endless long name": (block(b"L", 1 << 21, b"L") + b"a" * (1 << 21), "1048576 are allowed"),
        "pax record too long": (_pax(b"99 path=a\n"), "wrong length"),
        "pax record of length 0": (_pax(b"0 path=a\n"), "wrong length"),
        "pax record of nonsense": (_pax(b"abc path=a\n"), "wrong length"),
        "pax record without a blank": (_pax(b"11=size=99\n"), "wrong length"),
        "pax record of many digits": (_pax(b"9" * 400), "wrong length"),
        "pax record without =": (_pax(b"7 path\n"), "without a key"),
        "pax record without end": (_pax(b"9 path=ab"), "wrong length"),
        "pax size negative": (_pax(b"11 size=-1\n"), "with the size"),
        "pax size absurd": (_pax(b"30 size=999999999999999999999\n"), "with the size"),
        "pax size too large": (_pax(b"26 size=99999999999999999\n"), "cannot be"),
        "pax path with NUL": (_pax(b"12 path=a\0b\n"), "NUL"),
        "pax header alone": (
            block(b"x", 9, b"x") + padded(b"9 path=a\n") + bytes(1024),
            "without its member",
        ),
        "pax header at the end": (block(b"x", 9, b"x") + padded(b"9 path=a\n"), "without its member"),
        "gnu sparse": (block(b"s.bin", 0, b"S"), "sparse"),
        "pax sparse": (_pax(b"22 GNU.sparse.major=1\n"), "sparse"),
        "next volume": (block(b"m", 0, b"M"), "volume"),
        "unknown type": (block(b"q", 0, b"Q"), "'Q' is unknown"),
        "hard link to nothing": (a + block(b"l", 0, b"1", b"nowhere"), "'nowhere', which is not among"),
        "zero block amid": (a + bytes(512) + a + bytes(1024), "zero block amid"),
        "two archives": (a + bytes(1024) + bytes(512) + a + bytes(1024), "another archive"),
    }


def _pax(records: bytes) -> bytes:
    return block(b"x", len(records), b"x") + padded(records) + block(b"a.txt", 1) + padded(b"A") + bytes(1024)


def _signed() -> bytes:
    made = bytearray(header(b"\xe9\xe9", 0, b"0"))
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % (sum(made) - 512)
    return bytes(made)


def _long_link() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        target = tarfile.TarInfo(LONG)
        target.size = 1
        tar.addfile(target, io.BytesIO(b"L"))
        link = tarfile.TarInfo("l.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, LONG
        tar.addfile(link)
    return made.getvalue()
