"""What becomes of the contents of a sample: ``decode=``, a callable or names of WebDataset's handlers.

A name stands for functions by extension. Pictures are read by Pillow alone, also for torch: another library would
give other pixels on the machines that have it. Nothing is unpickled, and nothing is handed to another program
(Pillow reads PostScript with one): whoever trusts the data can say so with a callable.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch

from aisdatapipes.model.errors import AISPipeError, ConfigError, CorruptSample
from aisdatapipes.wire.samples import Missing

Decoding: TypeAlias = "Callable[[str, str, bytes], Any] | str | Iterable[str] | None"

_EXPECTED = "decode is a callable (key, extension, content), or one or several of"
_UNSAFE = ("pyd", "pickle", "pkl")
_PICTURES = (
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
    "jp2", "j2k", "tga", "ico",
)  # fmt: skip
# As Pillow calls them: by its content a file named .jpg can be anything.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO")
_OPTIONAL = {"zero": True, "error": False, "skip": False}  # whether an empty content may be a field that was missing


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _npy(data: bytes) -> Any:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _picture(data: bytes, kind: str, mode: str) -> Any:
    """A picture as Pillow's image, as numpy's array (H, W, C), or as torch's tensor (C, H, W); grey ones without C."""
    from PIL import Image  # noqa: PLC0415 - an extra

    with Image.open(io.BytesIO(data), formats=_formats()) as file:
        image = file.convert(mode)
    if kind == "pil":
        return image
    array = np.array(image)
    if not kind.endswith("8"):
        array = array.astype(np.float32) / 255
    if not kind.startswith("torch"):
        return array
    return torch.from_numpy(array if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1)))


@functools.lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those that this Pillow was built with."""
    from PIL import Image  # noqa: PLC0415 - an extra

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


# By name: for which extensions, and what is done.
_BASICS: dict[str, tuple[tuple[str, ...], Callable[[bytes], Any]]] = {
    "txt": (("txt", "text", "transcript"), _text),
    "cls": (("cls", "cls2", "index", "inx", "id"), int),
    "json": (("json", "jsn"), json.loads),
    "npy": (("npy",), _npy),
    "npz": (("npz",), _npz),
    "pth": (("pth", "pt"), _torch),
}
# By name: (kind, mode); "8" is for 0 to 255, else there are floats from 0 to 1.
_IMAGES = {
    **{f"{kind}{mode}{bits}": (f"{kind}{bits}", mode.upper())
       for kind in ("", "torch") for mode in ("l", "rgb", "rgba") for bits in ("", "8")},
    **{f"pil{mode}": ("pil", mode.upper()) for mode in ("l", "rgb", "rgba")},
    "pil": ("pil", "RGB"),
    "torch": ("torch", "RGB"),
}  # fmt: skip


class Decoder:
    """Makes the values of a sample; pickles, if its callable does.

    Args:
        decode: A callable ``(key, extension, content) -> value`` for every field; or names: those of `_BASICS` are for
            fields of these extensions, those of `_IMAGES` for pictures and, as in WebDataset, for all the basic ones
            too. By the last part of the extension; fields that no name is for stay bytes.
        missing: With ``"zero"`` an empty content may be one that was filled in: it stays ``b""`` (as text ``""``).
    """

    def __init__(self, decode: Callable[[str, str, bytes], Any] | str | Iterable[str], missing: Missing) -> None:
        self._empty_stays = _OPTIONAL[missing]
        self._whole: Callable[[str, str, bytes], Any] | None = None
        self._functions: dict[str, Callable[[bytes], Any]] = {}
        if callable(decode):
            self._whole = decode
            return
        for name in _names(decode):
            self._functions.update(_functions_of(name))

    def __call__(self, shard: str, key: str, sample: dict[str, bytes]) -> dict[str, Any]:
        """The values by field; raises ``CorruptSample`` that names shard, key and field."""
        values: dict[str, Any] = {}
        for extension, data in sample.items():
            try:
                values[extension] = self._value(key, extension, data)
            except (AISPipeError, MemoryError, ImportError):
                raise
            except Exception as cause:
                why = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
                text = f"sample {key!r}: field {extension!r} ({len(data)} bytes) cannot be decoded: {why}"
                raise CorruptSample(text, url=shard) from cause
        return values

    def _value(self, key: str, extension: str, data: bytes) -> Any:
        if self._whole is not None:
            return data if self._empty_stays and not data else self._whole(key, extension, data)
        function = self._functions.get(extension.rpartition(".")[2])
        if function is None or (self._empty_stays and not data and function is not _text):
            return data
        return function(data)


def decoder_of(decode: Decoding, missing: Missing) -> Decoder | None:
    """What ``decode`` says; None where contents stay bytes. Raises ``ConfigError`` for what it cannot be."""
    return None if decode is None else Decoder(decode, missing)


def _names(decode: str | Iterable[str]) -> list[str]:
    names = [decode] if isinstance(decode, str) else list(decode) if isinstance(decode, Iterable) else [decode]
    known = [*_IMAGES, *_BASICS]
    for name in names:
        if name in _UNSAFE:
            raise ConfigError(
                f"decode: {name!r} would run whatever code the data hold; if you trust them, decode with a callable"
            )
        if name not in known:
            raise ConfigError(f"{_EXPECTED} {', '.join(known)}; not {name!r}")
    if not names:
        raise ConfigError(f"decode is empty; {_EXPECTED} {', '.join(known)}; or None")
    return names


def _functions_of(name: str) -> dict[str, Callable[[bytes], Any]]:
    """By extension, what is done with its content."""
    if name in _BASICS:
        extensions, function = _BASICS[name]
        return dict.fromkeys(extensions, function)
    if find_spec("PIL") is None:
        raise ConfigError(f"decode={name!r} needs Pillow: pip install 'aisdatapipes[images]'")
    kind, mode = _IMAGES[name]
    functions: dict[str, Callable[[bytes], Any]] = {}
    for basic in _BASICS:
        functions.update(_functions_of(basic))
    return {**functions, **dict.fromkeys(_PICTURES, functools.partial(_picture, kind=kind, mode=mode))}
