"""Iterations of every kind over one bucket, for tests that mistreat them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import AISIterDataset, AISMix, AISShardReader, FetchPlan
from tests.conftest import TestBucket
from tests.datasets.samples import numbered

HANG = 60  # seconds; what takes longer hangs
# More than a group, a width and a batch of them, so that something is under way whenever an iteration is disturbed.
OBJECTS = {f"o/{i:03}": bytes([i % 256]) * (2000 + i) for i in range(300)}
SHARDS = {f"s/{i}.tar": numbered(100 * i, 100) for i in range(3)}


def filled(bucket: TestBucket) -> TestBucket:
    """The bucket, with objects and shards."""
    bucket.fill(OBJECTS | SHARDS)
    return bucket


def _objects(bucket: TestBucket, strategy: Any, **options: Any) -> AISIterDataset:
    plan = FetchPlan(strategy, width=16, batch_objects=32, range_bytes=1000)
    return AISIterDataset(f"{bucket.url}o/", config=bucket.server.config, fetch=plan, **options)


def _shards(bucket: TestBucket, index: Any) -> AISShardReader:
    plan = FetchPlan(range_bytes=20_000)
    return AISShardReader(f"{bucket.url}s/", config=bucket.server.config, fetch=plan, index=index)


def chain(bucket: TestBucket) -> Any:
    """Pipes that list and load the objects."""
    config = bucket.server.config
    listed = IterableWrapper([f"{bucket.url}o/"]).ais_list_files(config)
    return listed.ais_load_files(config, fetch=FetchPlan("get")).map(_read)


def _read(pair: Any) -> tuple[str, bytes]:
    return pair[0].name, pair[1].read()


# A dataset of each kind, by the way in which it reads.
DATASETS: dict[str, Callable[[TestBucket], Any]] = {
    "get": lambda bucket: _objects(bucket, "get"),
    "batch": lambda bucket: _objects(bucket, "batch"),
    "ranges": lambda bucket: _objects(bucket, "ranges"),
    "auto": lambda bucket: _objects(bucket, "auto", shuffle=True, seed=3),
    "shards": lambda bucket: _shards(bucket, "off"),
    "index": lambda bucket: _shards(bucket, "client"),
    "mix": lambda bucket: AISMix({_objects(bucket, "get"): 2, _objects(bucket, "batch"): 1}),
}


def plain(sample: Any) -> Any:
    """A sample that can be compared: shards' fields are a dict of its own kind."""
    name, content = sample
    return name, dict(content) if isinstance(content, dict) else content


def epoch(dataset: Any, number: int = 0) -> list[Any]:
    """The samples of an epoch."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(number)
    return [plain(sample) for sample in dataset]


def forked(in_child: Callable[[], object]) -> int:
    """The exit status of a forked child that runs this: 0 when nothing was raised; one that hangs is ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            in_child()
            code = 0
        except BaseException as error:
            os.write(2, f"in the forked child: {error!r}\n".encode())
        finally:
            os._exit(code)
    end = time.monotonic() + HANG
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])
