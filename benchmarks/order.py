"""What do order, ranks and resume cost?

Four questions. What an item costs to be planned, in a shuffled order of a million and of a billion items, and whether
memory grows with their number. How many bytes a state has as JSON, and whether all ranks have the same one. What a job
that is resumed at 90 % of an epoch reads again, and when its first sample comes, against a cold start: both list the
bucket. And what a shuffle costs with two workers and a state after every batch, against reading in the order of
the listing. Objects of 1 KiB.

    python -m benchmarks.order [--quick]
"""

from __future__ import annotations

import functools
import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import cluster, filler, put_all
from benchmarks.measure import (
    FIRST,
    Content,
    Limit,
    Measurement,
    Report,
    Stored,
    Target,
    asked,
    chosen,
    content_of,
    cpu_seconds,
    iterated,
    named,
    resident_bytes,
    settled_bytes,
)

SIZE, BATCH, WORKERS, RANKS = 1 << 10, 64, 2, 8
SHUFFLED = {"shuffle": True, "seed": 7}
COST, STATE, DIFFERENT = "planning us/sample", "bytes of a state", "states that differ"
READ, ASKED, LATER = "objects read, % of all", "requests, % of all objects", "first ms after a cold start's"

MILLION, BILLION = "plan of 10^6 items, shuffled, 1 of 8 ranks", "plan of 10^9 items, shuffled, 1 of 8 ranks"
STATES = "states of 8 ranks, 10^9 items"
COLD, RESUMED, BY_GET = "cold start, shuffled", "resumed at 90 %", "resumed at 90 %, strategy get"
PLAIN = "DataLoader(64), 2 workers, in the order of the listing"
SHUFFLE = "DataLoader(64), 2 workers, shuffled"
SAVING = "DataLoader(64), 2 workers, shuffled, a state after every batch"


# ---- arithmetic, without a cluster


def shares(number: int) -> Iterator[Any]:
    """The positions of one worker of one rank, some at a time."""
    from aisdatapipes import World
    from aisdatapipes.order.plan import Order

    return Order(batch_size=BATCH, **SHUFFLED).positions(number, 1, World(3, RANKS, 1, WORKERS))


def planned(number: int, stored: Stored) -> Measurement:
    """So many positions of the order, thrown away; those that are out of range or come twice do not count."""
    import numpy as np

    def some() -> Iterator[Any]:
        left = stored.content.count
        for share in shares(number):
            yield share[:left]
            left -= len(share[:left])
            if not left:
                return

    sum(map(len, some()))  # what numpy loads at the first use is no part of the cost of an item
    before = settled_bytes()
    cpu, began = cpu_seconds(), time.perf_counter()
    count = sum(map(len, some()))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    peak = resident_bytes("VmHWM")
    positions = np.concatenate(list(some()))
    right = np.unique(positions[(positions >= 0) & (positions < number)])
    return Measurement(Content(len(right), 0, 0), seconds, cpu, peak - before, {COST: cpu / count * 1e6})


def states(number: int, _stored: Stored) -> Measurement:
    """The state of every rank late in a long training, as JSON."""
    from aisdatapipes import AISSampler, World

    options = {"shuffle": True, "seed": (1 << 63) - 1, "batch_size": BATCH}
    steps = number // (RANKS * BATCH) - 1
    samplers = [AISSampler(range(number), world=World(rank, RANKS), **options) for rank in range(RANKS)]
    cpu, began = cpu_seconds(), time.perf_counter()
    found = [json.dumps(sampler.state_dict(batches=steps, epoch=999_999)) for sampler in samplers]
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    more = {STATE: float(max(map(len, found))), DIFFERENT: float(len(set(found)) - 1)}
    return Measurement(Content(len(found), 0, 0), seconds, cpu, 0, more)


# ---- on a cluster


def ours(stored: Stored, **options: Any) -> Any:
    """The dataset."""
    from aisdatapipes import AISIterDataset, ClientConfig

    return AISIterDataset(f"ais://{stored.bucket}/", config=ClientConfig(stored.endpoint), **options)


def cold(stored: Stored) -> Iterable[Any]:
    return ours(stored, **SHUFFLED)


