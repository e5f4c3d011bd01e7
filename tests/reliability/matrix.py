"""The fault matrix: every fault x every request that a way of reading makes x how it is read.

Nothing is listed by hand: what a way asks of a cluster is found by letting it read one, and every fault that fits
such a request makes two cells, one in which it passes and one in which it stays. Each cell has a cluster of its own,
so that nothing that a client learned of one fault helps it with the next.

    python -m tests.reliability.matrix        # writes what comes of faults that stay into docs/reliability.md
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from aisdatapipes import AISPipeError, ClientConfig
from aisdatapipes.devserver import DevCluster
from aisdatapipes.store import pool
from tests.environments import CHECKOUT
from tests.reliability.ways import DEADLINE, RETRY, WAYS, Way, filled, loader

CONSUMERS = ("loop", "fork", "spawn")
TIMES = 2  # how often a fault strikes that passes: fewer than the attempts beside the one that asks the owner
LATE = 3 * DEADLINE  # seconds; a cell may read several objects that fail at the same time, and one after the other
READ_TIMEOUT = 1.0  # seconds; libcurl counts whole ones
PAGE = CHECKOUT / "docs" / "reliability.md"
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"


class Fault(NamedTuple):
    """What a cluster does wrong."""

    kind: str
    options: dict[str, Any]
    requests: str  # those that it fits, as a regular expression
    or_errors: tuple[str, ...] = ()  # what comes of it, if it stays, is one of these or the data: a matter of luck

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def is_final(self) -> bool:
        """An answer that another try would not change, so none is made."""
        return self.kind == "refuse_batch" or self.options.get("status") in (400, 401, 403, 404, 501)


_ANSWERED = "map|list|get|batch|redirect|redirect-batch|index-shard|cluster"
_WITH_BODY = "map|list|get|batch|cluster"
FAULTS = (
    *(Fault("status", {"status": status}, _ANSWERED) for status in (400, 401, 403, 404, 409, 500, 501, 503)),
    Fault("status", {"status": 429, "retry_after": 0}, _ANSWERED),
    Fault("delay", {"seconds": 0.01}, _ANSWERED),
    Fault("drip", {"seconds": 0.001, "piece": 256}, _WITH_BODY),
    Fault("cut", {"after": 0}, _WITH_BODY),
    Fault("cut", {"after": 50}, _WITH_BODY),
    Fault("wrong_length", {"by": 1}, _WITH_BODY),
    Fault("wrong_length", {"by": -1}, _WITH_BODY),
    Fault("corrupt", {}, "get"),
    Fault("reset", {}, _ANSWERED),
    # What has come before the reset counts, if the system has handed it over: the next try asks for the rest. If the
    # reset is there first, the system throws away what has come, and there was no answer at all.
    Fault("reset", {"after": 100}, _ANSWERED, ("Truncated", "Unavailable")),
    Fault("idle_close", {}, _ANSWERED),
    Fault("redirect_loop", {}, "redirect|redirect-batch"),
    Fault("redirect_elsewhere", {}, "redirect|redirect-batch"),
    Fault("refuse_direct", {}, "get"),
    # A redirect to the node that is not in the map is not followed; which node answers a get-batch is the proxy's choice.
    Fault("stale_map", {}, "map", ("Unavailable",)),
    Fault("empty_page", {}, "list"),
    Fault("rebalance", {}, "list"),
    Fault("batch_short", {}, "batch"),
    Fault("batch_short", {"count": 1000}, "batch"),
    Fault("batch_misordered", {}, "batch"),
    Fault("refuse_batch", {}, "redirect-batch"),
)


@dataclass(frozen=True, eq=False)
class Cell:
    """One fault, met by one request of one way of reading, for a while or for good."""

    way: str
    request: str
    fault: Fault
    stays: bool

    def __str__(self) -> str:
        return f"{self.way}: {self.fault} of {self.request}, {'stays' if self.stays else 'passes'}"


@cache
def requests_of(name: str) -> tuple[str, ...]:
    """What a way asks of a healthy cluster."""
    with _cluster(WAYS[name]) as cluster:
        before = cluster.requests
        outcome = read(WAYS[name], _config(cluster))
        pool.close_all()
        assert outcome == "data", outcome
        return tuple(sorted((cluster.requests - before).keys() - {"direct"}))


def cells(name: str, consumer: str = "loop") -> list[Cell]:
    """All cells of a way of reading, by a consumer.

    In a spawned worker only faults that stay: what passes, passes there as in a forked one, and each takes its time.
    """
    return [
        Cell(name, request, fault, stays)
        for request in requests_of(name)
        for fault in FAULTS
        if re.fullmatch(fault.requests, request) and (fault.kind != "corrupt" or WAYS[name].whole)
        for stays in ((True,) if consumer == "spawn" else (False, True))
    ]


def outcomes(some: list[Cell], consumer: str) -> list[str]:
    """What comes of each cell: "data" for the exact data, the name of the error that was raised, or what is wrong."""
    with contextlib.ExitStack() as stack:
        cases, struck = [], []
        for cell in some:
            cluster = stack.enter_context(_cluster(WAYS[cell.way]))
            options = {} if cell.stays else {"times": TIMES}
            struck.append(cluster.faults.add(cell.fault.kind, cell.request, **options, **cell.fault.options))
            cases.append(Case(cell.way, _config(cluster)))
        found = Outcomes(cases)
        told = list(found if consumer == "loop" else loader(found, consumer))
        assert len(told) == len(some)
        pool.close_all()  # a later cluster may listen where one of these did, and must not be taken for it
        return [
            _shown(cell, outcome) if fault.struck else f"{outcome}, but the fault struck nothing"
            for cell, outcome, fault in zip(some, told, struck, strict=True)
        ]


def _shown(cell: Cell, outcome: str) -> str:
    possible = ["data", *cell.fault.or_errors]
    if not cell.stays or len(possible) == 1 or outcome not in possible:
        return outcome
    return f"{', '.join(possible[:-1])} or {possible[-1]}"


@contextlib.contextmanager
def _cluster(way: Way) -> Iterator[DevCluster]:
    with DevCluster(targets=3) as cluster:
        filled(cluster)
        if way.by_proxy:
            cluster.faults.add("refuse_direct")
        yield cluster


def _config(cluster: DevCluster) -> ClientConfig:
    return ClientConfig(cluster.endpoint, read_timeout=READ_TIMEOUT, retry=RETRY)


@dataclass
class Case:
    """A way of reading, and the cluster to be read; made where the loop is, iterated where the worker is."""

    name: str
    config: ClientConfig

    def __post_init__(self) -> None:
        self.outcome, self.seconds = "", 0.0
        began = time.monotonic()
        try:
            self.data = WAYS[self.name].make(self.config)
        except AISPipeError as error:
            self.outcome = _named(error)
        self.seconds = time.monotonic() - began

    def read(self) -> str:
        try:
            return self.outcome or read(WAYS[self.name], self.config, self.data, self.seconds)
        finally:
            pool.close_all()  # the next case has another cluster


class Outcomes(IterableDataset[str]):
    """What becomes of some cases; the datasets travel with it to a worker."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases

    def __iter__(self) -> Iterator[str]:
        return (case.read() for case in self.cases)


