"""Arrays of integers as members of a zip archive, which ``numpy.load`` opens; what they claim is looked at first."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aisdatapipes.wire.malformed import Malformed

_RATIO = 1032  # bytes that one byte of deflate can stand for, at most (zlib's technical details)
_SLACK = 64  # bytes; the ratio of a very short member can be a little higher
_WIDTHS = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.int64)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip archive: a clock would make equal listings differ


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Append arrays, by the names of their members."""
    for name, array in arrays.items():
        with archive.open(member(name), "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)


class Members:
    """The members of an archive; raises `Malformed` for one that is not there, or cannot be what it claims.

    Args:
        archive: Open.
        available: Bytes of it.
    """

    def __init__(self, archive: zipfile.ZipFile, available: int) -> None:
        self._archive, self._available = archive, available
        self._infos = {info.filename: info for info in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def array(self, name: str) -> npt.NDArray[Any]:
        """A row of integers."""
        return _array(self.content(name), name)

    def blob(self, name: str) -> bytes:
        """A row of bytes."""
        found = self.array(name)
        if found.dtype != np.uint8:
            raise Malformed(f"{name} holds {found.dtype} instead of bytes")
        return found.tobytes()

    def content(self, name: str) -> bytes:
        """A member, whose claims are looked at before memory is given to it."""
        info = self._infos.get(name)
        if info is None:
            raise Malformed(f"it has no member {name}")
        if info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) or info.flag_bits & 1:
            raise Malformed(f"{name} is packed by another method than deflate")
        if info.compress_size > self._available or info.file_size > info.compress_size * _RATIO + _SLACK:
            raise Malformed(f"{name} claims {info.file_size} bytes, which cannot be in {info.compress_size}")
        return self._archive.read(info)


def member(name: str) -> zipfile.ZipInfo:
    """A member to be written, the same at any time."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16  # else unzip makes files that nobody may read
    return info


def narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The same numbers in the fewest bytes each."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    fitting = (width for width in _WIDTHS if np.iinfo(width).min <= low and high <= np.iinfo(width).max)
    return values.astype(np.dtype(next(fitting)).newbyteorder("<"))


def _array(data: bytes, name: str) -> npt.NDArray[Any]:
    """A row of integers; a view of ``data``."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise Malformed(f"{name} is no array of numpy's format 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 1 or dtype.kind not in "iu":
        raise Malformed(f"{name} holds {dtype} in the shape {shape} instead of a row of integers")
    if shape[0] * dtype.itemsize != len(data) - file.tell():
        raise Malformed(f"{name} claims {shape[0]} numbers, and has {len(data) - file.tell()} bytes")
    return np.frombuffer(data, dtype, offset=file.tell())
