"""Samples as values that can be compared and counted."""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch

_SHOWN = 80  # characters of a sample in a message


def samples(dataset: Any) -> Iterator[Any]:
    """The samples of any dataset: iterable, map-style, or a pipe."""
    if hasattr(dataset, "__iter__"):
        return iter(dataset)
    return (dataset[index] for index in range(len(dataset)))


def contents(dataset: Any) -> list[Hashable]:
    """All samples of one pass, each as `content`."""
    return [content(sample) for sample in samples(dataset)]


def content(sample: Any) -> Hashable:
    """A sample as a value that equals that of another sample just when both have the same content.

    Streams are read from their beginning where they can be; tensors and arrays count with type and shape; a list and
    a tuple of the same things are the same, because loaders turn one into the other.
    """
    if sample is None or isinstance(sample, (str, bytes, int, float, complex)):
        return str(sample) if isinstance(sample, str) else sample
    if isinstance(sample, torch.Tensor):
        return content(sample.detach().cpu().numpy())
    if isinstance(sample, np.ndarray):
        return ("array", str(sample.dtype), sample.shape, sample.tobytes())
    if hasattr(sample, "read"):
        return ("stream", _all_of(sample))
    if isinstance(sample, Mapping):
        return ("mapping", frozenset((content(key), content(value)) for key, value in sample.items()))
    if isinstance(sample, AbstractSet):
        return ("set", frozenset(map(content, sample)))
    if isinstance(sample, (bytearray, memoryview)):
        return bytes(sample)
    if isinstance(sample, Sequence):
        return tuple(map(content, sample))
    return (type(sample).__qualname__, pickle.dumps(sample))


def shown(found: Hashable) -> str:
    """A sample in a message: its beginning."""
    text = repr(found)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _all_of(stream: Any) -> Any:
    """What a stream holds; its position is left where it was, if it has one."""
    try:
        position = stream.tell()
        stream.seek(0)
    except (AttributeError, OSError, TypeError):
        return stream.read()
    data = stream.read()
    stream.seek(position)
    return data
