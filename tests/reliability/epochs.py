"""Epochs of all kinds over one bucket, read at the same time, that something happens to in the middle."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from aisdatapipes import AISIterDataset, AISMapDataset, AISShardReader, ClientConfig, FetchPlan
from aisdatapipes.model.errors import AISPipeError
from aisdatapipes.wire.tar import END, entry

OBJECTS, SHARDS, SAMPLES = 240, 12, 20
# So little is read ahead that most of an epoch is still to be read where the consumer stops.
WINDOW_BYTES, WIDTH = 256 << 10, 8
BATCH = 12  # indices that are asked of a map-style dataset at a time

log = logging.getLogger(__name__)

Samples = Iterable[tuple[str, Any]]


def filler(number: int, size: int) -> bytes:
    return np.random.default_rng(number).bytes(size)


def objects() -> dict[str, bytes]:
    """Objects of mixed sizes, some of which are read in parts, some by get-batch."""
    sizes = (0, 300, 4 << 10, 10 << 10, 33 << 10, 120 << 10)
    return {f"obj/{i:04}.bin": filler(i, sizes[i % len(sizes)]) for i in range(OBJECTS)}


def shards() -> dict[str, bytes]:
    return {f"tar/{i:02}.tar": b"".join(entry(*member) for member in _members(i)) + END for i in range(SHARDS)}


def samples() -> dict[str, bytes]:
    """What comes out of the shards, the fields of each sample one behind the other."""
    found: dict[str, bytes] = {}
    for shard in range(SHARDS):
        for name, data in _members(shard):
            key = name.partition(".")[0]
            found[key] = found.get(key, b"") + data
    return found


def _members(shard: int) -> Iterator[tuple[str, bytes]]:
    for i in range(SAMPLES):
        yield f"{shard:02}/{i:03}.cls", str(i).encode()
        yield f"{shard:02}/{i:03}.jpg", filler(1000 * shard + i, 9000)


def iterated(strategy: Any) -> Callable[[str, ClientConfig], Samples]:
    """Objects in a stream, by one strategy."""
    plan = FetchPlan(strategy, WIDTH, batch_objects=16, range_bytes=32 << 10, window_bytes=WINDOW_BYTES)
    return lambda bucket, config: AISIterDataset(f"{bucket}obj/", shuffle=True, config=config, fetch=plan)


def mapped(bucket: str, config: ClientConfig) -> Samples:
    """Objects by index, some at a time."""
    dataset = AISMapDataset(f"{bucket}obj/", config=config, fetch=FetchPlan(width=WIDTH, window_bytes=WINDOW_BYTES))

    def read() -> Iterator[tuple[str, bytes]]:
        for at in range(0, len(dataset), BATCH):
            yield from dataset.__getitems__(list(range(at, min(at + BATCH, len(dataset)))))

    return read()


def sharded(index: Any) -> Callable[[str, ClientConfig], Samples]:
    """Samples of shards: streamed or by an index."""
    plan = FetchPlan(width=WIDTH, range_bytes=64 << 10, window_bytes=WINDOW_BYTES)

    def read(bucket: str, config: ClientConfig) -> Samples:
        dataset = AISShardReader(
            f"{bucket}tar/", config=config, fetch=plan, index=index, shuffle=True, fields=("cls", "jpg")
        )
        return ((key, sample["cls"] + sample["jpg"]) for key, sample in dataset)

    return read


KINDS: Mapping[str, Callable[[str, ClientConfig], Samples]] = {
    "get": iterated("get"),
    "batch": iterated("batch"),
    "ranges": iterated("ranges"),
    "auto": iterated("auto"),
    "map": mapped,
    "streamed": sharded("off"),
    "indexed": sharded("client"),
}


def sums(contents: Mapping[str, bytes]) -> Counter[tuple[str, str]]:
    return Counter((name, xxhash.xxh3_64_hexdigest(data)) for name, data in contents.items())


@dataclass
class Epoch:
    """One epoch, read in a thread of its own, which stops in the middle until it is told to go on.

    Attributes:
        found: How often each name came with which content.
        error: What ended the epoch early.
        ended: Whether it has ended.
    """

    kind: str
    bucket: str
    config: ClientConfig
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    error: Any = None
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._expected = sums(samples() if self.kind in ("streamed", "indexed") else objects())
        self._middle, self._go = threading.Event(), threading.Event()
        # Should a test fail before it tells the epoch to go on, nothing waits for it.
        self._thread = threading.Thread(target=self._read, name=f"epoch {self.kind}", daemon=True)
        self._thread.start()

    def wait_for_the_middle(self) -> None:
        assert self._middle.wait(60), f"{self.kind}: {self.error}"

    def go_on(self) -> None:
        self._go.set()

    def result(self) -> str:
        """``complete``, or the name of the error; fails on anything that no epoch may do."""
        self._go.set()
        assert self.ended.wait(150), f"{self.kind} hangs"
        self._thread.join()
        assert not self.found - self._expected, f"{self.kind}: wrong or twice"
        if self.error is not None:
            assert isinstance(self.error, AISPipeError), f"{self.kind}: {self.error!r}"
            return type(self.error).__name__
        lost = sorted(name for name, _ in self._expected - self.found)
        assert not lost, f"{self.kind}: {len(lost)} samples lost, {lost[0]} the first"
        return "complete"

    def _read(self) -> None:
        try:
            for number, (name, data) in enumerate(KINDS[self.kind](self.bucket, self.config), 1):
                if number == len(self._expected) // 3:
                    self._middle.set()
                    self._go.wait()
                self.found[name, xxhash.xxh3_64_hexdigest(data)] += 1
        except BaseException as error:
            log.warning("%s ended early: %s", self.kind, error)
            self.error = error
        finally:
            self._middle.set()
            self.ended.set()
