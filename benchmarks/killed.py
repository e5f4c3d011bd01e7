"""What does it cost an epoch that a target is killed in it and started again?

20,000 objects of 10 KiB on three targets, with the configuration that nobody has changed. Each measurement reads two
epochs: one in which nothing happens, and one in which a target is killed (SIGKILL) when a third of the samples are out,
and started again 5 s later. Every byte of both is compared; the column that counts is how much longer the second took.

    python -m benchmarks.killed [--quick]
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import described, filler, put_all
from benchmarks.measure import (
    Limit,
    Measurement,
    Report,
    Stored,
    asked,
    chosen,
    content_of,
    cpu_seconds,
    named,
    resident_bytes,
    settled_bytes,
)

SIZE = 10 << 10
AWAY_S = 5.0  # less than it takes the cluster to notice
KEY = b"hurt"
LONGER, UNHURT, HURT = "seconds longer", "unhurt epoch s", "hurt epoch s"


@dataclass(frozen=True)
class Epoch:
    """A way to read an epoch, and where to have a target killed."""

    dataset: str
    strategy: Any
    hurter: Any  # address of the `Hurter`


class Hurter:
    """Kills a target when a client asks for it, and starts it again; the next one is answered when all is well."""

    def __init__(self, kill: Callable[[], None], start: Callable[[], None], settle: Callable[[], None]) -> None:
        self._kill, self._start, self._settle = kill, start, settle
        self._listener = Listener(("127.0.0.1", 0), authkey=KEY)
        self.address = self._listener.address
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            with contextlib.suppress(EOFError, AuthenticationError), self._listener.accept() as connection:
                word = connection.recv()
                if word == "end":
                    return
                if word == "kill":
                    self._kill()
                    connection.send("killed")
                    time.sleep(AWAY_S)
                    self._start()
                else:
                    self._settle()
                    connection.send("settled")

    def close(self) -> None:
        with Client(self.address, authkey=KEY) as connection:
            connection.send("end")
        self._thread.join()
        self._listener.close()


def told(address: Any, word: str) -> None:
    """Say a word to the hurter, and wait until it is done."""
    with Client(address, authkey=KEY) as connection:
        connection.send(word)
        connection.recv()


def killed_in(samples: Iterable[Any], at: int, address: Any) -> Iterator[Any]:
    """The samples, passed on; a target is killed after so many."""
    for number, sample in enumerate(samples):
        if number == at:
            told(address, "kill")
        yield sample


def measured(epoch: Epoch, stored: Stored) -> Measurement:
    """An epoch without and an epoch with a killed target."""
    from aisdatapipes import AISIterDataset, AISMapDataset, FetchPlan

    told(epoch.hurter, "settle")
    made: Any = {"iter": AISIterDataset, "map": AISMapDataset}[epoch.dataset]
    dataset = made(f"ais://{stored.bucket}/", config=_config(stored), fetch=FetchPlan(epoch.strategy))
    len(dataset)  # the listing is another thing
    before, cpu, began = settled_bytes(), cpu_seconds(), time.perf_counter()
    unhurt = content_of(_epoch(dataset))
    middle = time.perf_counter()
    hurt = content_of(killed_in(_epoch(dataset), len(stored.names) // 3, epoch.hurter))
    ended = time.perf_counter()
    if unhurt != hurt:
        raise ValueError(f"{unhurt} without and {hurt} with a killed target")
    more = {UNHURT: middle - began, HURT: ended - middle, LONGER: (ended - middle) - (middle - began)}
    return Measurement(hurt, ended - middle, cpu_seconds() - cpu, resident_bytes("VmHWM") - before, more)


def _config(stored: Stored) -> Any:
    from aisdatapipes import ClientConfig

    return ClientConfig(stored.endpoint)


def _epoch(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, "__getitems__"):
        for at in range(0, len(dataset), 64):
            yield from dataset.__getitems__(list(range(at, min(at + 64, len(dataset)))))
    else:
        yield from dataset


@contextlib.contextmanager
def hurtable(*, quick: bool) -> Iterator[tuple[str, str, Hurter]]:
    """(endpoint, what it is, who hurts it): a real cluster of our own, else the embedded one. Nobody else's."""
    from tests.cluster import LocalCluster, aisnode

    if aisnode() is None or quick:
        from aisdatapipes.devserver import DevCluster

        if not quick:
            print("\n*** No aisnode on PATH: an EMBEDDED cluster is hurt.\n")
        with DevCluster(targets=3) as embedded:
            hurter = Hurter(lambda: embedded.kill(1), lambda: embedded.revive(1), lambda: None)
            yield embedded.endpoint, described(embedded.endpoint), hurter
            hurter.close()
        return
    with LocalCluster(targets=3) as cluster:

        def settle() -> None:
            cluster.wait_ready()
            cluster.until(lambda: not cluster.rebalances(), "still rebalancing")

        hurter = Hurter(lambda: cluster.kill("t2"), lambda: cluster.start("t2"), settle)
        yield cluster.endpoint, described(cluster.endpoint), hurter
        hurter.close()


WAYS = {
    "aisdatapipes AISIterDataset": ("iter", "auto"),
    "aisdatapipes AISIterDataset, get": ("iter", "get"),
    "aisdatapipes AISMapDataset": ("map", "auto"),
}


def main() -> int:
    options = asked(__doc__ or "")
    count = 300 if options.quick else 20_000
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    with hurtable(quick=options.quick) as (endpoint, server, hurter), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, objects)
        stored = Stored(endpoint, made.name, tuple(name for name, _ in objects), content_of(objects))
        report = Report("killed", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        contenders = {name: Epoch(*way, hurter.address) for name, way in WAYS.items()}
        report.measure(chosen(contenders, options), stored, measured)
    report.check(*(Limit(name, LONGER, 20) for name in WAYS if name in report.rows))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
