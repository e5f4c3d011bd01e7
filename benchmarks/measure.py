"""Contenders, measured in turn: each measurement in a process of its own, every byte checked.

A contender is a function that gets a `Stored` and returns an iterable of ``(name, content)``, content being bytes or
a mapping from extension to bytes. Importing and constructing happen inside it before the clock starts; iterating is
what is measured. The sum over all contents is part of every measurement, so its cost (about 2 us for 10 KiB) is in
every row.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

MEASURE_SECONDS = 600  # a measurement that takes longer is a hang
RESULTS = Path(__file__).parent / "results"
FIRST, REQUESTS, LISTS, CPU = "first ms", "requests/sample", "lists", "client CPU us/sample"
PACKAGES = ("torch", "aistore", "pycurl", "webdataset", "numpy", "pyarrow")


@dataclass(frozen=True)
class Content:
    """What must come out: how many samples, of how many bytes, with which sum over names and contents."""

    count: int = 0
    bytes: int = 0
    sum: int = 0


@dataclass(frozen=True)
class Stored:
    """What the contenders read: a bucket of a cluster, and what is in it."""

    endpoint: str
    bucket: str
    names: tuple[str, ...]
    content: Content


@dataclass(frozen=True)
class Measurement:
    """What one contender did in one round; seconds of the clock, of CPU in the client, bytes of memory."""

    content: Content
    seconds: float
    cpu_seconds: float
    memory_bytes: int  # the highest resident size, over what it was before
    more: dict[str, float] = field(default_factory=dict)  # by column


@dataclass(frozen=True)
class Target:
    """``contender`` shall be at least ``times`` as fast as ``rival`` in the same round."""

    contender: str
    rival: str
    times: float


@dataclass(frozen=True)
class Limit:
    """``contender`` shall have at most (or, ``least``, at least) ``value`` in ``column``."""

    contender: str
    column: str
    value: float
    least: bool = False


Contender = Callable[[Stored], Iterable[tuple[str, Any]]]
Measure = Callable[[Any, Stored], Measurement]


def digest(name: str, data: bytes) -> int:
    """A number for a name with its content; sums of these do not depend on an order."""
    return xxhash.xxh3_64_intdigest(data, zlib.crc32(name.encode()))


def content_of(samples: Iterable[tuple[str, Any]]) -> Content:
    """Count, bytes and sum of samples."""
    count = size = total = 0
    for name, content in samples:
        count += 1
        if isinstance(content, Mapping):
            for extension, data in content.items():
                size += len(data)
                total += digest(f"{name}.{extension}", data)
        else:
            size += len(content)
            total += digest(name, content)
    return Content(count, size, total % (1 << 64))


class Timed:
    """Samples, passed on; the moment when the first one came."""

    def __init__(self, samples: Iterable[Any]) -> None:
        self._samples = samples
        self.first: float | None = None

    def __iter__(self) -> Iterator[Any]:
        for sample in self._samples:
            if self.first is None:
                self.first = time.perf_counter()
            yield sample


class Loaded:
    """The samples of a DataLoader that yields lists, with the counters of its dataset."""

    def __init__(self, loader: Iterable[list[Any]], dataset: Any) -> None:
        self._loader, self._dataset = loader, dataset

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._loader)

    def stats(self) -> dict[str, float]:
        found: dict[str, float] = self._dataset.stats() if hasattr(self._dataset, "stats") else {}
        return found


def iterated(contender: Contender, stored: Stored) -> Measurement:
    """One pass over what a contender yields."""
    samples = contender(stored)
    before = settled_bytes()
    timed = Timed(samples)
    cpu, began = cpu_seconds(), time.perf_counter()
    content = content_of(timed)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    more = {FIRST: (timed.first - began) * 1e3} if timed.first is not None else {}
    stats = samples.stats() if hasattr(samples, "stats") else {}
    if "requests" in stats:
        more[REQUESTS] = stats["requests"] / max(1, content.count)
        more[LISTS] = stats["lists"]
    return Measurement(content, seconds, cpu, resident_bytes("VmHWM") - before, more)


def cpu_seconds() -> float:
    """Of this process, all its threads, and the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def settled_bytes() -> int:
    """The resident size now; the highest one counts from here."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")


def resident_bytes(which: str) -> int:
    """``VmRSS``, or the highest it was, ``VmHWM``. (getrusage tells that of the parent, if it was larger.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) << 10
    raise LookupError(which)


