"""Samples: from shards, each a name and chunks, to ``(key, {extension: content})``."""

from __future__ import annotations

import dataclasses
import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from aisdatapipes.flow.buffered import Buffer
from aisdatapipes.flow.decoded import Decode, decoded
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.model.errors import AISPipeError, shown
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.wire import samples as convention
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.samples import Fields, Missing
from aisdatapipes.wire.tar import Member, Unlinked, members

log = logging.getLogger("aisdatapipes")

# Contents by extension: bytes, or what they were decoded to.
Sample = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to be read.

    Args:
        name: Name or URL, for messages; its extension tells the format where its first bytes do not.
        chunks: Its content, in pieces of any size.
        seekable: Makes a file of it for random access; None where there is none.
        extensions: Tells the extensions of all its samples beforehand; None where nobody knows.
        start: The byte of it, behind a sample, with which ``chunks`` begin.
        whole: Where ``start`` is not 0: its content from the first byte on, also after some chunks were taken.
    """

    name: str
    chunks: Iterable[bytes]
    seekable: Callable[[], BinaryIO] | None = None
    extensions: Callable[[], list[str]] | None = None
    start: int = 0
    whole: Callable[[], Iterator[bytes]] | None = None


def samples(
    shards: Iterable[Shard],
    fields: Fields | None,
    missing: Missing,
    meter: Meter,
    tolerance: Tolerance = RAISE,
    reached: Reached | None = None,
    decode: Decode | None = None,
    buffer: Buffer | None = None,
) -> Iterator[Sample]:
    """The samples of every shard, in order, or shuffled by ``buffer``; each as soon as its last member is in.

    ``reached`` is kept up to date; the samples of the first shard that it names at the beginning are passed over: by
    the place where that shard begins, else by reading them.
    Without ``fields``, a sample gets the extensions of its own shard and of the shards before it: filled in as
    ``missing`` says. An error that is tolerated ends its shard; the samples before it have been handed out. One of
    ``decode`` leaves out its sample alone.
    """
    at = reached or Reached()
    ahead = at if buffer is None else dataclasses.replace(at, drawn=0)
    found = _read(shards, fields, missing, meter, tolerance, ahead)
    if buffer is not None:
        found = buffer.shuffled(found, ahead, at)
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
            log.warning(
                "%s: the two zero blocks at the end of the tar are missing; all its members were whole", shown(name)
            )
            warned = True

    for shard in shards:
        try:
            listed = shard.extensions() if fields is None and shard.extensions is not None else []
            known.update(dict.fromkeys(listed))
            inside = shard.start > 0 and bool(fields is not None or listed)  # else the first samples tell extensions
            for key, sample in _left(shard, at, known, unterminated, inside=inside):
                picked = _picked(sample, key, shard.name, fields, missing, known)
                if picked is None:
                    meter.skipped += 1
                else:
                    yield shard.name, key, picked
                del sample, picked  # nobody but the consumer has them
        except AISPipeError as error:
            tolerance.bear(error, meter)
        at.items += 1
        at.passed = at.offset = 0


def _left(
    shard: Shard, at: Reached, known: dict[str, None], unterminated: Callable[[str], None], *, inside: bool
) -> Iterator[Sample]:
    """The samples behind those that ``at`` says were handed out; ``inside`` where the shard begins there."""
    most = most_in_memory()
    if inside:
        try:
            rest = members(shard.chunks, shard.name, start=shard.start, on_unterminated=unterminated, member_bytes=most)
            yield from _counted(rest, shard.name, at, at.passed, shard.start)
        except Unlinked:
            pass  # to a member that was read before: read all of it once more
        else:
            return
    chunks = shard.whole() if shard.start and shard.whole is not None else shard.chunks
    found = opened(chunks, shard.name, seekable=shard.seekable, on_unterminated=unterminated, member_bytes=most)
    before, all_of_it = at.passed, Reached()
    for key, sample in _counted(found, shard.name, all_of_it, 0, 0):
        if all_of_it.passed <= before:
            known.update(dict.fromkeys(sample))
        else:
            at.passed, at.offset = all_of_it.passed, all_of_it.offset
            yield key, sample
        del sample


def _counted(members: Iterable[Member], shard: str, at: Reached, passed: int, start: int) -> Iterator[Sample]:
    """The samples of some members; ``at`` stands behind each of them when it is yielded.

    A sample is yielded when the first member behind it is there: it ends where the member before that one ends.
    """
    end = behind = start

    def noted() -> Iterator[Member]:
        nonlocal end, behind
        for member in members:
            end, behind = behind, member.end
            yield member
        end = behind

    at.passed = passed
    for sample in convention.samples(noted(), shard):
        at.passed, at.offset = at.passed + 1, max(0, end)
        yield sample
        del sample  # nobody but the consumer has it; enumerate would keep it, too


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
