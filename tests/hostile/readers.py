"""Every public way of reading, as functions of an endpoint that give what a user would get."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from aistore.sdk import Client
from aistore.sdk.dataset.data_shard import DataShard
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISBatchIterDataset,
    AISIterDataset,
    AISMapDataset,
    AISMultiShardStream,
    AISParallelMapDataset,
    AISShardMapDataset,
    AISShardReader,
    ClientConfig,
    FetchPlan,
    Manifest,
    RetryPolicy,
)

# As few and as short tries as there can be: what fails once in these tests fails again.
QUICK = RetryPolicy(attempts=2, first_delay=0.0, max_delay=0.0, deadline=10)
MOST = 10_000  # samples taken of one reader


def config_of(endpoint: str, **options: Any) -> ClientConfig:
    return ClientConfig(endpoint, retry=QUICK, connect_timeout=1, read_timeout=1, **options)


def objects(strategy: str = "auto", **plan: Any) -> Callable[[ClientConfig], Iterable[Any]]:
    fetch = FetchPlan(strategy=strategy, **plan)
    return lambda config: AISIterDataset("ais://b/", {"ais://b/": ["objects/", "large"]}, config=config, fetch=fetch)


def mapped(config: ClientConfig) -> Iterable[Any]:
    dataset = AISMapDataset("ais://b/", {"ais://b/": "objects/"}, config=config)
    yield dataset[0]
    yield from dataset.__getitems__(list(range(len(dataset))))


def parallel(config: ClientConfig) -> Iterable[Any]:
    dataset = AISParallelMapDataset("ais://b/", {"ais://b/": "objects/"}, config=config)
    yield from dataset.__getitems__(list(range(len(dataset))))


def shards(index: str, **options: Any) -> Callable[[ClientConfig], Iterable[Any]]:
    return lambda config: AISShardReader("ais://b/", {"ais://b/": "shards/"}, config=config, index=index, **options)


def shard_map(config: ClientConfig) -> Iterable[Any]:
    dataset = AISShardMapDataset("ais://b/", {"ais://b/": "shards/"}, config=config, index="client")
    yield from dataset.__getitems__(list(range(len(dataset))))


def multishard(config: ClientConfig) -> Iterable[Any]:
    sources = [DataShard(config.endpoint, "b", prefix=f"shards/{number}") for number in range(2)]
    return AISMultiShardStream(sources, config=config)


def batches(streaming: bool, form: str) -> Callable[[ClientConfig], Iterable[Any]]:
    def made(config: ClientConfig) -> Iterable[Any]:
        client = Client(config.endpoint)
        return AISBatchIterDataset(
            "ais://b/", client, {"ais://b/": "objects/"}, output_format=form, streaming=streaming, config=config
        )

    return made


def pipes(config: ClientConfig) -> Iterable[Any]:
    urls = IterableWrapper(["ais://b/objects/", "ais://b/large"]).ais_list_files(config)
    return ((url.name, stream.read()) for url, stream in urls.ais_load_files(config))


def named(config: ClientConfig) -> Iterable[Any]:
    """Objects whose sizes nobody told."""
    loaded = IterableWrapper(["ais://b/objects/001", "ais://b/large"]).ais_load_files(config)
    return ((url.name, stream.read()) for url, stream in loaded)


def shard_pipes(config: ClientConfig) -> Iterable[Any]:
    loaded = IterableWrapper(["ais://b/shards/"]).ais_list_files(config).ais_load_files(config)
    return loaded.ais_read_shards()


def manifest(config: ClientConfig) -> Iterable[Any]:
    return AISIterDataset(Manifest.of("ais://b/", {"ais://b/": "objects/"}, config=config), config=config)


READERS: dict[str, Callable[[ClientConfig], Iterable[Any]]] = {
    "auto": objects(),
    "get": objects("get"),
    "ranges": objects("ranges", range_bytes=10_000),
    "batch": objects("batch"),
    "map": mapped,
    "parallel map": parallel,
    "shards": shards("auto"),
    "shards off": shards("off"),
    "shards client": shards("client"),
    "shards fields": shards("off", fields=("cls", "txt"), missing="error"),
    "shard map": shard_map,
    "multishard": multishard,
    "batch .tar": batches(True, ".tar"),
    "batch .zip": batches(True, ".zip"),
    "batch multipart": batches(False, ".tar"),
    "pipes": pipes,
    "named": named,
    "shard pipes": shard_pipes,
    "manifest": manifest,
}


def read(name: str, config: ClientConfig) -> list[Any]:
    """What a reader gives, at most `MOST`."""
    return list(itertools.islice(READERS[name](config), MOST))