def apart(function: Callable[..., Any], *arguments: Any, quick: bool = False) -> Any:
    """What a function returns that is called in a new process; its exceptions, and a hang, are raised here.

    With ``quick`` the process is forked from one that has imported torch, which takes longer than a small measurement.
    """
    context = multiprocessing.get_context("forkserver" if quick else "spawn")
    if quick:
        context.set_forkserver_preload(["torch"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result(MEASURE_SECONDS)


@dataclass
class Report:
    """The measurements of a benchmark, row by row.

    Args:
        name: Of the benchmark: its module.
        question: What it answers.
        rounds: Measurements of each contender.
        server: What was read from.
        quick: Times do not matter, and no result is kept.
    """

    name: str
    question: str
    rounds: int
    server: str
    quick: bool = False
    rows: dict[str, list[Measurement]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)

    def measure(self, contenders: Mapping[str, Any], stored: Stored, measure: Measure = iterated) -> None:
        """Every contender once in each round, in turn; what came out wrong is noted and measured no more."""
        for turn in range(self.rounds):
            for name, contender in contenders.items():
                if any(name in line for line in self.wrong):
                    continue
                try:
                    got = apart(getattr(contender, "measure", measure), contender, stored, quick=self.quick)
                except Exception as error:  # noqa: BLE001 - a row that fails is a result
                    self.wrong.append(f"{name}, round {turn + 1}: {type(error).__name__}: {error}")
                    continue
                if got.content != stored.content:
                    self.wrong.append(f"{name}, round {turn + 1}: {got.content} instead of {stored.content}")
                self.rows.setdefault(name, []).append(got)
                print(f"  round {turn + 1}: {got.content.count / got.seconds:9.0f}/s  {name}", flush=True)

    def check(self, *targets: Target | Limit) -> None:
        """Note which targets are met; a target that is missed is no failure."""
        for target in targets:
            mine = self.rows.get(target.contender, [])
            if isinstance(target, Target):
                theirs = self.rows.get(target.rival, [])
                values = [slow.seconds / fast.seconds for fast, slow in zip(mine, theirs, strict=False)]
                what, least, value = f"times as fast as {target.rival}", True, target.times
            else:
                values = [columns(one)[target.column] for one in mine]
                what, least, value = target.column, target.least, target.value
            if values:
                got = statistics.median(values)
                met = got >= value if least else got <= value
                verdict = "met" if met else "MISSED"
                aim = f"at {'least' if least else 'most'} {value:g} {what}"
                self.targets.append(f"{verdict}: {target.contender}: {aim}: {spread(values)}")

    def finish(self, *, keep: bool) -> int:
        """Print the table, keep the result in a file if asked to; the exit status."""
        print(f"\n{self.question}\n{self.server}; median (lowest-highest) of {self.rounds}\n")
        table = {name: [columns(one) for one in row] for name, row in self.rows.items()}
        heads = list(dict.fromkeys(head for row in table.values() for one in row for head in one))
        print(f"| |{'|'.join(heads)}|\n|---|{'--:|' * len(heads)}")
        for name, row in table.items():
            cells = (spread([one[head] for one in row]) if head in row[0] else "" for head in heads)
            print(f"| {name} | {' | '.join(cells)} |")
        print(*("", *self.targets), sep="\n")
        print(*(f"WRONG: {line}" for line in self.wrong), sep="\n")
        if keep and self.rows and not self.wrong and not self.quick:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{self.name}.json"
            path.write_text(json.dumps(self._as_json(table), indent=1) + "\n")
        return 1 if self.wrong or not self.rows else 0

    def _as_json(self, table: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
        rows = {
            name: {
                "content": asdict(self.rows[name][0].content),
                **{head: [round(one[head], 3) for one in row] for head in row[0]},
            }
            for name, row in table.items()
        }
        surroundings = {"date": today(), "machine": machine(), "versions": versions(), "server": self.server}
        return {"question": self.question, "rounds": self.rounds, **surroundings, "targets": self.targets, "rows": rows}


def columns(one: Measurement) -> dict[str, float]:
    """The numbers of one measurement, by head of column."""
    count = max(1, one.content.count)
    return {
        "samples/s": count / one.seconds,
        "MB/s": one.content.bytes / one.seconds / 1e6,
        CPU: one.cpu_seconds / count * 1e6,
        "peak memory MB": one.memory_bytes / 1e6,
        **one.more,
    }


def spread(values: Sequence[float]) -> str:
    """``median (lowest-highest)``."""
    if len(values) == 1:
        return short(values[0])
    return f"{short(statistics.median(values))} ({short(min(values))}-{short(max(values))})"


def short(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def today() -> str:
    """The date, UTC."""
    return dt.datetime.now(dt.timezone.utc).date().isoformat()


def machine() -> dict[str, Any]:
    """CPU model, cores that this process may use, memory, system."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "note": "client and servers share these cores; compare rows of one run only",
    }


def versions() -> dict[str, str]:
    """Python, packages, and the commit of this checkout (with a plus sign where files differ from it)."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "commit": f"{_git('rev-parse', '--short', 'HEAD')}{'+' if _git('diff', 'HEAD', '--stat') else ''}"}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def asked(question: str) -> argparse.Namespace:
    """The arguments that all benchmarks have; ``rounds`` is 1 with ``--quick``."""
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of a small size, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="contenders whose name has this in it (no result is kept)")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def chosen(contenders: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Those that ``--only`` leaves."""
    return {name: contender for name, contender in contenders.items() if options.only in name}


def named(prefix: str, count: int, extension: str = "bin") -> Iterator[str]:
    """``count`` names, in the order of a listing."""
    return (f"{prefix}/{i:06d}.{extension}" for i in range(count))
