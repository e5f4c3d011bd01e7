"""All ways to read a cluster, and what exactly each of them has to give; module level, so that workers find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aistore.sdk import Client
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISBatchIterDataset,
    AISFileLister,
    AISFileLoader,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISParallelMapDataset,
    AISShardMapDataset,
    AISShardReader,
    ClientConfig,
    DynamicBatchSampler,
    FetchPlan,
    RetryPolicy,
)
from aisdatapipes.devserver import DevCluster
from tests.datasets.samples import shard

DEADLINE = 10.0  # seconds for an object, over all tries
RETRY = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.02, deadline=DEADLINE)
OBJECTS, ODD, SHARDS, UNINDEXED = "objects", "large", "shards", "unindexed"
FEW = 12  # objects, where each is asked for alone
LARGE = 100_000  # bytes: several ranges of the plan below
PLAN = {"range_bytes": 40_000, "width": 8}

_SMALL = {f"{i:03d}.bin": bytes([i]) * (200 + i) for i in range(80)}
_BIG = {"large.bin": bytes(range(250)) * (LARGE // 250)}
_SAMPLES = {
    f"{number}.tar": [(f"{number}-{i}", {"bin": bytes([i]) * 700, "cls": b"%d" % i}) for i in range(6)]
    for number in range(3)
}
_TARS = {name: shard(*samples) for name, samples in _SAMPLES.items()}


def filled(cluster: DevCluster) -> None:
    """All that the ways read."""
    for bucket, objects in (
        (OBJECTS, _SMALL),
        (ODD, _BIG),
        (SHARDS, _TARS),
        (UNINDEXED, _TARS),
    ):
        cluster.create_bucket(bucket)
        for name, data in objects.items():
            cluster.put(bucket, name, data)
    cluster.index_shards(SHARDS)


_ALL_SAMPLES = [sample for samples in _SAMPLES.values() for sample in samples]
_URLS = [f"ais://{OBJECTS}/{name}" for name in _SMALL]


@dataclass(frozen=True)
class Way:
    """One way to read.

    Args:
        make: From a config, what is iterated; it may ask the cluster already.
        exact: What has to come out of it.
        by_proxy: The targets turn away whom no proxy sent.
        whole: The cluster tells a checksum of what each answer of it carries, so a flipped bit can be found.
    """

    make: Callable[[ClientConfig], Any]
    exact: list[Any]
    whole: bool = False
    by_proxy: bool = False


def _listed(config: ClientConfig) -> Any:
    return Listed(AISFileLister(IterableWrapper([f"ais://{OBJECTS}/"]), config))


def _loaded(config: ClientConfig) -> Any:
    return Contents(AISFileLoader(IterableWrapper(_URLS), config))


def _iterable(strategy: Any, bucket: str = OBJECTS) -> Callable[[ClientConfig], Any]:
    def make(config: ClientConfig) -> Any:
        return AISIterDataset(f"ais://{bucket}/", config=config, fetch=FetchPlan(strategy, **PLAN))

    return make


def _in_batches(config: ClientConfig) -> Any:
    return AISBatchIterDataset(f"ais://{OBJECTS}/", Client(config.endpoint), config=config, max_batch_size=16)


def _map(strategy: Any) -> Callable[[ClientConfig], Any]:
    def make(config: ClientConfig) -> Any:
        return Items(AISMapDataset(f"ais://{OBJECTS}/", config=config, fetch=FetchPlan(strategy, **PLAN)))

    return make


def _one_by_one(config: ClientConfig) -> Any:
    return OneByOne(AISMapDataset(f"ais://{OBJECTS}/", config=config))


def _in_parallel(config: ClientConfig) -> Any:
    return OneByOne(AISParallelMapDataset(f"ais://{ODD}/", config=config, fetch=FetchPlan(**PLAN), num_workers=2))


def _sizes(config: ClientConfig) -> Any:
    return Sizes(AISMapDataset(_URLS[:FEW], config=config))


def _shards(index: Any, bucket: str = SHARDS) -> Callable[[ClientConfig], Any]:
    def make(config: ClientConfig) -> Any:
        return Plain(AISShardReader(f"ais://{bucket}/", config=config, index=index, fetch=FetchPlan(**PLAN)))

    return make


def _shard_map(config: ClientConfig) -> Any:
    return Plain(Items(AISShardMapDataset(f"ais://{SHARDS}/", config=config, index="server", fetch=FetchPlan(**PLAN))))


def _in_step(config: ClientConfig) -> Any:
    return AISMultiShardStream([f"ais://{SHARDS}/", f"ais://{SHARDS}/"], config=config)


class Wrapped:
    """What is iterated another way than by itself."""

    def __init__(self, data: Any) -> None:
        self.data = data


class Listed(Wrapped):
    """Of a pipe, URLs."""

    def __iter__(self) -> Iterator[Any]:
        return map(str, self.data)


class Contents(Wrapped):
    """Of a pipe, (URL, content)."""

    def __iter__(self) -> Iterator[Any]:
        return ((str(url), stream.read()) for url, stream in self.data)


class Items(Wrapped):
    """Of a map dataset, all items in passes of fifty."""

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self.data), 50):
            yield from self.data.__getitems__(list(range(first, min(first + 50, len(self.data)))))


class OneByOne(Wrapped):
    """Of a map dataset, item by item, contents as bytes; the first few are enough."""

    def __iter__(self) -> Iterator[Any]:
        for index in range(min(FEW, len(self.data))):
            name, content = self.data[index]
            yield name, content if isinstance(content, bytes) else content.tobytes()


class Sizes(Wrapped):
    """Of a map dataset of named objects, what a sampler by size makes of it."""

    def __iter__(self) -> Iterator[Any]:
        return iter(DynamicBatchSampler(self.data, max_batch_size=1000))


class Plain(Wrapped):
    """Of samples, (key, dict)."""

    def __iter__(self) -> Iterator[Any]:
        return ((key, dict(sample)) for key, sample in self.data)


def _batches() -> list[Any]:
    found: list[list[int]] = []
    total = 1001
    for index, data in enumerate(list(_SMALL.values())[:FEW]):
        total += len(data)
        if total > 1000:
            found.append([])
            total = len(data)
        found[-1].append(index)
    return found


_OBJECTS, _LARGE = list(_SMALL.items()), list(_BIG.items())
_MEMBERS = [data for _, sample in _ALL_SAMPLES for data in sample.values()]

WAYS = {
    "list_files_by_ais": Way(_listed, _URLS),
    "load_files_by_ais": Way(_loaded, list(zip(_URLS, _SMALL.values(), strict=True)), whole=True),
    "AISIterDataset (get)": Way(_iterable("get"), _OBJECTS, whole=True),
    "AISIterDataset (by the proxy)": Way(_iterable("get"), _OBJECTS, whole=True, by_proxy=True),
    "AISIterDataset (batch)": Way(_iterable("batch"), _OBJECTS),
    "AISIterDataset (auto)": Way(_iterable("auto"), _OBJECTS),
    "AISIterDataset (ranges)": Way(_iterable("ranges", ODD), _LARGE, whole=True),
    "AISBatchIterDataset": Way(_in_batches, _OBJECTS),
    "AISMapDataset (get)": Way(_map("get"), _OBJECTS, whole=True),
    "AISMapDataset (batch)": Way(_map("batch"), _OBJECTS),
    "AISMapDataset[i]": Way(_one_by_one, _OBJECTS[:FEW], whole=True),
    "AISParallelMapDataset[i]": Way(_in_parallel, _LARGE, whole=True),
    "DynamicBatchSampler": Way(_sizes, _batches()),
    "AISShardReader (off)": Way(_shards("off"), _ALL_SAMPLES),
    "AISShardReader (client)": Way(_shards("client"), _ALL_SAMPLES),
    "AISShardReader (server)": Way(_shards("server"), _ALL_SAMPLES),
    "AISShardReader (server, none yet)": Way(_shards("server", UNINDEXED), _ALL_SAMPLES),
    "AISShardReader (auto)": Way(_shards("auto"), _ALL_SAMPLES),
    "AISShardMapDataset": Way(_shard_map, _ALL_SAMPLES),
    "AISMultiShardStream": Way(_in_step, [(data, data) for data in _MEMBERS]),
}


def loader(data: Any, start: str) -> DataLoader[Any]:
    """One worker, started so, that hands over what it is given as it is."""
    return DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=start)