def resumed(stored: Stored, *, state: dict[str, Any], strategy: Any = "auto") -> Iterable[Any]:
    """A new dataset that goes on from a state."""
    from aisdatapipes import FetchPlan

    data = ours(stored, fetch=FetchPlan(strategy), **SHUFFLED)
    data.load_state_dict(state)
    return data


def counted(contender: Any, stored: Stored, *, total: int) -> Measurement:
    """One pass, with what was asked of the cluster in it."""
    made: list[Any] = []

    def kept(stored: Stored) -> Any:
        made.append(contender(stored))
        return made[0]

    found = iterated(kept, stored)
    stats = made[0].stats()
    found.more[READ], found.more[ASKED] = 100 * stats["objects"] / total, 100 * stats["requests"] / total
    return found


class Trained:
    """The samples of a DataLoader with workers; a state is asked for after every batch if ``saving``."""

    def __init__(self, dataset: Any, *, saving: bool) -> None:
        from torch.utils.data import DataLoader

        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
        self._dataset, self._saving = dataset, saving
        self._loader = DataLoader(
            dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=list, multiprocessing_context="fork"
        )

    def __iter__(self) -> Iterator[Any]:
        for step, batch in enumerate(self._loader, 1):
            yield from batch
            if self._saving:
                json.dumps(self._dataset.state_dict(batches=step))

    def stats(self) -> dict[str, float]:
        found: dict[str, float] = self._dataset.stats()
        return found


def in_order(stored: Stored) -> Iterable[Any]:
    return Trained(ours(stored, batch_size=BATCH), saving=False)


def shuffled(stored: Stored, *, saving: bool) -> Iterable[Any]:
    return Trained(ours(stored, batch_size=BATCH, **SHUFFLED), saving=saving)


def measure_arithmetic(report: Report, options: Any) -> None:
    for name, number in ((MILLION, 10**6), (BILLION, 10**9)):
        count = 10_000 if options.quick else min(10**6, number // (RANKS * WORKERS) // BATCH * BATCH)
        contenders = chosen({name: number}, options)
        report.measure(contenders, Stored("", "", (), Content(count, 0, 0)), planned)
    report.measure(chosen({STATES: 10**9}, options), Stored("", "", (), Content(RANKS, 0, 0)), states)


def measure_resume(report: Report, stored: Stored, contents: dict[str, bytes], options: Any) -> None:
    data = ours(stored, **SHUFFLED)
    state = data.state_dict(batches=len(contents) * 9 // 10)
    data.load_state_dict(state)
    left = content_of((name, contents[name]) for row in data.plan() for name in row.items)
    there = Stored(stored.endpoint, stored.bucket, (), left)
    measure = functools.partial(counted, total=len(contents))
    for _ in range(report.rounds):  # in turn, though what must come out differs
        once = Report(report.name, report.question, 1, report.server, report.quick, report.rows, report.wrong)
        once.measure(chosen({COLD: cold}, options), stored, measure)
        again = {RESUMED: functools.partial(resumed, state=state),
                 BY_GET: functools.partial(resumed, state=state, strategy="get")}  # fmt: skip
        once.measure(chosen(again, options), there, measure)
    for name in (RESUMED, BY_GET):
        for one, first in zip(report.rows.get(name, []), report.rows.get(COLD, []), strict=False):
            one.more[LATER] = one.more[FIRST] - first.more[FIRST]


def main() -> int:
    options = asked(__doc__ or "")
    count = 1000 if options.quick else 100_000
    contents = {name: filler(i, SIZE) for i, name in enumerate(named("train", count))}
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, contents.items())
        stored = Stored(endpoint, made.name, (), content_of(contents.items()))
        report = Report("order", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        measure_arithmetic(report, options)
        measure_resume(report, stored, contents, options)
        loaders = {PLAIN: in_order, SHUFFLE: functools.partial(shuffled, saving=False),
                   SAVING: functools.partial(shuffled, saving=True)}  # fmt: skip
        report.measure(chosen(loaders, options), stored)
    report.check(
        Limit(BILLION, COST, 1),
        Limit(BILLION, "peak memory MB", 2),
        Limit(STATES, STATE, 200),
        Limit(STATES, DIFFERENT, 0),
        Limit(RESUMED, READ, 10),
        Limit(BY_GET, ASKED, 10),
        Limit(RESUMED, LATER, 1000),
        Target(SAVING, PLAIN, 0.95),
    )
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
