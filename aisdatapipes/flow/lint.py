"""What is wrong with shards: each is read from the first byte to the last, as a training would read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shards import ShardStream, streamed
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import AISPipeError, CorruptBody, CorruptShard, NotFound, Truncated
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.ceiling import most_in_memory
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.samples import samples, split
from aisdatapipes.wire.tar import Member

# They are of one shard; anything else is of the cluster, and there is no use in going on.
_OF_A_SHARD = (CorruptShard, CorruptBody, Truncated, NotFound)


@dataclass(slots=True)
class Looked:
    """What was found in one shard.

    Args:
        url: The shard.
        samples: How many could be read.
        members: How many could be read, those that belong to no sample included.
        problem: Why it cannot be read to its end; None where it can.
        notes: What is odd, and no reason to do anything.
    """

    url: AISURL
    samples: int = 0
    members: int = 0
    problem: AISPipeError | None = None
    notes: list[str] = field(default_factory=list)


def looked_through(urls: Iterable[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter) -> Iterator[Looked]:
    """Each shard, in order, when it was read: to its end, or to its first problem.

    Memory: the window, and one sample.
    Raises: ``Denied``, ``Unavailable`` and the like.
    """
    for stream in streamed(urls, clusters, plan, meter):
        found = Looked(stream.url)
        try:
            _look(stream, found)
        except _OF_A_SHARD as error:
            found.problem = error
        yield found


def _look(stream: ShardStream, found: Looked) -> None:
    strays, first = 0, ""

    def counted(members: Iterable[Member]) -> Iterator[Member]:
        nonlocal strays, first
        for member in members:
            found.members += 1
            if split(member.name) is None:
                strays += 1
                first = first or f"{member.name!r} at offset {member.offset}"
            yield member

    def unterminated(_: str) -> None:
        found.notes.append("the two zero blocks at its end are missing")

    members = opened(
        stream, stream.url, seekable=stream.file, on_unterminated=unterminated, member_bytes=most_in_memory()
    )
    for _ in samples(counted(members), stream.url):
        found.samples += 1
    if strays:
        found.notes.append(f"{strays} members belong to no sample, such as {first}")
    if not found.samples:
        raise CorruptShard("there is no sample in it", url=stream.url)
