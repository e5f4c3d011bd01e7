"""``python -m examples.digits``: from an empty bucket to two trained classifiers and a picture.

The cluster is that of ``AIS_ENDPOINT``; without it, the embedded one starts in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from torch.utils.data import DataLoader

from aisdatapipes.testing import AISBucket
from examples import train_pipes, train_shards
from examples.digits.measure import Batch, Run, watched
from examples.digits.picture import drawn
from examples.digits.upload import digits, uploaded

ENOUGH = 0.95  # held-out accuracy that both ways must reach


def main(arguments: list[str] | None = None) -> int:
    """0 when both classifiers are good enough."""
    options = _options(arguments)
    began = time.perf_counter()
    with _cluster() as (endpoint, where), AISBucket.new(endpoint, "digits") as bucket:
        parts = digits(options.limit)
        putting = time.perf_counter()
        count = uploaded(endpoint, bucket.name, parts)
        seconds = time.perf_counter() - putting
        print(f"{count:,} objects put into {where}, bucket ais://{bucket.name}, in {seconds:.1f} s", flush=True)
        runs = [
            _pipes(endpoint, bucket.name, len(parts["train"]), options.epochs),
            _shards(endpoint, bucket.name, len(parts["train"]), options.epochs),
        ]
        held_out = _held_out_shards(endpoint, bucket.name)
    drawn(options.picture, runs, held_out, where)
    _tell(runs)
    print(f"\n{options.picture} shows it; everything took {time.perf_counter() - began:.1f} s.")
    bad = [run for run in runs if run.accuracy <= ENOUGH]
    for run in bad:
        print(f"{run.title}: accuracy {run.accuracy:.3f} is not above {ENOUGH}", file=sys.stderr)
    return 1 if bad else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=__doc__)
    parser.add_argument("--epochs", type=int, default=8, help="passes over the digits (8)")
    parser.add_argument("--limit", type=int, help="use only so many of the 1,797 digits")
    parser.add_argument("--picture", default="demo.png", help="where the picture goes (demo.png)")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[str, str]]:
    """(endpoint, how to call it in a sentence)."""
    if endpoint := os.environ.get("AIS_ENDPOINT"):
        yield endpoint, f"the AIStore cluster at {endpoint}"
        return
    from aisdatapipes.devserver import DevProcess  # noqa: PLC0415 - a real cluster needs no aiohttp here

    with DevProcess() as process:
        yield process.endpoint, "an embedded cluster"


def _pipes(endpoint: str, bucket: str, samples: int, epochs: int) -> Run:
    print("\nDataPipes over PNG objects (examples/train_pipes.py)")
    held_out = list(DataLoader(train_pipes.digits(endpoint, bucket, "test"), batch_size=64))
    return watched(Run("DataPipes", samples), train_pipes.train(endpoint, bucket, epochs), held_out)


def _shards(endpoint: str, bucket: str, samples: int, epochs: int) -> Run:
    print("\nAISShardReader over tar shards (examples/train_shards.py)")
    held_out = _held_out_shards(endpoint, bucket)
    return watched(Run("AISShardReader", samples), train_shards.train(endpoint, bucket, epochs), held_out)


def _held_out_shards(endpoint: str, bucket: str) -> list[Batch]:
    shards = train_shards.digits(endpoint, bucket, "test")
    return list(DataLoader(shards, batch_size=64, collate_fn=train_shards.collated))


def _tell(runs: list[Run]) -> None:
    print(f"\n{'way of reading':<16}{'samples':>9}{'seconds':>9}{'samples/s':>11}{'accuracy':>10}")
    for run in runs:
        print(f"{run.title:<16}{run.samples:>9,}{run.seconds:>9.1f}{run.rate:>11,.0f}{run.accuracy:>10.3f}")
    print("seconds: start and end of the workers, listing, reading, decoding and training; not the held-out checks")


if __name__ == "__main__":
    sys.exit(main())
