"""What does a better shuffle cost: read speed against randomness, for blocks of several sizes?

8 shards, of 500 samples of 64 KiB or 4,000 of 4 KiB, and a label each; the cluster has indexed them. Every order is
measured as it came out: von Neumann's ratio in the rank version (Bartels, JASA 77, 1982: the mean square of the step
from one sample's place in the shards to the next one's, over the variance of places) is 2 for an order by chance and
near 0 where neighbours come one after the other; Kendall's tau between the order and the shards is 0 by chance and 1
for the order of the shards. Beside it: webdataset with shards shuffled and a buffer of 1,000 samples.

    python -m benchmarks.blocks [--quick]
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.cluster import bucket_of
from benchmarks.measure import Measurement, Report, Stored, Target, asked, chosen, iterated
from benchmarks.shards import filled

RATIO, TAU = "von Neumann's ratio", "Kendall's tau"
KIB, MIB = 1 << 10, 1 << 20
SIZES = {"64 KiB": (64 * KIB, 500), "4 KiB": (4 * KIB, 4000)}
BLOCKS = {"256 KiB": 256 * KIB, "1 MiB": MIB, "4 MiB": 4 * MIB}
BUFFER = 1000


def ours(stored: Stored, **options: Any) -> Iterable[Any]:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), **options)


def buffered(stored: Stored) -> Iterable[Any]:
    import webdataset as wds

    urls = [f"{stored.endpoint}/v1/objects/{stored.bucket}/{name}?provider=ais" for name in stored.names]
    pipes = [f"pipe:curl -s -f -L '{url}'" for url in urls]
    found = wds.WebDataset(pipes, shardshuffle=len(urls), seed=1).shuffle(BUFFER)
    return ((one["__key__"], {"jpg": one["jpg"], "cls": one["cls"]}) for one in found)


def mixed(contender: Any, stored: Stored) -> Measurement:
    """One pass, and how random its order was: keys are places in the shards."""
    places: list[int] = []

    def kept(stored: Stored) -> Iterator[Any]:
        for key, sample in contender(stored):
            places.append(int(key))
            yield key, sample

    found = iterated(kept, stored)
    found.more[RATIO], found.more[TAU] = ratio(np.array(places)), tau(np.array(places))
    return found


def ratio(places: Any) -> float:
    """Von Neumann's ratio of an order; places are ranks."""
    return float(np.mean(np.diff(places.astype(float)) ** 2) / np.var(places))


def tau(places: Any) -> float:
    """Kendall's tau between an order and that of the places, by merging: O(N log N)."""
    n, inversions, rows = len(places), 0, [np.array([place]) for place in places]
    while len(rows) > 1:
        merged = []
        for one, other in zip(rows[::2], [*rows[1::2], np.zeros(0, int)], strict=False):
            inversions += int(len(one) * len(other) - np.searchsorted(one, other).sum())
            merged.append(np.sort(np.concatenate([one, other])))
        rows = merged
    return 1 - 4 * inversions / (n * (n - 1))


def contenders(size: str) -> dict[str, Any]:
    """In the order of the shards, by blocks, over all of them; webdataset's buffer."""
    found = {f"{size}, not shuffled": functools.partial(ours)}
    for name, block in reversed(BLOCKS.items()):
        found[f"{size}, blocks of {name}"] = functools.partial(ours, shuffle=True, block_bytes=block)
    found[f"{size}, shuffled one by one"] = functools.partial(ours, shuffle=True)
    return {**found, f"{size}, webdataset, buffer of {BUFFER:,}": buffered}


def main() -> int:
    options = asked(__doc__ or "")
    report = Report("blocks", (__doc__ or "").splitlines()[0], options.rounds, "", options.quick)
    for name, (size, full) in SIZES.items():
        shards, count = (2, 50) if options.quick else (8, full)
        with filled(shards, count, size) as (stored, report.server):
            report.measure(chosen(contenders(name), options), stored, mixed)
    for name in SIZES:
        report.check(Target(f"{name}, blocks of 1 MiB", f"{name}, shuffled one by one", 1.5))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
