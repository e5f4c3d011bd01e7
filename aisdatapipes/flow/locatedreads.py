"""The reads that bring samples of known places: which bytes of which shard by which request.

Mostly a read is a run: a range of a shard, straight from its owner, with all fields that lie close together in it.
Small fields that lie far apart, such as labels, are picked out of their shard by its target instead (`flow.selection`).
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple, TypeAlias

import numpy as np

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.headerpass import checksum_in
from aisdatapipes.flow.recipes import Chosen, Recipe, Recipes
from aisdatapipes.flow.runs import Numbers, Runs, joined
from aisdatapipes.flow.selection import Selected, Selections
from aisdatapipes.flow.shardtable import Rows, ShardTable
from aisdatapipes.model.errors import AISPipeError, CorruptBody
from aisdatapipes.model.url import AISURL
from aisdatapipes.order.permutation import Positions
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.store.read import path_of
from aisdatapipes.store.selection import Selection


class Run:
    """Bytes of a shard that are read by one request.

    Attributes:
        shard: Index of the shard.
        number: Of its read, in the order of need.
        data: Those bytes, once they are there.
        error: Why they are not.
    """

    __slots__ = ("data", "error", "number", "shard")

    def __init__(self, shard: int, number: int) -> None:
        self.shard, self.number = shard, number
        self.data = b""
        self.error: AISPipeError | None = None


_NOTHING = Run(-1, -1)  # what empty fields are in


class RunRead(PartInPieces):
    """The read of a run; a job of a window."""

    __slots__ = ("run",)

    def __init__(self, run: Run, source: _Source, start: int, end: int) -> None:
        super().__init__(source.cluster, source.url, source.owner, start, end - start, path=source.path)
        self.run = run

    def take(self, table: ShardTable) -> bool:
        """Take what was read, if it is of the shard that was indexed. True: it is done, well or not."""
        run = self.run
        if self.error is not None and self.error.status != 416:
            run.error = self.error
        elif self.error is not None or not _is_indexed(self, run.shard, table):
            text = self.why_another("the shard was overwritten since it was indexed; make the dataset anew")
            run.error = CorruptBody(
                f"cannot read: {text}", url=table.shards[run.shard], status=206, attempts=self.attempts
            )
        else:
            run.data = self.content()
        return True


class PickedRun(Run):
    """Fields that are picked out of a shard: not one piece of it, but one behind the other.

    Attributes:
        selected: Which they are.
    """

    __slots__ = ("selected",)

    def __init__(self, shard: int, number: int, selected: Selected) -> None:
        super().__init__(shard, number)
        self.selected = selected


class PickedRead(Selection):
    """The read of what is picked out of a shard; a job of a window."""

    def __init__(self, run: PickedRun, source: _Source, selections: Selections) -> None:
        super().__init__(source.cluster, source.url, source.owner, selections.pattern, run.selected.cost)
        self.run, self._selections = run, selections

    def take(self, table: ShardTable) -> bool:
        """Take what was picked, if it is all of it and of the shard that was indexed; else it is to be read."""
        if self.archive is None or self.part.error is not None or not _is_indexed(self.part, self.run.shard, table):
            return False
        contents = self._selections.contents(self.run.shard, self.archive)
        self.run.data = contents or b""
        return contents is not None


Job: TypeAlias = "RunRead | PickedRead"


def _is_indexed(part: PartInPieces, shard: int, table: ShardTable) -> bool:
    """Whether a part is of the shard that was indexed."""
    return (part.total, checksum_in(part)) == (table.shards[shard].size, table.checksums[shard])


class _Source(NamedTuple):
    """A shard, as reads need it: what is the same for all reads of it."""

    cluster: Cluster
    url: AISURL
    owner: str | None
    path: str


# A field in what was read: the run, its first byte in that, and the first byte behind it. A plain tuple: there is
# one for each field of each sample.
Piece = tuple[Run, int, int]


def data_of(piece: Piece) -> bytes:
    """The bytes of a field."""
    run, start, end = piece
    return run.data[start:end]  # of a whole run no copy


class Wanted(NamedTuple):
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
    pieces: list[Piece]
    last: int
    error: AISPipeError | None = None


class Reads:
    """The reads for some samples.

    Attributes:
        samples: Those whose reads were given out, in order.
    """

    def __init__(
        self, table: ShardTable, clusters: Clusters, limit: int, chosen: Chosen, selections: Selections
    ) -> None:
        self.samples: deque[Wanted] = deque()
        self._table, self._clusters, self._limit = table, clusters, limit
        self._selections = selections
        self._picked: dict[int, PickedRun] = {}  # by shard
        self._recipes = Recipes(table, chosen)
        self._paths: dict[int, str] = {}  # of shards
        self._count = 0  # reads so far

    def planned(self, positions: Positions, *, together: bool) -> list[Job]:
        """The reads for these samples, in the order in which they are needed; the samples are put into `samples`."""
        rows = self._table.rows(positions)
        recipes = self._recipes_of(rows)
        fields, ends = _read(rows, recipes)
        homes, starts, sizes = rows.homes[fields], rows.starts[fields], rows.sizes[fields]
        shards = list(dict.fromkeys(homes.tolist()))
        picks = self._pick(shards)
        picked = [shard for shard in shards if shard in self._picked]
        in_runs = np.where(np.isin(homes, picked), 0, sizes) if picked else sizes
        runs = self._runs(homes, starts, in_runs, together=together)
        pieces, numbers = runs.pieces, runs.numbers
        for shard in picked:
            here, run = np.flatnonzero(homes == shard), self._picked[shard]
            numbers[here] = run.number
            begins = run.selected.places(starts[here])
            for field, begin, size in zip(here.tolist(), begins.tolist(), sizes[here].tolist(), strict=True):
                pieces[field] = (run, begin, begin + size)
        self._want(rows, recipes, ends.tolist(), pieces, numbers.tolist())
        return [*picks, *runs.reads]

    def instead_of(self, run: Run) -> list[RunRead]:
        """The reads that bring what was not picked out of a shard, to the samples that wait for it."""
        assert isinstance(run, PickedRun)  # noqa: S101 - a `RunRead` is always taken
        self._selections.stop()
        if self._picked.get(run.shard) is run:  # else the samples that are planned next are of other shards
            del self._picked[run.shard]
        waiting = [(one.pieces, at) for one in self.samples for at, piece in enumerate(one.pieces) if piece[0] is run]
        places = np.array([pieces[at][1:] for pieces, at in waiting], np.int64).reshape(-1, 2)
        starts, sizes = run.selected.starts_of(places[:, 0]), places[:, 1] - places[:, 0]
        runs = self._runs(np.full(len(sizes), run.shard), starts, sizes, together=False)
        for (pieces, at), piece in zip(waiting, runs.pieces, strict=True):
            pieces[at] = piece
        return runs.reads

    def _pick(self, shards: list[int]) -> list[PickedRead]:
        """The reads of what is picked out of these shards, and was not before."""
        if not self._selections.keep:
            self._picked = {shard: self._picked[shard] for shard in shards if shard in self._picked}
        picks = {shard: self._selections.of(shard) for shard in shards if shard not in self._picked}
        runs = [PickedRun(shard, self._next_number(), one) for shard, one in picks.items() if one is not None]
        self._picked.update((run.shard, run) for run in runs)
        sources = self._sources([run.shard for run in runs])
        return [PickedRead(run, sources[run.shard], self._selections) for run in runs]

    def _runs(self, homes: Numbers, starts: Numbers, sizes: Numbers, *, together: bool) -> _Runs:
        """The runs that these fields are in."""
        found = joined(homes, starts, sizes, self._limit, together=together)
        runs = [Run(shard, self._next_number()) for shard in found.shards.tolist()]
        numbers = np.array([*(run.number for run in runs), -1], np.int64)[found.of_fields]
        sources = self._sources(found.shards)
        places = zip(runs, found.starts.tolist(), found.ends.tolist(), strict=True)
        reads = [RunRead(run, sources[run.shard], start, end) for run, start, end in places]
        return _Runs(reads, _pieces(runs, found, starts, sizes), numbers)

    def _want(
        self,
        rows: Rows,
        recipes: list[Recipe | AISPipeError | None],
        ends: list[int],
        pieces: list[Piece],
        numbers: list[int],
    ) -> None:
        """Put samples into `samples`, whose fields that are read end there."""
        begin = 0
        for key, number, recipe, end in zip(rows.keys, rows.shards.tolist(), recipes, ends, strict=True):
            shard, last = self._table.shards[number], max(numbers[begin:end], default=-1)
            if isinstance(recipe, AISPipeError):
                self.samples.append(Wanted(shard, key, None, [], last, recipe))
            else:
                self.samples.append(Wanted(shard, key, recipe, pieces[begin:end], last))
            begin = end

    def _next_number(self) -> int:
        self._count += 1
        return self._count

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

    def _sources(self, shards: Numbers | list[int]) -> dict[int, _Source]:
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


class _Runs(NamedTuple):
    """The runs that some fields are in.

    Attributes:
        reads: Of the runs.
        pieces: Of each field, where it is in its run.
        numbers: Of the read of each field; -1 for empty ones: shape (F,).
    """

    reads: list[RunRead]
    pieces: list[Piece]
    numbers: Numbers


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


def _pieces(runs: list[Run], found: Runs, starts: Numbers, sizes: Numbers) -> list[Piece]:
    """Of each field that is read, where it is in its run."""
    places = np.where(sizes > 0, starts - np.append(found.starts, 0)[found.of_fields], 0)
    of_runs = [*runs, _NOTHING]
    columns = (found.of_fields.tolist(), places.tolist(), (places + sizes).tolist())
    return [(of_runs[run], start, end) for run, start, end in zip(*columns, strict=True)]
