"""How fast are small objects read?

Objects of 10 KiB, as the datasets hand them out: those of this package, those of ``aistore.pytorch``, and what a
loop over pycurl does that anybody could write. The datasets list the bucket as part of the measurement; the loops
know the names. "Samples in memory" is what torch takes to hand them over. The client in C is the ceiling: no dataset,
no order, no checksum, no retry, and nobody reads the bytes.

    python -m benchmarks.objects [--quick]
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import CPU, Limit, Loaded, Report, Stored, Target, asked, chosen, content_of, named
from benchmarks.rivals import ceiling, ceiling_together, curl_direct, curl_loop, has_ceiling

SIZE = 10 << 10


def our_iter(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def their_iter(stored: Stored) -> Iterable[Any]:
    from aistore.pytorch import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def our_gets(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset, FetchPlan

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket), fetch=FetchPlan("get"))


def our_chain(stored: Stored) -> Iterable[Any]:
    from torch.utils.data.datapipes.iter import IterableWrapper

    import aisdatapipes  # noqa: F401 - gives the functional names

    prefixes = IterableWrapper([f"ais://{stored.bucket}/"])
    loaded = prefixes.list_files_by_ais(url=stored.endpoint).load_files_by_ais(url=stored.endpoint)
    return ((url.name, stream.read()) for url, stream in loaded)


def our_map(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISMapDataset

    return _loaded(AISMapDataset(bucket_of(stored.endpoint, stored.bucket)), shuffle=True)


def our_two_workers(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset

    return _loaded(AISIterDataset(bucket_of(stored.endpoint, stored.bucket), batch_size=64), num_workers=2)


def their_four_workers(stored: Stored) -> Iterable[Any]:
    from aistore.pytorch import AISIterDataset

    return _loaded(AISIterDataset(bucket_of(stored.endpoint, stored.bucket)), num_workers=4)


def torch_alone(stored: Stored) -> Iterable[Any]:
    """What two workers of torch take for as many samples that nobody has to read."""
    from torch.utils.data import IterableDataset, get_worker_info

    there = [(name, filler(i, SIZE)) for i, name in enumerate(stored.names)]

    class InMemory(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            worker = get_worker_info()
            return itertools.islice(there, worker.id, None, worker.num_workers)

    return _loaded(InMemory(), num_workers=2)


def _loaded(dataset: Any, **options: Any) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
    fork = "fork" if options.get("num_workers") else None  # as users have it; this process was spawned
    loader = DataLoader(dataset, batch_size=64, collate_fn=list, multiprocessing_context=fork, **options)
    return Loaded(loader, dataset)


def our_batch_32(stored: Stored) -> Iterable[Any]:
    return _our_batch(stored, 32)


def our_batch_512(stored: Stored) -> Iterable[Any]:
    return _our_batch(stored, 512)


def _our_batch(stored: Stored, size: int) -> Iterable[Any]:
    from aisdatapipes import AISBatchIterDataset

    source = bucket_of(stored.endpoint, stored.bucket)
    return AISBatchIterDataset(source, source.client, max_batch_size=size)


def their_batch_32(stored: Stored) -> Iterable[Any]:
    return _their_batch(stored, 32)


def their_batch_512(stored: Stored) -> Iterable[Any]:
    return _their_batch(stored, 512)


def _their_batch(stored: Stored, size: int) -> Iterable[Any]:
    from aistore.pytorch.batch_iter_dataset import AISBatchIterDataset
    from aistore.sdk import Client

    client = Client(stored.endpoint)
    return AISBatchIterDataset(client.bucket(stored.bucket), client, max_batch_size=size)


OURS, THEIRS = "aisdatapipes AISIterDataset", "aistore.pytorch AISIterDataset"
OUR_CHAIN = "aisdatapipes list_files_by_ais().load_files_by_ais()"
OUR_MAP = "aisdatapipes AISMapDataset, DataLoader(64, shuffle)"
OUR_WORKERS = "aisdatapipes AISIterDataset, DataLoader(64), 2 workers"
THEIR_WORKERS = "aistore.pytorch AISIterDataset, DataLoader(64), 4 workers"
CEILINGS = {
    "C and epoll, 64 in flight straight to the owners": ceiling,
    "C and epoll, 8 in flight on each of 8 connections": ceiling_together,
}
CONTENDERS = {
    OURS: our_iter,
    THEIRS: their_iter,
    OUR_CHAIN: our_chain,
    OUR_MAP: our_map,
    OUR_WORKERS: our_two_workers,
    "torch's DataLoader(64), 2 workers, samples in memory": torch_alone,
    THEIR_WORKERS: their_four_workers,
    "aisdatapipes AISIterDataset, every checksum (get)": our_gets,
    "aisdatapipes AISBatchIterDataset(32)": our_batch_32,
    "aistore.pytorch AISBatchIterDataset(32)": their_batch_32,
    "aisdatapipes AISBatchIterDataset(512)": our_batch_512,
    "aistore.pytorch AISBatchIterDataset(512)": their_batch_512,
    "pycurl, one by one through the proxy": curl_loop,
    "pycurl, 64 in flight straight to the owners": curl_direct,
    **(CEILINGS if has_ceiling() else {}),
}
TARGETS = (
    Target(OURS, THEIRS, 20),
    Limit(OURS, CPU, 60),
    Target(OUR_CHAIN, THEIRS, 15),
    Target(OUR_MAP, THEIRS, 15),
    Target(OUR_WORKERS, THEIR_WORKERS, 15),
)


def main() -> int:
    options = asked(__doc__ or "")
    count = 200 if options.quick else 5000
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, objects)
        stored = Stored(endpoint, made.name, tuple(name for name, _ in objects), content_of(objects))
        report = Report("objects", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen(CONTENDERS, options), stored)
    report.check(*TARGETS)
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
