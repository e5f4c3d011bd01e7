"""What do a thousand indexes cost: to read them, and to plan an epoch by them?

1,000 shards of 1,000 members, 500 samples each, which the cluster has indexed. Each measurement is a job that begins:
it lists the bucket (or loads a manifest), reads what tells where the samples are, and plans the first and the last step
of a shuffled epoch. Memory is the highest resident size, over what it was before.

    python -m benchmarks.indexes [--quick]
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aisdatapipes import Manifest
from aisdatapipes.testing import AISBucket
from aisdatapipes.wire.tar import END, entry
from benchmarks.cluster import bucket_of, cluster, put_all
from benchmarks.measure import (
    Content,
    Limit,
    Measurement,
    Report,
    Stored,
    asked,
    chosen,
    cpu_seconds,
    named,
    resident_bytes,
    settled_bytes,
)

SECONDS, MEMBERS, SIZE = "seconds", "us of CPU a member", "MB of the file"
KEPT = "aisdatapipes AISShardReader, of a manifest with the samples"
INDEXED = "aisdatapipes AISShardReader, by the server's index"


def ours(stored: Stored) -> Any:
    from aisdatapipes import AISShardReader

    return AISShardReader(bucket_of(stored.endpoint, stored.bucket), index="server", shuffle=True, batch_size=64)


def of_manifest(stored: Stored, *, path: Path) -> Any:
    from aisdatapipes import AISShardReader, Manifest

    return AISShardReader(Manifest.load(path, config=stored.endpoint), shuffle=True, batch_size=64)


def begun(contender: Any, stored: Stored) -> Measurement:
    """A dataset, its length, and its plan."""
    before = settled_bytes()
    cpu, began = cpu_seconds(), time.perf_counter()
    dataset = contender(stored)
    count = len(dataset)
    plan = dataset.plan(world_size=8)
    positions = [plan.positions(step, 0) for step in (0, plan.steps - 1)]
    planned = sum(map(len, positions))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    more = {SECONDS: seconds, MEMBERS: cpu / (2 * count) * 1e6}
    return Measurement(Content(count, 0, int(planned > 0)), seconds, cpu, resident_bytes("VmHWM") - before, more)


def shards(number: int, samples: int) -> Iterator[tuple[str, bytes]]:
    """Tars of small samples, two members each."""
    for shard, name in enumerate(named("train", number, "tar")):
        keys = (f"{shard * samples + at:08d}" for at in range(samples))
        members = (entry(f"{key}.{extension}", b"1") for key in keys for extension in ("jpg", "cls"))
        yield name, b"".join(members) + END


def main() -> int:
    options = asked(__doc__ or "")
    number, samples = (4, 50) if options.quick else (1000, 500)
    with cluster() as (endpoint, server), AISBucket.new(endpoint, "bench") as made:
        put_all(endpoint, made.name, shards(number, samples))
        stored = Stored(endpoint, made.name, (), Content(number * samples, 0, 1))
        len(ours(stored))  # the cluster makes the indexes, once
        report = Report("indexes", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shards.npz"
            Manifest.of(ours(stored)).save(path)
            kept = functools.partial(of_manifest, path=path)
            report.measure(chosen({INDEXED: ours, KEPT: kept}, options), stored, begun)
            for one in report.rows.get(KEPT, []):
                one.more[SIZE] = path.stat().st_size / 1e6
    report.check(Limit(INDEXED, SECONDS, 20), *(Limit(one, "peak memory MB", 60) for one in (INDEXED, KEPT)))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
