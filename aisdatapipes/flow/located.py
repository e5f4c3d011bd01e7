"""Samples by their places: ranged reads straight to the owners of their shards, neighbours together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.decoded import Decode
from aisdatapipes.flow.headerpass import checksum_in
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.recipes import Chosen, Recipe, Recipes
from aisdatapipes.flow.runs import Numbers, Runs, joined
from aisdatapipes.flow.samples import Sample
from aisdatapipes.flow.shardtable import Rows, ShardTable
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import AISPipeError, CorruptBody
from aisdatapipes.model.url import AISURL
from aisdatapipes.order.permutation import Positions
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.store.read import path_of

_PLANNED = 256  # samples whose reads are planned at a time, where they come one behind the other


def located_samples(
    table: ShardTable,
    groups: Iterable[Positions],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    chosen: Chosen,
    tolerance: Tolerance = RAISE,
    *,
    together: bool = False,
    run_bytes: int = 0,
    decode: Decode | None = None,
) -> Iterator[Sample]:
    """The samples at some positions of the table, in this order.

    Only the fields that are chosen are read. What lies close together in a shard is read by one request. Ranges carry
    no checksum of their own, but that of the whole shard: it has to be that of the shard that was indexed.

    Args:
        table: Where the samples are.
        groups: Positions in the table, some at a time.
        clusters: Where the shards are.
        plan: How many requests are under way, and how much is read ahead.
        meter: Counts.
        chosen: What a sample is made of.
        tolerance: Of errors.
        together: What lies close together in a group is read together, in whichever order it is; else what comes one
            behind the other.
        run_bytes: Of one request, about, at most; 0 for ``plan.range_bytes``.
        decode: Makes values of the contents.

    Memory: ``plan.window_bytes``; with ``together`` also what is read for a group.
    Raises: what ``tolerance`` does not bear, when the sample is reached: ``CorruptBody`` for a shard that was
        overwritten, ``ObjectNotFound`` and the like, ``CorruptShard`` for a field that is missing, what ``decode``
        raises.
    """
    reads = _Reads(table, clusters, run_bytes or plan.range_bytes, chosen)
    some = groups if together else (group[at : at + _PLANNED] for group in groups for at in _starts(group))
    planned = (read for group in some for read in _given_up(reads.planned(group, together=together)))
    jobs = ordered(planned, plan.width, plan.window_bytes, meter)
    try:
        for job in jobs:
            job.run.take(job, table)
            yield from _complete(reads.samples, job.run.number, meter, tolerance, decode)
        yield from _complete(reads.samples, None, meter, tolerance, decode)
    finally:
        jobs.close()


def _given_up(reads: list[_RunRead]) -> Iterator[_RunRead]:
    """The same; a list of them would keep what they have read until the last one is taken."""
    reads.reverse()
    while reads:
        yield reads.pop()


def _starts(group: Positions) -> range:
    return range(0, len(group), _PLANNED)


def _complete(
    samples: deque[_Wanted], number: int | None, meter: Meter, tolerance: Tolerance, decode: Decode | None
) -> Iterator[Sample]:
    """The samples for which everything up to the read with this number is enough; None for all that are left."""
    while samples and (number is None or samples[0].last <= number):
        wanted = samples.popleft()
        error = wanted.error or next((run.error for run, _, _ in wanted.pieces if run.error is not None), None)
        if error is not None:
            tolerance.bear(error, meter)
        elif wanted.recipe is None:
            meter.skipped += 1
        else:
            pieces = wanted.pieces
            content = {name: b"" if read is None else _data(pieces[read]) for name, read in wanted.recipe.made}
            try:
                values = content if decode is None else decode(wanted.shard, wanted.key, content)
            except AISPipeError as cause:
                tolerance.bear(cause, meter)
                continue
            meter.objects += 1
            meter.bytes += sum(map(len, content.values()))
            yield wanted.key, values
            del wanted, pieces, content, values  # nobody but the consumer has them


class _Run:
    """Bytes of a shard that are read by one request.

    Attributes:
        number: Of its read, in the order of need.
        data: Those bytes, once they are there.
        error: Why they are not.
    """

    __slots__ = ("data", "error", "number", "shard")

    def __init__(self, shard: int, number: int) -> None:
        self.shard, self.number = shard, number
        self.data = b""
        self.error: AISPipeError | None = None

    def take(self, part: PartInPieces, table: ShardTable) -> None:
        """Take what was read, if it is of the shard that was indexed."""
        shard = table.shards[self.shard]
        if part.error is not None and part.error.status != 416:
            self.error = part.error
        elif part.error is not None or (part.total, checksum_in(part)) != (shard.size, table.checksums[self.shard]):
            text = "cannot read: the shard was overwritten since it was indexed; make the dataset anew"
            self.error = CorruptBody(text, url=shard, status=206, attempts=part.attempts)
        else:
            self.data = part.content()


_NOTHING = _Run(-1, -1)  # what empty fields are in


class _RunRead(PartInPieces):
    """The read of a run; a job of a window."""

    __slots__ = ("run",)

    def __init__(self, run: _Run, source: _Source, start: int, end: int) -> None:
        super().__init__(source.cluster, source.url, source.owner, start, end - start, path=source.path)
        self.run = run


class _Source(NamedTuple):
    """A shard, as reads need it: what is the same for all reads of it."""

    cluster: Cluster
    url: AISURL
    owner: str | None
    path: str


# A field in what was read: the run, its first byte in that, and the first byte behind it. A plain tuple: there is
# one for each field of each sample.
_Piece = tuple[_Run, int, int]


def _data(piece: _Piece) -> bytes:
    run, start, end = piece
    return run.data[start:end]  # of a whole run no copy


class _Wanted(NamedTuple):
    """A sample, and the pieces that make it up.

    Attributes:
        shard: Its URL.
        recipe: None for a sample that is to be skipped.
        pieces: Of what the recipe reads.
        last: Number of the read with which it is complete.
        error: Why it cannot be made.
    """

    shard: AISURL
    key: str
    recipe: Recipe | None
    pieces: list[_Piece]
    last: int
    error: AISPipeError | None = None


class _Reads:
    """The reads for some samples.

    Attributes:
        samples: Those whose reads were given out, in order.
    """

    def __init__(self, table: ShardTable, clusters: Clusters, limit: int, chosen: Chosen) -> None:
        self.samples: deque[_Wanted] = deque()
        self._table, self._clusters, self._limit = table, clusters, limit
        self._recipes = Recipes(table, chosen)
        self._paths: dict[int, str] = {}  # of shards
        self._count = 0  # reads so far

    def planned(self, positions: Positions, *, together: bool) -> list[_RunRead]:
        """The reads for these samples, in the order in which they are needed; the samples are put into `samples`."""
        rows = self._table.rows(positions)
        recipes = self._recipes_of(rows)
        fields, ends = _read(rows, recipes)
        starts, sizes = rows.starts[fields], rows.sizes[fields]
        found = joined(rows.homes[fields], starts, sizes, self._limit, together=together)
        first = self._count
        runs = [_Run(shard, number) for number, shard in enumerate(found.shards.tolist(), first)]
        self._count += len(runs)
        numbers, pieces = found.of_fields.tolist(), _pieces(runs, found, starts, sizes)
        begin = 0
        for key, number, recipe, end in zip(rows.keys, rows.shards.tolist(), recipes, ends.tolist(), strict=True):
            shard, last = self._table.shards[number], first + max(numbers[begin:end]) if end > begin else -1
            if isinstance(recipe, AISPipeError):
                self.samples.append(_Wanted(shard, key, None, [], last, recipe))
            else:
                self.samples.append(_Wanted(shard, key, recipe, pieces[begin:end], last))
            begin = end
        sources = self._sources(found.shards)
        places = zip(runs, found.starts.tolist(), found.ends.tolist(), strict=True)
        return [_RunRead(run, sources[run.shard], start, end) for run, start, end in places]

    def _recipes_of(self, rows: Rows) -> list[Recipe | AISPipeError | None]:
        """Of each sample the recipe; None where it is to be skipped, and why there is none: that is for its turn."""
        found: list[Recipe | AISPipeError | None] = []
        kinds, begin = rows.kinds.tolist(), 0
        for key, shard, end in zip(rows.keys, rows.shards.tolist(), rows.ends.tolist(), strict=True):
            try:
                found.append(self._recipes.of(kinds[begin:end], shard, key))
            except AISPipeError as error:
                found.append(error)
            begin = end
        return found

    def _sources(self, shards: Numbers) -> dict[int, _Source]:
        """These shards; their owners are looked up anew, for the cluster's map may be another one since."""
        found: dict[int, _Source] = {}
        numbers = np.unique(shards).tolist()
        for cluster, some in itertools.groupby(numbers, lambda number: self._clusters.of(self._table.shards[number])):
            group = list(some)
            urls = [self._table.shards[number] for number in group]
            for number, url, owner in zip(group, urls, cluster.owners_of(urls), strict=True):
                path = self._paths.get(number) or self._paths.setdefault(number, path_of(url))
                found[number] = _Source(cluster, url, owner, path)
        return found


def _read(rows: Rows, recipes: list[Recipe | AISPipeError | None]) -> tuple[Numbers, Numbers]:
    """Which of the fields in ``rows`` are read, sample by sample, and where those of each sample end: (F',), (M,)."""
    begins = (rows.ends - np.diff(rows.ends, prepend=0)).tolist()
    fields: list[int] = []
    ends: list[int] = []
    for begin, recipe in zip(begins, recipes, strict=True):
        if isinstance(recipe, Recipe):
            fields += [begin + read for read in recipe.reads]
        ends.append(len(fields))
    return np.array(fields, np.int64), np.array(ends, np.int64)


def _pieces(runs: list[_Run], found: Runs, starts: Numbers, sizes: Numbers) -> list[_Piece]:
    """Of each field that is read, where it is in its run."""
    places = np.where(sizes > 0, starts - np.append(found.starts, 0)[found.of_fields], 0)
    of_runs = [*runs, _NOTHING]
    columns = (found.of_fields.tolist(), places.tolist(), (places + sizes).tolist())
    return [(of_runs[run], start, end) for run, start, end in zip(*columns, strict=True)]
