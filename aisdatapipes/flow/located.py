"""Samples by their places: ranged reads straight to the owners of their shards, neighbours together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.decoded import Decode
from aisdatapipes.flow.headerpass import checksum_in
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.samples import Sample
from aisdatapipes.flow.shardtable import Field, Located, ShardTable
from aisdatapipes.flow.tolerance import RAISE, Tolerance
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import AISPipeError, CorruptBody
from aisdatapipes.store.part import PartInPieces
from aisdatapipes.wire.samples import Fields, Missing

# Two fields are read together if no more than that lies between them: receiving it takes less than a request.
JOINED_OVER = 64 << 10
_PLANNED = 256  # samples whose reads are planned together, where they come one by one


@dataclass(frozen=True, slots=True)
class Chosen:
    """What every sample is to have.

    Args:
        fields: As `Fields.parse` makes them; None for the extensions of the sample's shard and of the shards before it.
        missing: A sample that lacks one: see `Fields`.
    """

    fields: Fields | None = None
    missing: Missing = "zero"

    def of(self, sample: Located, table: ShardTable) -> dict[str, Any] | None:
        """By name the `Field` to be read, or ``b""``; None for a sample that is to be skipped."""
        shard = table.shards[sample.shard]
        present: dict[str, Any] = {field.extension: field for field in sample.fields}
        if self.fields is not None:
            return self.fields.picked(present, sample.key, shard)
        extensions = table.extensions_of(sample.shard)
        if len(extensions) == len(present):
            return present
        return _fields(extensions, self.missing).picked(present, sample.key, shard)


def located_samples(
    table: ShardTable,
    positions: Iterable[int],
    clusters: Clusters,
    plan: FetchPlan,
    meter: Meter,
    chosen: Chosen,
    tolerance: Tolerance = RAISE,
    decode: Decode | None = None,
) -> Iterator[Sample]:
    """The samples at some positions of the table, in this order.

    Only the fields that are chosen are read. What lies close together in a shard is read by one request, of up to
    ``plan.range_bytes``: of a list the whole is planned at once, in whichever order it is; of anything else, samples
    that come one behind the other. Ranges carry no checksum of their own, but that of the whole shard: it has to be
    that of the shard that was indexed.

    Memory: ``plan.window_bytes``; of a list, what was read for it.
    Raises: what ``tolerance`` does not bear, when the sample is reached: ``CorruptBody`` for a shard that was
        overwritten, ``ObjectNotFound`` and the like, ``CorruptShard`` for a field that is missing, what ``decode``
        raises.
    """
    reads = _Reads(table, positions, clusters, plan, chosen)
    jobs = ordered(iter(reads), plan.width, plan.window_bytes, meter)
    try:
        for job in jobs:
            job.run.take(job, table)
            yield from _complete(reads.samples, job.number, meter, tolerance, table, decode)
        yield from _complete(reads.samples, None, meter, tolerance, table, decode)
    finally:
        jobs.close()


def _complete(
    samples: deque[_Wanted],
    number: int | None,
    meter: Meter,
    tolerance: Tolerance,
    table: ShardTable,
    decode: Decode | None,
) -> Iterator[Sample]:
    """The samples for which everything up to the read with this number is enough; None for all that are left."""
    while samples and (number is None or samples[0].last <= number):
        wanted = samples.popleft()
        error = wanted.error or next((run.error for run in wanted.runs if run.error is not None), None)
        if error is not None:
            tolerance.bear(error, meter)
        elif wanted.pieces is None:
            meter.skipped += 1
        else:
            content = {name: piece.data for name, piece in wanted.pieces.items()}
            try:
                values = content if decode is None else decode(table.shards[wanted.shard], wanted.key, content)
            except AISPipeError as cause:
                tolerance.bear(cause, meter)
                continue
            meter.objects += 1
            meter.bytes += sum(map(len, content.values()))
            yield wanted.key, values


class _Run:
    """Bytes of a shard that are read by one request.

    Attributes:
        data: Those bytes, once they are there.
        error: Why they are not.
    """

    __slots__ = ("data", "end", "error", "number", "shard", "start")

    def __init__(self, shard: int, start: int, end: int) -> None:
        self.shard, self.start, self.end = shard, start, end
        self.number = -1  # of its read; in order of need
        self.data = b""
        self.error: AISPipeError | None = None

    def joins(self, shard: int, field: Field, limit: int) -> bool:
        """Take a field in, if it is near."""
        end = max(self.end, field.start + field.size)
        near = shard == self.shard and self.start <= field.start <= self.end + JOINED_OVER
        if not near or end - self.start > max(limit, self.end - self.start):
            return False
        self.end = end
        return True

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


class _RunRead(PartInPieces):
    """The read of a run; a job of a window."""

    __slots__ = ("number", "run")

    def __init__(self, run: _Run, table: ShardTable, clusters: Clusters) -> None:
        shard = table.shards[run.shard]
        cluster = clusters.of(shard)
        (owner,) = cluster.owners_of([shard])
        super().__init__(cluster, shard, owner, run.start, run.end - run.start)
        self.run, self.number = run, run.number


class _Piece(NamedTuple):
    """A field in what was read: ``size`` bytes, ``at`` byte of the shard; of an empty one nothing is read."""

    run: _Run | None
    at: int
    size: int

    @property
    def data(self) -> bytes:
        if self.run is None:
            return b""
        start = self.at - self.run.start
        return self.run.data[start : start + self.size]  # of a whole run no copy


class _Wanted(NamedTuple):
    """A sample, and the pieces that make it up; None for one that is to be skipped.

    Attributes:
        last: Number of the read with which it is complete.
        error: Why it cannot be made.
    """

    shard: int
    key: str
    pieces: dict[str, _Piece] | None
    runs: list[_Run]
    last: int
    error: AISPipeError | None


class _Reads:
    """The reads for some samples, in the order in which they are needed.

    Attributes:
        samples: Those whose reads were given out, in order.
    """

    def __init__(
        self, table: ShardTable, positions: Iterable[int], clusters: Clusters, plan: FetchPlan, chosen: Chosen
    ) -> None:
        self.samples: deque[_Wanted] = deque()
        self._table, self._clusters, self._limit, self._chosen = table, clusters, plan.range_bytes, chosen
        self._positions = positions
        self._count = itertools.count()

    def __iter__(self) -> Iterator[_RunRead]:
        if isinstance(self._positions, list):
            yield from self._planned(self._positions, together=True)
            return
        rest = iter(self._positions)
        while some := list(itertools.islice(rest, _PLANNED)):
            yield from self._planned(some, together=False)

    def _planned(self, positions: Sequence[int], *, together: bool) -> list[_RunRead]:
        """The reads for these samples, which are put into `samples`."""
        located = self._table.located(positions)
        choices = [self._choice(one) for one in located]
        fields = [
            (one.shard, field)
            for one, (choice, _) in zip(located, choices, strict=True)
            for field in (choice or {}).values()
            if isinstance(field, Field) and field.size
        ]
        run_of = self._runs(sorted(fields, key=_place) if together else fields)
        reads: list[_RunRead] = []
        last = -1
        for one, (choice, error) in zip(located, choices, strict=True):
            pieces = {name: _piece(one.shard, field, run_of) for name, field in (choice or {}).items()}
            runs = [piece.run for piece in pieces.values() if piece.run is not None]
            for run in runs:
                if run.number < 0:
                    run.number = next(self._count)
                    reads.append(_RunRead(run, self._table, self._clusters))
                last = max(last, run.number)
            self.samples.append(_Wanted(one.shard, one.key, None if choice is None else pieces, runs, last, error))
        return reads

    def _choice(self, sample: Located) -> tuple[dict[str, Any] | None, AISPipeError | None]:
        try:
            return self._chosen.of(sample, self._table), None
        except AISPipeError as error:
            return None, error  # in its turn

    def _runs(self, fields: Iterable[tuple[int, Field]]) -> dict[tuple[int, int], _Run]:
        """The run of each field, by shard and first byte."""
        found: dict[tuple[int, int], _Run] = {}
        run: _Run | None = None
        for shard, field in fields:
            if run is None or not run.joins(shard, field, self._limit):
                run = found.get((shard, field.start)) or _Run(shard, field.start, field.start + field.size)
            found[shard, field.start] = run
        return found


def _piece(shard: int, field: Any, run_of: dict[tuple[int, int], _Run]) -> _Piece:
    if not isinstance(field, Field) or not field.size:
        return _Piece(None, 0, 0)
    return _Piece(run_of[shard, field.start], field.start, field.size)


def _place(one: tuple[int, Field]) -> tuple[int, int]:
    return one[0], one[1].start


@lru_cache(maxsize=64)
def _fields(extensions: tuple[str, ...], missing: Missing) -> Fields:
    return Fields(tuple((extension,) for extension in extensions), missing)
