"""What do DataLoader workers bring?

Objects of 10 KiB through a DataLoader with batches of 64 and 0 to 4 workers, two epochs. Starting the workers is part
of the time. "lists" says how often the bucket was listed for both epochs and all workers.

    python -m benchmarks.workers [--quick]
"""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import bucket_of, cluster, filler, put_all
from benchmarks.measure import LISTS, Content, Limit, Loaded, Report, Stored, Target, asked, chosen, content_of, named

SIZE, WORKERS, EPOCHS = 10 << 10, (0, 1, 2, 4), 2


def ours(stored: Stored, *, workers: int) -> Iterable[Any]:
    from aisdatapipes import AISIterDataset

    return _loaded(AISIterDataset(bucket_of(stored.endpoint, stored.bucket), batch_size=64), workers)


def theirs(stored: Stored, *, workers: int) -> Iterable[Any]:
    from aistore.pytorch import AISIterDataset

    return _loaded(AISIterDataset(bucket_of(stored.endpoint, stored.bucket)), workers)


def _loaded(dataset: Any, workers: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
    loader = DataLoader(
        dataset, batch_size=64, num_workers=workers, collate_fn=list, persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    return Loaded(itertools.chain.from_iterable(itertools.repeat(loader, EPOCHS)), dataset)


def main() -> int:
    options = asked(__doc__ or "")
    count = 200 if options.quick else 5000
    objects = [(name, filler(i, SIZE)) for i, name in enumerate(named("train", count))]
    contenders = {}
    for workers in WORKERS[::2] if options.quick else WORKERS:
        contenders[f"aisdatapipes, {workers} workers"] = functools.partial(ours, workers=workers)
        contenders[f"aistore.pytorch, {workers} workers"] = functools.partial(theirs, workers=workers)
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, objects)
        once = content_of(objects)
        twice = Content(EPOCHS * once.count, EPOCHS * once.bytes, EPOCHS * once.sum % (1 << 64))
        report = Report("workers", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        report.measure(chosen(contenders, options), Stored(endpoint, made.name, (), twice))
    for workers in WORKERS:
        report.check(Target(f"aisdatapipes, {workers} workers", f"aistore.pytorch, {workers} workers", 10))
        report.check(Limit(f"aisdatapipes, {workers} workers", LISTS, 1))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
