"""Archives in the cluster: their members, and which of them a request selects."""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

from aisdatapipes.devserver.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from aisdatapipes.devserver.buckets import Stored

EXTENSIONS = (".tar", ".tgz", ".tar.gz", ".zip")
MODES = ("regexp", "prefix", "suffix", "substr", "wdskey")
END = bytes(1024)  # two zero blocks end a tar


def is_archive(name: str) -> bool:
    """Whether a listing of archives looks into it: by its extension alone, as the server does."""
    return name.endswith(EXTENSIONS)


def members_of(stored: Stored, name: str) -> list[tuple[str, memoryview]]:
    """Name and content of every member but folders, in the order of the archive; of links the content is empty.

    Raises: `Refused` when it is no archive, or a broken one.
    """
    if stored.members is None:
        try:
            stored.members = _read(stored.data, name)
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise Refused(400, f"failed to read archive {name}, err: {error}") from None
    return stored.members


def _read(data: bytes, name: str) -> list[tuple[str, memoryview]]:
    if data[:4] == b"PK\x03\x04" or name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            return [(info.filename, memoryview(archive.read(info))) for info in infos]
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif data[257:262] != b"ustar" and not name.endswith(EXTENSIONS):
        raise Refused(400, f'unrecognized or unsupported file format: "{name}"')
    view = memoryview(data)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return [
            (member.name, view[member.offset_data :][: member.size if member.isreg() else 0])
            for member in archive
            if not member.isdir()
        ]


def member(stored: Stored, name: str, archpath: str) -> memoryview | None:
    """The content of one member, or None.

    A path that begins with a slash, or with the object's own name, means the same without it.
    """
    wanted = archpath.removeprefix("/").removeprefix(f"{name}/")
    for found, content in members_of(stored, name):
        if found == wanted or posixpath.normpath(found) == wanted:
            return content
    return None


def selected(stored: Stored, name: str, mode: str, pattern: str) -> bytes | None:
    """A tar of the members that ``pattern`` selects; None when it selects none."""
    if mode in ("", "*"):
        mode = "prefix"
    picks = _picker(mode, pattern)
    pieces = [tar_member(found, content) for found, content in members_of(stored, name) if picks(found)]
    return b"".join([*pieces, END]) if pieces else None


def _picker(mode: str, pattern: str) -> Callable[[str], bool]:
    if mode not in MODES:
        expected = f"expecting one of: [{' '.join(MODES)}]"
        raise Refused(400, f"dpq: 'archmode={mode}', err: invalid matching mode \"{mode}\", {expected}")
    if mode == "regexp":
        try:
            found = re.compile(pattern).search
        except re.error as error:
            raise Refused(400, f"failed to compile regexp {pattern!r}: {error}") from None
        return lambda name: found(name) is not None
    return {
        "prefix": lambda name: name.startswith(pattern),
        "suffix": lambda name: name.endswith(pattern),
        "substr": lambda name: pattern in name,
        "wdskey": lambda name: _key(name) == pattern,
    }[mode]


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


def tar_member(name: str, content: bytes | memoryview) -> bytes:
    """One member as a tar holds it: header, content, padding."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return b"".join((header, content, bytes(-len(content) % 512)))
