"""Where the samples of some shards are: by whichever indexes there are, or may be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.indexjob import OnStep, indexed_by_server
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.shardindex import Found, Lack, kept_indexes, made_indexes, server_indexes
from aisdatapipes.flow.shardtable import ShardTable, TableBuilder
from aisdatapipes.model.errors import ConfigError, CorruptShard, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.shardindex import ShardIndex

IndexMode = Literal["auto", "server", "client", "off"]

_AT_ONCE = 64  # shards whose indexes are in memory as such
_ATTEMPTS = 2  # with "auto": where an index only helps, it is not worth waiting for
_HOW_TO = "index='server' has the cluster index the bucket, index='client' reads the shards' headers here, once"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was found.

    Args:
        table: Where all samples are; None where the shards are to be streamed.
        how: Which indexes these are, or why there are none and how to get some, for people.
    """

    table: ShardTable | None
    how: str


def resolve(
    shards: Sequence[AISURL],
    mode: IndexMode,
    clusters: Clusters,
    meter: Meter,
    cache: IndexCache | None,
    on_step: OnStep | None = None,
) -> Resolved:
    """The table of the samples of all shards.

    Args:
        shards: In order; sizes where they are known.
        mode: ``"auto"`` takes what is there: the server's index of a shard, else one kept on this machine; if a single
            shard has none, there is no table. It makes nobody wait and writes nothing. ``"server"`` has the cluster
            make the indexes that it lacks; the few that it cannot make (of hard links and the like) are made here.
            ``"client"`` makes all here, by one pass over the headers, and keeps them. ``"off"`` gives no table.
        clusters: Where the shards are.
        meter: Counts requests.
        cache: Where indexes that are made here are kept; None with ``"auto"`` where they must not count, because
            other machines may not have them.
        on_step: As in `indexed_by_server`; also told of the shards whose indexes are there.

    Memory: the table, and the indexes of 64 shards.
    Raises: ``CorruptShard`` for a shard whose members do not make samples, or that cannot be read; ``Denied`` and
        ``StoreError`` where the cluster does not make indexes; ``ObjectNotFound`` and the like. With ``"auto"`` what
        cannot be indexed is no error.
    """
    if mode == "off":
        return Resolved(None, "no index (index='off'): shards are streamed")
    transformed = next((url for url in shards if url.etl_name), None)
    if transformed is not None:
        if mode == "auto":
            return Resolved(None, "no index, for an ETL's answer has none: shards are streamed")
        raise ConfigError(f"{transformed}: what an ETL answers cannot be indexed; use index='off'")
    if mode == "server":
        _have_indexed(shards, clusters, meter, on_step)
    builder, counts = TableBuilder(), Counter[str]()
    for start, end in _groups(len(shards)):
        if on_step is not None:
            on_step("indexes of shards", start, len(shards))
        group = shards[start:end]
        try:
            indexes = _of_group(group, mode, clusters, meter, cache, counts)
        except StoreError as error:
            if mode != "auto":
                raise
            return Resolved(None, f"no index, for the cluster does not give it: shards are streamed whole; {error}")
        if isinstance(indexes, Resolved):
            return indexes
        for shard, index in zip(group, indexes, strict=True):
            try:
                builder.add(shard, index)
            except CorruptShard as error:
                if mode != "auto":
                    raise
                return Resolved(None, f"no index, for there are no samples in it: shards are streamed whole; {error}")
    return Resolved(
        builder.table(), ", ".join(f"{count} {how}" for how, count in counts.items() if count) or "no shards"
    )


def _of_group(
    group: Sequence[AISURL],
    mode: IndexMode,
    clusters: Clusters,
    meter: Meter,
    cache: IndexCache | None,
    counts: Counter[str],
) -> list[ShardIndex] | Resolved:
    """The indexes of some shards; with ``"auto"``, where one has none, what is the matter."""
    nothing: list[Found] = [Lack.ABSENT] * len(group)
    attempts = _ATTEMPTS if mode == "auto" else None
    found = nothing if mode == "client" else server_indexes(group, clusters, meter, attempts=attempts)
    lacking = [number for number, index in enumerate(found) if isinstance(index, Lack)]
    counts["shards by the server's index"] += len(group) - len(lacking)
    wanted = [group[number] for number in lacking]
    if not wanted:
        pass
    elif cache is None or mode == "auto":
        if cache is None or cache.empty:
            return _without(wanted[0], found[lacking[0]])
        kept = kept_indexes(wanted, clusters, meter, cache)
        for number, index in zip(lacking, kept, strict=True):
            if not isinstance(index, ShardIndex):
                return _without(group[number], found[number])
            found[number] = index
    else:
        for number, index in zip(lacking, made_indexes(wanted, clusters, meter, cache), strict=True):
            found[number] = index
    counts["shards by an index of this machine's"] += len(wanted)
    return [index for index in found if isinstance(index, ShardIndex)]


def _groups(number: int) -> Iterator[tuple[int, int]]:
    """Where groups of shards begin and end; the first is of one, for mostly all have an index or none."""
    if number:
        yield 0, 1
    for start in range(1, number, _AT_ONCE):
        yield start, min(start + _AT_ONCE, number)


def _without(shard: AISURL, lack: Found) -> Resolved:
    why = lack.value if isinstance(lack, Lack) else ""
    return Resolved(None, f"no index of {shard} ({why}): shards are streamed whole; {_HOW_TO}")


def _have_indexed(shards: Sequence[AISURL], clusters: Clusters, meter: Meter, on_step: OnStep | None) -> None:
    """Let the cluster index every bucket in which a tar has no index, or an outdated one."""
    done: set[tuple[str | None, str]] = set()
    for start, end in _groups(len(shards)):
        group = [
            url for url in shards[start:end] if url.name.endswith(".tar") and (url.endpoint, url.bucket_url) not in done
        ]
        for url, index in zip(group, server_indexes(group, clusters, meter), strict=True):
            place = (url.endpoint, url.bucket_url)
            if index in (Lack.ABSENT, Lack.STALE) and place not in done:
                indexed_by_server(clusters.of(url), url, on_step)
                done.add(place)
