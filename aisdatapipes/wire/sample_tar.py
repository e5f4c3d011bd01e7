"""Samples as members of a tar, as WebDataset writes them: the other direction of `aisdatapipes.wire.samples`.

The same samples make the same bytes: no times, no owners, fields in order of their extensions.
"""

from __future__ import annotations

import io
import json
import operator
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.wire.samples import split
from aisdatapipes.wire.tar_header import BLOCK, END

KEY = "__key__"


def encoded_sample(sample: Mapping[str, Any]) -> tuple[str, bytes]:
    r"""``(key, members)`` of a sample: all that a tar has of it, headers and padding included.

    Args:
        sample: ``__key__``, and a value for each extension: bytes or text as they are; else by what comes behind the
            last dot of the extension. ``cls`` (also ``cls2 class count index inx id``) an int, ``json`` (``jsn``) what
            JSON knows, ``npy`` an array, ``npz`` a mapping of arrays. Other names between ``__`` are left out, as
            WebDataset leaves them.

    Raises: ``ConfigError`` that names key and field, for what would not be read back as it was meant.

    >>> key, members = encoded_sample({"__key__": "a/1", "txt": "one", "cls": 1})
    >>> key, len(members), members[:9], members[512:513], members[1024:1033]
    ('a/1', 2048, b'a/1.cls\x00\x00', b'1', b'a/1.txt\x00\x00')
    """
    key = _checked_key(sample)
    contents: dict[str, bytes] = {}
    for name, value in sample.items():
        if isinstance(name, str) and name.startswith("__"):
            continue
        extension = _checked_extension(key, name)
        if extension in contents:
            raise ConfigError(f"sample {key!r}: two fields are {extension!r}; upper and lower case count as one")
        contents[extension] = _content(key, extension, value)
    if not contents:
        raise ConfigError(
            f"sample {key!r} has no field, so nothing of it would be in the shard; give one such as 'txt'"
        )
    return key, b"".join(_member(f"{key}.{extension}", contents[extension]) for extension in sorted(contents))


class SampleTar:
    """A tar that grows in memory, sample by sample.

    Memory: its bytes and its keys.
    """

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._size = 0  # of the samples
        self._keys: set[str] = set()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._keys)

    def size_with(self, members: bytes) -> int:
        """Bytes of the tar if this sample were its last one."""
        return self._size + len(members) + len(END)

    def add(self, key: str, members: bytes) -> None:
        """Append a sample, as `encoded_sample` makes it; raises ``ConfigError`` for a key that it has already."""
        if key in self._keys:
            raise ConfigError(
                f"sample {key!r}: this shard has a sample of that key already, and readers would mix them"
            )
        self._keys.add(key)
        self._file.seek(self._size)
        self._size += self._file.write(members)

    def content(self) -> bytes:
        """The whole tar."""
        self._file.seek(self._size)  # the next sample will take the place of the end
        self._file.write(END)
        return self._file.getvalue()  # no copy


def _checked_key(sample: Mapping[str, Any]) -> str:
    if not isinstance(sample, Mapping):
        raise ConfigError(f"a sample is a dict such as {{'__key__': '0001', 'jpg': bytes, 'cls': 3}}, not {sample!r}")
    key = sample.get(KEY)
    if not isinstance(key, str) or not key:
        raise ConfigError(f"a sample needs a text as {KEY!r}, such as '0001', not {key!r}; it has {[*sample]}")
    if key.startswith("/") or ".." in key.split("/") or "\0" in key:
        raise ConfigError(f"sample {key!r}: a key is a path inside of the shard: without / in front, '..' and NUL")
    if split(f"{key}.x") != (key, "x"):
        raise ConfigError(
            f"sample {key!r}: it would be read back under another key, which ends at the first dot of its last "
            "component; replace dots, a leading './', and a slash at the end"
        )
    return key


def _checked_extension(key: str, name: Any) -> str:
    good = isinstance(name, str) and name and not name.startswith(".") and "/" not in name and "\0" not in name
    if not good:
        raise ConfigError(f"sample {key!r}: {name!r} is no field; expected an extension such as 'jpg' or 'seg.png'")
    return str(name).lower()  # as it is read


def _content(key: str, extension: str, value: Any) -> bytes:
    encode = _ENCODERS.get(extension.rpartition(".")[2])
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if isinstance(value, str):
            return value.encode("utf-8")
        if encode is not None:
            return encode(value)
    except (TypeError, ValueError, RecursionError, AttributeError) as cause:
        raise ConfigError(f"sample {key!r}, field {extension!r}: cannot be written: {cause}") from None
    known = ", ".join(sorted(_ENCODERS))
    raise ConfigError(
        f"sample {key!r}, field {extension!r}: nothing is known to make bytes of {type(value).__name__}; give bytes or "
        f"text; other values are for the extensions {known}"
    )


def _number(value: Any) -> bytes:
    return str(operator.index(value)).encode("ascii")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _npy(value: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, _array(value), allow_pickle=False)
    return made.getvalue()


def _npz(value: Any) -> bytes:
    made = io.BytesIO()
    np.savez(made, **{name: _array(one) for name, one in value.items()})
    return made.getvalue()


def _array(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.hasobject:
        raise TypeError(f"it is no array of numbers or texts but {type(value).__name__}")
    return value


_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    **dict.fromkeys(("cls", "cls2", "class", "count", "index", "inx", "id"), _number),
    **dict.fromkeys(("json", "jsn"), _json),
    "npy": _npy,
    "npz": _npz,
}


def _member(name: str, data: bytes) -> bytes:
    """A header, the data, and the padding behind them."""
    info = tarfile.TarInfo(name)  # mode 644, of no time and nobody
    info.size = len(data)
    try:
        # Nothing but a header before each member: then the index of AIStore covers the whole shard.
        head = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:  # a long name
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return head + data + bytes(-len(data) % BLOCK)
