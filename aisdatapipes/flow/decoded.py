"""Samples whose contents become values; one that cannot be decoded is an error of its own, not of its shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.model.errors import AISPipeError

# Makes the values of a sample: of its shard's URL, its key, and its contents by field. Raises ``CorruptSample``.
Decode = Callable[[str, str, dict[str, bytes]], dict[str, Any]]


def decoded(
    found: Iterable[tuple[str, str, dict[str, bytes]]], decode: Decode, meter: Meter, tolerance: Tolerance
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(key, values)`` of each ``(shard, key, contents)``, in order; a tolerated error leaves out its sample."""
    for shard, key, sample in found:
        try:
            values = decode(shard, key, sample)
        except AISPipeError as error:
            tolerance.bear(error, meter)
            continue
        del sample
        yield key, values
        del values
