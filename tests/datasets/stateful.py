"""Loaders that save state, run as a program: every cut of a dataset's epoch, and what comes after it.

Run in an interpreter that finds the wanted torchdata first: ``python -m tests.datasets.stateful URL ENDPOINT KIND``.
It prints the first difference and fails, or prints how many cuts were right.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from aistore.sdk import Client

from aisdatapipes import (
    AISBatchIterDataset,
    AISFileLister,
    AISIterDataset,
    AISMapDataset,
    AISMix,
    AISPipeDataset,
    AISSampler,
    AISShardReader,
    ClientConfig,
    DynamicBatchSampler,
)

BATCH = 3


class Lengths(AISIterDataset):
    """A user's subclass, on top of ours."""

    def __iter__(self) -> Iterator[Any]:
        for name, data in super().__iter__():
            yield f"{name}:{len(data)}"


class FromObjects(AISIterDataset):
    """A user's subclass, as those of the reference are."""

    def __iter__(self) -> Iterator[Any]:
        self._reset_iterator()
        objects, _ = self._get_worker_iter_info()
        for thing in objects:
            yield thing.name


KINDS = {
    "objects": AISIterDataset,
    "batches": AISBatchIterDataset,
    "shards": AISShardReader,
    "subclass": Lengths,
    "objects of the SDK": FromObjects,
    "partitioned": AISIterDataset,
}


def dataset(kind: str, url: str, endpoint: str) -> Any:
    options = {
        "config": ClientConfig(endpoint),
        "shuffle": True,
        "seed": 3,
        "batch_size": 1 if kind == "shards" else BATCH,
    }
    if kind == "batches":
        return AISBatchIterDataset(url, Client(endpoint), shuffle=True, seed=3, batch_size=BATCH)
    if kind == "shards":
        options["fields"] = ("txt",)
    if kind == "partitioned":
        options["partition_sources_by_worker"] = True
        return AISIterDataset([url + "o/0", url + "o/1"], **options)
    if kind == "mix":
        order = {"batch_size": options.pop("batch_size"), "stop": "all_exhausted_without_replacement"}
        return AISMix(
            {AISIterDataset(f"{url}{first}", **options): weight for first, weight in ((0, 3), (1, 2))}, **order
        )
    if kind == "objects of the SDK":
        bucket = Client(endpoint).bucket(url.split("/")[2])
        return FromObjects(bucket, {bucket: "o/"}, **options)
    return KINDS[kind](url, **options)


def chain(kind: str, url: str, endpoint: str) -> Any:
    shards = kind == "chain of shards"
    planner = AISFileLister(url, endpoint).ais_plan(shuffle=True, seed=3, batch_size=1 if shards else BATCH)
    loader = planner.ais_load_files(endpoint)
    return AISPipeDataset(loader.ais_read_shards(fields=("txt",)) if shards else loader.map(named))


def named(pair: Any) -> str:
    return str(pair[0].name)


def sampled(kind: str, url: str, endpoint: str) -> Any:
    data = AISMapDataset(url, config=ClientConfig(endpoint))
    if kind == "dynamic":
        return data, DynamicBatchSampler(data, 75, shuffle=True, seed=3)
    return data, AISSampler(data, shuffle=True, seed=3, batch_size=BATCH)


def plain(batch: list[Any]) -> list[str]:
    """The names of the samples."""
    return [sample if isinstance(sample, str) else sample[0] for sample in batch]


def loader_of(data: Any, **options: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    if options.get("num_workers") and "multiprocessing_context" not in options:
        options["multiprocessing_context"] = "fork"
    if isinstance(data, tuple):
        return StatefulDataLoader(data[0], batch_sampler=data[1], collate_fn=plain, **options)
    return StatefulDataLoader(data, batch_size=BATCH, collate_fn=plain, **options)


def check(make: Any, cuts: list[int], **options: Any) -> int:
    """Each cut of the second epoch, resumed by new loader and dataset, gives the same rest, and the same third epoch."""
    loader = loader_of(make(), **options)
    epochs = [list(loader) for _ in range(4)]
    assert len({str(epoch) for epoch in epochs}) == 4, "epochs are shuffled alike"
    del loader
    for cut in cuts:
        first = loader_of(make(), **options)
        assert list(first) == epochs[0]
        passing = iter(first)
        assert [next(passing) for _ in range(cut)] == epochs[1][:cut]
        if cut == len(epochs[1]):
            assert next(passing, None) is None
        state = json.loads(json.dumps(first.state_dict()))
        del passing, first
        again = loader_of(make(), **options)
        again.load_state_dict(state)
        # Of an epoch that has ended, the next one follows.
        expected = [epochs[1][cut:], epochs[2]] if cut < len(epochs[1]) else [epochs[2], epochs[3]]
        found = [list(again), list(again)]
        assert found == expected, f"cut {cut} with {options}: {found}, not {expected}"
    return len(cuts)


def check_twice(make: Any, **options: Any) -> None:
    """Saved, resumed, saved again and resumed again: the epoch goes on."""
    whole = list(loader_of(make(), **options))
    found, state = [], None
    while len(found) < len(whole):
        loader = loader_of(make(), **options)
        if state is not None:
            loader.load_state_dict(state)
        passing = iter(loader)
        found += [next(passing) for _ in range(min(2, len(whole) - len(found)))]
        state = json.loads(json.dumps(loader.state_dict()))
        del passing, loader
    assert found == whole, f"twice with {options}: {found}, not {whole}"


def check_nodes(make: Any) -> int:
    """torchdata's nodes: every cut, with and without threads that read ahead."""
    import torchdata.nodes as tn

    def pipeline() -> Any:
        data = make()
        if isinstance(data, tuple):
            node = tn.Mapper(tn.SamplerWrapper(data[1]), data[0].__getitems__)
        else:
            node = tn.Batcher(tn.IterableWrapper(data), BATCH, drop_last=False)
        node = tn.ParallelMapper(node, plain, num_workers=2, method="thread")
        return tn.Loader(tn.Prefetcher(node, 3))

    loader = pipeline()
    epochs = [list(loader) for _ in range(3)]
    for cut in range(len(epochs[1])):
        first = pipeline()
        assert list(first) == epochs[0]
        passing = iter(first)
        assert [next(passing) for _ in range(cut)] == epochs[1][:cut]
        state = json.loads(json.dumps(first.state_dict()))
        again = pipeline()
        again.load_state_dict(state)
        found = [list(again), list(again)]
        assert found == [epochs[1][cut:], epochs[2]], f"nodes, cut {cut}: {found}, not {epochs[1][cut:]}, {epochs[2]}"
    return len(epochs[1])


def main(url: str, endpoint: str, kind: str, which: str) -> None:
    def make() -> Any:
        maker = sampled if kind in ("sampler", "dynamic") else chain if kind.startswith("chain") else dataset
        return maker(kind, url, endpoint)

    steps = len(list(loader_of(make())))
    if which == "nodes":
        print(check_nodes(make))
    else:
        options = json.loads(which)
        some = sorted({0, 1, 2, steps // 2, steps - 1, steps} if options.get("num_workers") else range(steps + 1))
        print(check(make, some, **options))
        check_twice(make, **options)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
