"""Samples: from shards, each a name and chunks, to ``(key, {extension: content})``."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from aisdatapipes.flow.decoded import Decode, decoded
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.model.errors import AISPipeError
from aisdatapipes.wire import samples as convention
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.samples import Fields, Missing

log = logging.getLogger("aisdatapipes")

# Contents by extension: bytes, or what they were decoded to.
Sample = tuple[str, dict[str, Any]]


@dataclass(slots=True)
class Reached:
    """How far an iteration has come.

    Args:
        items: Shards that are done with.
        passed: Samples of the next one that were handed out or left out; at the beginning, those to leave out.
    """

    items: int = 0
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to be read.

    Args:
        name: Name or URL, for messages; its extension tells the format where its first bytes do not.
        chunks: Its content, in pieces of any size.
        seekable: Makes a file of it for random access; None where there is none.
        extensions: Tells the extensions of all its samples beforehand; None where nobody knows.
    """

    name: str
    chunks: Iterable[bytes]
    seekable: Callable[[], BinaryIO] | None = None
    extensions: Callable[[], list[str]] | None = None


def samples(
    shards: Iterable[Shard],
    fields: Fields | None,
    missing: Missing,
    meter: Meter,
    tolerance: Tolerance = RAISE,
    reached: Reached | None = None,
    decode: Decode | None = None,
) -> Iterator[Sample]:
    """The samples of every shard, in order; each as soon as its last member is in.

    ``reached`` is kept up to date; the samples of the first shard that it names at the beginning are passed over.
    Without ``fields``, a sample gets the extensions of its own shard and of the shards before it: filled in as
    ``missing`` says. An error that is tolerated ends its shard; the samples before it have been handed out. One of
    ``decode`` leaves out its sample alone.
    """
    found = _read(shards, fields, missing, meter, tolerance, reached or Reached())
    if decode is not None:
        return decoded(found, decode, meter, tolerance)
    return map(operator.itemgetter(1, 2), found)


def _read(
    shards: Iterable[Shard], fields: Fields | None, missing: Missing, meter: Meter, tolerance: Tolerance, at: Reached
) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """``(shard, key, contents)`` of every sample."""
    known: dict[str, None] = {}  # extensions so far, in order
    warned = False

    def unterminated(name: str) -> None:
        nonlocal warned
        if not warned:
            log.warning("%s: the two zero blocks at the end of the tar are missing; all its members were whole", name)
            warned = True

    for shard in shards:
        before = at.passed
        try:
            if fields is None and shard.extensions is not None:
                known.update(dict.fromkeys(shard.extensions()))
            members = opened(shard.chunks, shard.name, seekable=shard.seekable, on_unterminated=unterminated)
            number = 0
            for key, sample in convention.samples(members, shard.name):
                number += 1  # not by enumerate, which keeps a sample until the next one is there
                if number <= before:
                    known.update(dict.fromkeys(sample))
                    continue
                at.passed = number
                picked = _picked(sample, key, shard.name, fields, missing, known)
                if picked is None:
                    meter.skipped += 1
                else:
                    yield shard.name, key, picked
                del sample, picked  # nobody but the consumer has them
        except AISPipeError as error:
            tolerance.bear(error, meter)
        at.items += 1
        at.passed = 0


def _picked(
    sample: dict[str, bytes],
    key: str,
    shard: str,
    fields: Fields | None,
    missing: Missing,
    known: dict[str, None],
) -> dict[str, bytes] | None:
    """The sample with all its fields; None when it is to be skipped."""
    if fields is not None:
        return fields.picked(sample, key, shard)
    known.update(dict.fromkeys(sample))
    if len(sample) == len(known):
        return sample
    wanted = Fields(tuple((extension,) for extension in known), missing)
    return wanted.picked(sample, key, shard)
