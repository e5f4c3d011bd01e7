"""Nasty shards, made in code: each with the samples that are in it, or that stand before what is wrong with it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from typing import NamedTuple

import zstandard

from aisdatapipes.wire.tar import END, entry
from tests.wire.tars import block, by_tarfile, content, padded

Sample = tuple[str, dict[str, bytes]]

A, B, C = ("a", {"jpg": content(700), "cls": b"1"}), ("b", {"jpg": content(513, 5), "cls": b""}), ("c", {"jpg": b"C"})


class Nasty(NamedTuple):
    """A shard.

    Args:
        archive: Its bytes.
        samples: What is in it, as far as it can be read.
        told: Words of the error that comes behind them; empty where there is none.
        warned: A warning is due.
        name: Of the object.
    """

    archive: bytes
    samples: list[Sample]
    told: str = ""
    warned: bool = False
    name: str = "s.tar"


def files(*samples: Sample, key: str = "{}") -> list[tuple[str, bytes]]:
    """The members of samples."""
    return [(f"{key.format(name)}.{extension}", data) for name, sample in samples for extension, data in sample.items()]


def packed(*samples: Sample) -> bytes:
    """The members of samples in plain ustar, without an end."""
    return b"".join(entry(name, data) for name, data in files(*samples))


def _renamed(form: str, *samples: Sample) -> list[Sample]:
    return [(form.format(key), sample) for key, sample in samples]


def _written(form: int, key: str = "{}", **extra: object) -> Nasty:
    return Nasty(by_tarfile(files(A, B, C, key=key), form, **extra), _renamed(key, A, B, C))


LONG = "folder/" * 20 + "long name of {}"
LATIN = "caf\udce9/{}"
SPARSE = b"22 GNU.sparse.major=1\n"


def readable() -> dict[str, Nasty]:
    """Shards that have their samples, by what is special about them."""
    first, rest = entry("a.jpg", A[1]["jpg"]), entry("a.cls", b"1") + packed(B, C)
    size = len(A[1]["jpg"])
    data = padded(A[1]["jpg"])
    linked = ("b", {"jpg": A[1]["jpg"], "cls": b"2"})
    folder, symbolic = block(b"d/", 0, b"5"), block(b"s.jpg", 0, b"2", b"a.jpg")
    hidden = entry("._a.jpg", b"mac") + entry(".DS_Store", b"mac") + entry("d/._a.cls", b"mac")
    nothing = [
        ("a", {"jpg": b"", "cls": b""}),
        ("b", {"jpg": b"", "cls": b"1"}),
        ("c", {"jpg": b"x", "cls": b""}),
    ]
    return {
        "ustar": _written(tarfile.USTAR_FORMAT),
        "GNU": _written(tarfile.GNU_FORMAT),
        "pax": _written(tarfile.PAX_FORMAT),
        "pax, a header for each member": _written(tarfile.PAX_FORMAT, mtime=1.5),
        "long names, GNU": _written(tarfile.GNU_FORMAT, LONG),
        "long names, pax": _written(tarfile.PAX_FORMAT, LONG),
        "long names, ustar prefix": _written(tarfile.USTAR_FORMAT, "p" * 90 + "/" + "n" * 80 + "{}"),
        "names that are no UTF-8, GNU": _written(tarfile.GNU_FORMAT, LATIN),
        "names that are no UTF-8, pax": _written(tarfile.PAX_FORMAT, LATIN),
        "names that are no ASCII": _written(tarfile.PAX_FORMAT, "ü/日本 {}"),
        "names with blanks, `#`, `?`, `%`": _written(tarfile.GNU_FORMAT, "x y#z?&%20/{}"),
        "folders in keys, dots in folders": _written(tarfile.GNU_FORMAT, "v1.0/d.e/{}"),
        "names beginning with `./`": Nasty(by_tarfile(files(A, B, C, key="./d/{}"), 1), _renamed("d/{}", A, B, C)),
        "upper-case extensions": Nasty(
            entry("a.JPG", A[1]["jpg"]) + entry("a.Cls", b"1") + packed(B, C) + END, [A, B, C]
        ),
        "extensions of several dots": Nasty(
            entry("a.seg.png", b"S") + entry("a.jpg", b"J") + END, [("a", {"seg.png": b"S", "jpg": b"J"})]
        ),
        "members of no bytes": Nasty(packed(*nothing) + END, nothing),
        "folders": Nasty(folder + first + folder + rest + folder + END, [A, B, C]),
        "symbolic links": Nasty(first + rest + symbolic + END, [A, B, C]),
        "a symbolic link with an extension of its own": Nasty(
            first + rest + block(b"a.txt", 0, b"2", b"a.jpg") + END, [A, B, C]
        ),
        "`._*` and `.DS_Store`": Nasty(hidden + first + hidden + rest + hidden + END, [A, B, C]),
        "names without an extension": Nasty(
            entry("README", b"r") + first + entry("LICENSE", b"l") + rest + entry("d.v1/NOTES", b"n") + END, [A, B, C]
        ),
        "hard link": Nasty(
            packed(A) + block(b"b.jpg", 0, b"1", b"a.jpg") + entry("b.cls", b"2") + packed(C) + END, [A, linked, C]
        ),
        "hard link that ends a sample": Nasty(
            packed(A) + entry("b.cls", b"2") + block(b"b.jpg", 0, b"1", b"a.jpg") + END, [A, linked]
        ),
        "hard link with a size": Nasty(
            packed(A) + block(b"b.jpg", size, b"1", b"a.jpg") + entry("b.cls", b"2") + END, [A, linked]
        ),
        "size in base 256": Nasty(
            block(b"a.jpg", at_124=b"\x80" + size.to_bytes(11, "big")) + data + rest + END, [A, B, C]
        ),
        "size in a pax header": Nasty(
            block(b"x", 12, b"x") + padded(b"12 size=700\n") + block(b"a.jpg") + data + rest + END, [A, B, C]
        ),
        "global pax header with a comment": Nasty(
            block(b"g", 16, b"g") + padded(b"16 comment=abcd\n") + first + rest + END, [A, B, C]
        ),
        "v7, before ustar": Nasty(
            block(b"a.jpg", size, b"\0", at_257=bytes(8)) + data + entry("a.cls", b"1") + packed(B, C) + END, [A, B, C]
        ),
        "no end blocks": Nasty(packed(A, B, C), [A, B, C], warned=True),
        "one end block": Nasty(packed(A, B, C) + bytes(512), [A, B, C], warned=True),
        "an end block and a half": Nasty(packed(A, B, C) + bytes(700), [A, B, C], warned=True),
        "zeros up to a record of 10 KiB": Nasty(packed(A, B, C) + bytes(10240), [A, B, C]),
        "garbage behind the end": Nasty(packed(A, B, C) + END + content(1000), [A, B, C]),
        "nothing but its end": Nasty(END, []),
        "no member that belongs to a sample": Nasty(folder + entry("README", b"r") + END, []),
    }


def unreadable() -> dict[str, Nasty]:
    """Shards with something wrong behind the samples."""
    whole = packed(A, B, C)
    before_b = len(packed(A))
    before_c = len(packed(A, B))
    damaged = bytearray(whole)
    damaged[before_b] ^= 1
    twice = "has a second member with the extension 'jpg'"
    return {
        "a key that comes back": Nasty(packed(A, B, A) + END, [A, B], "sample 'a' had ended"),
        "a member twice": Nasty(packed(A) + entry("b.jpg", b"1") + entry("b.jpg", b"2") + END, [A], twice),
        "a member twice, in another case": Nasty(
            packed(A) + entry("b.jpg", b"1") + entry("b.JPG", b"2") + END, [A], twice
        ),
        "a sparse member, GNU": Nasty(packed(A, C) + block(b"d.bin", 0, b"S") + END, [A], "pack it without --sparse"),
        "a sparse member, pax": Nasty(
            packed(A, C) + block(b"x", len(SPARSE), b"x") + padded(SPARSE) + block(b"d.bin") + END,
            [A],
            "pack it without --sparse",
        ),
        "hard link to nothing": Nasty(packed(A, C) + block(b"d.jpg", 0, b"1", b"no.jpg") + END, [A], "hard link to"),
        "cut in a header": Nasty(whole[: before_b + 300], [], "truncated: 300 of the header's 512 bytes"),
        "cut in data": Nasty(whole[: before_b + 512 + 100], [], "truncated: 100 of 513 bytes"),
        "cut in the padding": Nasty(whole[: before_b + 512 + 513 + 100], [A], "truncated behind its data"),
        "cut in a pax header": Nasty(whole[:before_c] + entry("ü.jpg", b"x")[:520], [A], "truncated: 8 of 15 bytes"),
        "a header with a bit flipped": Nasty(bytes(damaged) + END, [], "checksum is wrong"),
        "a size that is none": Nasty(
            whole[:before_c] + block(b"c.jpg", at_124=b"1_000000001\0") + END, [A], "no octal number"
        ),
        "a size beyond the end": Nasty(
            whole[:before_c] + block(b"c.jpg", at_124=b"77777777777\0") + bytes(600), [A], "truncated: 600 of"
        ),
        "a negative size": Nasty(whole[:before_c] + block(b"c.jpg", at_124=b"\xff" * 12) + END, [A], "negative"),
        "a member of an unknown type": Nasty(whole[:before_c] + block(b"c.jpg", 0, b"Q") + END, [A], "unknown"),
        "a part of several volumes": Nasty(whole[:before_c] + block(b"c.jpg", 0, b"M") + END, [A], "join the volumes"),
        "a zero block amid": Nasty(
            whole[:before_c] + bytes(512) + packed(C) + END, [A], "a zero block amid the archive"
        ),
        "two archives in one": Nasty(packed(A, C) + END + packed(B) + END, [A], "another archive begins"),
        "text": Nasty(b"<html>404</html>" * 100, [], "not a tar archive"),
        "no bytes": Nasty(b"", [], "empty file"),
    }


def compressed() -> dict[str, Nasty]:
    """Shards that are no plain tar, and have their samples all the same."""
    plain = packed(A, B, C) + END
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files(A, B, C):
            archive.writestr(name, data)
    samples = [A, B, C]
    return {
        "gzip": Nasty(gzip.compress(plain), samples, name="s.tar.gz"),
        "bz2": Nasty(bz2.compress(plain), samples, name="s.tar.bz2"),
        "xz": Nasty(lzma.compress(plain), samples, name="s.tar.xz"),
        "zstd": Nasty(zstandard.compress(plain), samples, name="s.tar.zst"),
        "zip": Nasty(zipped.getvalue(), samples, name="s.zip"),
        "gzip that is called `.tar`": Nasty(gzip.compress(plain), samples),
        "gzip that is cut": Nasty(gzip.compress(plain)[:-9], [A, B], "truncated", name="s.tar.gz"),
    }
