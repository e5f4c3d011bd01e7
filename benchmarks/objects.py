"""How fast are small objects read?

Objects of 10 KiB, as the datasets hand them out: those of this package, those of ``aistore.pytorch``, and what a
loop over pycurl does that anybody could write. The datasets list the bucket as part of the measurement; the loops
know the names. "Straight to the owners" is the ceiling: no dataset, no order, no checksum, no retry.

    python -m benchmarks.objects [--quick]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pycurl

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import Report, Stored, Target, asked, chosen, content_of, named

SIZE = 10 << 10
WIDTH = 64  # as FetchPlan's


def our_iter(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def their_iter(stored: Stored) -> Iterable[Any]:
    from aistore.pytorch import AISIterDataset

    return AISIterDataset(bucket_of(stored.endpoint, stored.bucket))


def our_chain(stored: Stored) -> Iterable[Any]:
    from torch.utils.data.datapipes.iter import IterableWrapper

    import aisdatapipes  # noqa: F401 - gives the functional names

    prefixes = IterableWrapper([f"ais://{stored.bucket}/"])
    loaded = prefixes.list_files_by_ais(url=stored.endpoint).load_files_by_ais(url=stored.endpoint)
    return ((url.name, stream.read()) for url, stream in loaded)


def our_map(stored: Stored) -> Iterable[Any]:
    from aisdatapipes import AISMapDataset

    return _loaded(AISMapDataset(bucket_of(stored.endpoint, stored.bucket)))


def _loaded(dataset: Any) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size=64, shuffle=True, collate_fn=list)
    return itertools.chain.from_iterable(loader)


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


def curl_loop(stored: Stored) -> Iterator[tuple[str, bytes]]:
    curl = _reader()
    curl.setopt(pycurl.FOLLOWLOCATION, 1)
    for name in stored.names:
        curl.setopt(pycurl.URL, f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais")
        yield name, curl.perform_rb()


def curl_direct(stored: Stored) -> Iterator[tuple[str, bytes]]:
    return _many(list(zip(stored.names, _owner_urls(stored), strict=True)))


def _owner_urls(stored: Stored) -> list[str]:
    from aisdatapipes.model.config import ClientConfig
    from aisdatapipes.store.pool import cluster_of
    from aisdatapipes.wire.placement import uname

    known = cluster_of(ClientConfig(stored.endpoint))
    known.open()
    found = []
    for name in stored.names:
        origin = known.owner_of(uname("ais", "", stored.bucket, name)) or stored.endpoint
        found.append(f"{origin}/v1/objects/{stored.bucket}/{name}?provider=ais")
    return found


def _many(asked_for: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Contents as they come, `WIDTH` requests in flight."""
    multi, free, left = pycurl.CurlMulti(), [_reader() for _ in range(WIDTH)], iter(asked_for)
    under_way: dict[Any, tuple[str, list[bytes]]] = {}
    while True:
        while free and (one := next(left, None)) is not None:
            curl = free.pop()
            chunks: list[bytes] = []
            curl.setopt(pycurl.URL, one[1])
            curl.setopt(pycurl.WRITEFUNCTION, chunks.append)
            under_way[curl] = one[0], chunks
            multi.add_handle(curl)
        if not under_way:
            return
        multi.perform()
        _, good, bad = multi.info_read()
        if bad:
            raise OSError(bad[0][2])
        for curl in good:
            multi.remove_handle(curl)
            free.append(curl)
            name, chunks = under_way.pop(curl)
            yield name, b"".join(chunks)
        if not good:
            multi.select(0.05)


def _reader() -> Any:
    curl = pycurl.Curl()
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.FAILONERROR, 1)
    return curl


OURS, THEIRS = "aisdatapipes AISIterDataset", "aistore.pytorch AISIterDataset"
CONTENDERS = {
    OURS: our_iter,
    THEIRS: their_iter,
    "aisdatapipes list_files_by_ais().load_files_by_ais()": our_chain,
    "aisdatapipes AISMapDataset, DataLoader(64, shuffle)": our_map,
    "aisdatapipes AISBatchIterDataset(32)": our_batch_32,
    "aistore.pytorch AISBatchIterDataset(32)": their_batch_32,
    "aisdatapipes AISBatchIterDataset(512)": our_batch_512,
    "aistore.pytorch AISBatchIterDataset(512)": their_batch_512,
    "pycurl, one by one through the proxy": curl_loop,
    "pycurl, 64 in flight straight to the owners": curl_direct,
}
TARGETS = (Target(OURS, THEIRS, 6),)


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