def read(way: Way, config: ClientConfig, data: Any = None, seconds: float = 0.0) -> str:
    """What comes of reading everything: "data", the name of an error, or what is wrong with it."""
    began = time.monotonic() - seconds
    got: list[Any] = []
    try:
        got.extend(way.make(config) if data is None else data)
        outcome = "data" if got == way.exact else "WRONG DATA"
    except AISPipeError as error:
        outcome = _named(error) if got == way.exact[: len(got)] else "WRONG DATA before the error"
    except Exception as error:  # whatever it is, it is the outcome
        return f"NOT OURS {error!r}"
    late = time.monotonic() - began
    return outcome if late < LATE else f"{outcome}, LATE: {late:.0f} s"


def _named(error: AISPipeError) -> str:
    """The error's name, if it says what it is about."""
    url = getattr(error, "url", None)
    return type(error).__name__ if url and str(url) in str(error) else f"NAMELESS {error!r}"


# ---- the page


def rows_of(found: dict[Cell, str]) -> list[str]:
    """The table of the page: for each request and fault what comes of it, and in which ways of reading something else."""
    by_fault: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell, outcome in found.items():
        by_fault.setdefault((cell.request, str(cell.fault)), {}).setdefault(outcome, []).append(cell.way)
    lines = []
    for (request, fault), ways in sorted(by_fault.items()):
        usual, *others = sorted(ways, key=lambda outcome: -len(ways[outcome]))
        exceptions = "; ".join(f"{other}: {', '.join(sorted(ways[other]))}" for other in others)
        lines.append(f"| `{request}` | `{fault}` | {usual} | {exceptions} |")
    return lines


def shown() -> dict[tuple[str, str], dict[str, str]]:
    """By request and fault what the page says: by way of reading the outcome; under "" the usual one."""
    told: dict[tuple[str, str], dict[str, str]] = {}
    for line in PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines():
        if not line.startswith("| `"):
            continue
        request, fault, usual, exceptions = (part.strip(" `") for part in line.strip("|").split("|"))
        others = dict(part.split(": ", 1) for part in exceptions.split("; ") if part)
        ways = {way: outcome for outcome, names in others.items() for way in re.split(r", (?![^(]*\))", names)}
        told[request, fault] = {"": usual, **ways}
    return told


def main() -> None:
    logging.disable()  # of every try that failed
    found = {}
    for name in WAYS:
        some = [cell for cell in cells(name) if cell.stays]
        found |= dict(zip(some, outcomes(some, "loop"), strict=True))
        print(f"{name}: {len(some)} cells")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    count = sum(len(cells(name, consumer)) for name in WAYS for consumer in CONSUMERS)
    head = [f"{count:,} cells.", "", "| request | fault | what comes of it | except |", "|---|---|---|---|"]
    PAGE.write_text("\n".join([before.rstrip("\n") + f"\n\n{BEGIN}", *head, *rows_of(found), f"{END}{after}"]))


if __name__ == "__main__":
    main()
