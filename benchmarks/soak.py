"""Does a job get the right bytes from a cluster that is hurt all the time?

Two ranks with two workers each read shuffled epochs over objects of 0 bytes to 12 MB, with nothing set by hand, and now
and then stop and resume from a state. Meanwhile targets of a real cluster are killed, ended, stopped and put into
maintenance, one every few seconds, as a seed says. Each rank compares each sample with what was stored; after each
epoch, what both ranks had is put together: nothing lost, nothing twice.

    python -m benchmarks.soak [--minutes 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import queue
import random
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import described, filler, put_all
from benchmarks.measure import RESULTS, machine, today, versions

RANKS, WORKERS, BATCH = 2, 2, 16
TARGETS = 4
SIZES = (*([0, 500, 5 << 10, 20 << 10, 31 << 10] * 8), *([60 << 10, 200 << 10] * 4), 1 << 20)  # of an object, in turn
LARGE_BYTES, LARGE = 12 << 20, 4
RESUMES = 0.3  # share of the epochs that stop somewhere and are resumed
PAUSE_S = (1.0, 6.0)  # between two hurts
HANG_S = 300  # seconds without a word of a rank: longer than any deadline


def content(count: int) -> dict[str, tuple[int, int]]:
    """(number, bytes) by name: what `filler` makes the content of."""
    small = {f"small/{i:05}": (i, SIZES[i % len(SIZES)]) for i in range(count)}
    return {**small, **{f"large/{i}": (count + i, LARGE_BYTES) for i in range(LARGE)}}


# ---- a rank


@dataclass(frozen=True)
class Job:
    """What all ranks are told."""

    endpoint: str
    bucket: str
    digests: str  # file with the digest of each object, by name
    seed: int


def rank_main(job: Job, rank: int, words: Any, ends: Any) -> None:
    """Reads epochs until told to end; tells what it had, epoch by epoch."""
    from torch.utils.data import DataLoader

    from aisdatapipes import AISIterDataset, AISPipeError, ClientConfig, Manifest, World

    digests = pickle.loads(Path(job.digests).read_bytes())
    config = ClientConfig(job.endpoint)
    manifest = Manifest.of(f"ais://{job.bucket}/", config=config)
    words.put((rank, "ready", None))
    dice = random.Random(job.seed * 100 + rank)
    epoch, had, stats = 0, Counter[str](), Counter[str]()
    state: dict[str, Any] | None = None
    while not ends.is_set():
        dataset = AISIterDataset(
            manifest, config=config, shuffle=True, seed=job.seed, batch_size=BATCH, even="none",
            world=World(rank, RANKS),
        )  # fmt: skip
        loader = DataLoader(dataset, BATCH, collate_fn=list, num_workers=WORKERS, multiprocessing_context="fork")
        if state is not None:
            dataset.load_state_dict(state)
        stop_after = dice.randrange(1, 40) if dice.random() < RESUMES else None
        batches = 0
        try:
            for batch in loader:
                batches += 1
                for name, data in batch:
                    if xxhash.xxh3_64_intdigest(data) != digests[name]:
                        words.put((rank, "wrong", f"epoch {epoch}: {name}: {len(data)} other bytes"))
                had.update(name for name, _ in batch)
                if batches == stop_after or ends.is_set():
                    break
        except AISPipeError as error:
            words.put((rank, "error", f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"))
        # As a job that is started again: by what was trained on so far. Behind the last batch that is the next epoch.
        state = dataset.state_dict(batches=batches)
        stats.update(numbers(dataset))
        if state["epoch"] == epoch:
            words.put((rank, "resumed", None))
        else:
            words.put((rank, "epoch", (epoch, dict(had), dict(stats))))
            epoch, had, stats = epoch + 1, Counter[str](), Counter[str]()
    words.put((rank, "end", None))


def numbers(dataset: Any) -> dict[str, int]:
    """The counters of a dataset."""
    return {key: int(value) for key, value in dataset.stats().items() if key in ("bytes", "requests", "retries")}


# ---- who hurts


class Hurting(threading.Thread):
    """One hurt after the other; each is over, and the cluster complete, before the next one begins.

    Attributes:
        told: (seconds since the begin, what was done, seconds that it lasted), in order.
        failed: Why it ended early.
    """

    def __init__(self, cluster: Any, seed: int, ends: threading.Event) -> None:
        super().__init__(daemon=True)
        self._cluster, self._dice, self._ends = cluster, random.Random(seed), ends
        self.told: list[tuple[float, str, float]] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        began = time.monotonic()
        hurts = (self._kill, self._kill, self._term, self._stand_still, self._stand_still, self._maintain)
        try:
            while not self._ends.wait(self._dice.uniform(*PAUSE_S)):
                # All is drawn before anything happens: a seed is a list of hurts, whatever becomes of them.
                hurt, target = self._dice.choice(hurts), f"t{self._dice.randint(1, TARGETS)}"
                seconds, at = self._dice.uniform(0.5, 20), time.monotonic()
                what = hurt(target, seconds)
                self._cluster.wait_targets(TARGETS)
                self._cluster.wait_ready()
                self.told.append((round(at - began, 1), what, round(time.monotonic() - at, 1)))
        except Exception as error:  # noqa: BLE001 - the run ends with it
            self.failed = error

    def _kill(self, target: str, seconds: float) -> str:
        self._cluster.kill(target)
        self._ends.wait(seconds)
        self._cluster.start(target)
        return "killed"

    def _term(self, target: str, seconds: float) -> str:
        self._cluster.term(target)
        self._ends.wait(seconds)
        self._cluster.start(target)
        return "ended"

    def _stand_still(self, target: str, seconds: float) -> str:
        self._cluster.pause(target)
        self._ends.wait(seconds)
        self._cluster.go_on(target)
        return "stopped"

    def _maintain(self, target: str, seconds: float) -> str:
        try:
            self._cluster.ask_to_maintain(target)
        except urllib.error.HTTPError:
            return "maintenance refused"  # while a get-batch or another rebalance runs
        self._ends.wait(seconds)
        self._cluster.maintain(target, on=False)
        return "in maintenance"


# ---- what is put together


@dataclass
class Found:
    """What the ranks told."""

    names: set[str]
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _epochs: dict[int, list[dict[str, int]]] = field(default_factory=dict)

    def take(self, what: str, content: Any) -> None:
        if what == "epoch":
            number, had, stats = content
            self.counts.update(stats)
            self._epochs.setdefault(number, []).append(had)
            if len(self._epochs[number]) == RANKS:
                self._check(number, self._epochs.pop(number))
        elif what == "wrong":
            self.wrong.append(content)
        elif what == "error":
            kind = content.partition(":")[0]
            self.errors[kind] += 1
            self.examples.setdefault(kind, content)
        else:
            self.counts[what] += 1

    def _check(self, number: int, shares: list[dict[str, int]]) -> None:
        had = Counter[str]()
        for share in shares:
            had.update(share)
        self.counts["epochs"] += 1
        self.counts["samples"] += had.total()
        lost, twice = self.names - had.keys(), [name for name, times in had.items() if times > 1]
        if lost:
            self.wrong.append(f"epoch {number}: {len(lost)} lost, such as {min(lost)}")
        if twice:
            self.wrong.append(f"epoch {number}: {len(twice)} twice, such as {min(twice)}")


def listen(words: Any, ranks: list[Any], found: Found, hurting: Hurting, ends_at: float, ends: Any) -> None:
    """Take what the ranks tell, until all have ended; they are told to when the time is over."""
    left, heard_at = set(range(RANKS)), dict.fromkeys(range(RANKS), time.monotonic())
    while left:
        if time.monotonic() > ends_at or hurting.failed or found.wrong:
            ends.set()
        try:
            rank, what, content = words.get(timeout=1)
        except queue.Empty:
            silent = [rank for rank in left if time.monotonic() - heard_at[rank] > HANG_S or not ranks[rank].is_alive()]
            if silent:
                found.wrong.append(f"ranks {silent} hang, or have died")
                return
            continue
        heard_at[rank] = time.monotonic()
        if what == "end":
            left.discard(rank)
        else:
            found.take(what, content)


def soaked(cluster: Any, minutes: float, seed: int, count: int) -> tuple[Found, Hurting]:
    """The ranks read, the cluster is hurt."""
    stored = content(count)
    spawn = multiprocessing.get_context("spawn")
    words, ends, calm = spawn.Queue(), spawn.Event(), threading.Event()
    made = AISBucket.new(cluster.endpoint, "soak")  # which goes with the cluster
    with tempfile.TemporaryDirectory() as folder:
        digests = {name: xxhash.xxh3_64_intdigest(filler(*one)) for name, one in stored.items()}
        (Path(folder) / "digests").write_bytes(pickle.dumps(digests))
        put_all(cluster.endpoint, made.name, ((name, filler(*one)) for name, one in stored.items()))
        job = Job(cluster.endpoint, made.name, str(Path(folder) / "digests"), seed)
        ranks = [spawn.Process(target=rank_main, args=(job, rank, words, ends)) for rank in range(RANKS)]
        found, hurting = Found(set(stored)), Hurting(cluster, seed, calm)
        for rank in ranks:
            rank.start()
        try:
            ready = 0
            while ready < RANKS:  # they list first, which a cluster that rebalances does not let them do
                _, what, said = words.get(timeout=HANG_S)
                ready += what == "ready"
                if what != "ready":
                    found.take(what, said)
            hurting.start()
            listen(words, ranks, found, hurting, time.monotonic() + minutes * 60, ends)
        finally:
            calm.set()
            if hurting.ident is not None:
                hurting.join()
            for rank in ranks:
                rank.join(10)
                rank.kill()
    return found, hurting


def main() -> int:
    question = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", type=int, default=2000)
    options = parser.parse_args()
    from tests.cluster import LocalCluster, aisnode

    if aisnode() is None:
        print("no aisnode on PATH: nothing to hurt")
        return 1
    with LocalCluster(targets=TARGETS, proxies=1) as cluster:
        server = described(cluster.endpoint)
        found, hurting = soaked(cluster, options.minutes, options.seed, options.objects)
        cluster.crash()
    wrong = [*found.wrong, *([f"the cluster could not be hurt: {hurting.failed!r}"] if hurting.failed else [])]
    result = {
        "question": question, "date": today(), "machine": machine(), "versions": versions(), "server": server,
        "minutes": options.minutes, "seed": options.seed, "objects": len(found.names),
        "ranks": RANKS, "workers": WORKERS, "wrong": wrong,
        "read": dict(found.counts), "errors": dict(found.errors), "examples": found.examples,
        "hurts": dict(Counter(what for _, what, _ in hurting.told)), "course": hurting.told,
    }  # fmt: skip
    print(json.dumps({**result, "course": f"{len(hurting.told)} hurts"}, indent=1))
    if not wrong and found.counts["epochs"]:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
