"""What does a listing of a million names cost, here and in workers?

Against the embedded cluster: a million objects are not stored in a real one in reasonable time, and what is held does
not depend on who listed it. Names have 30 characters. "per name" is what the arrays of an AISMapDataset hold besides
the names themselves; "private/object" what each of four forked workers has for itself, after it has read the names of
10,000 objects all over the listing.

    python -m benchmarks.names [--quick]
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from aisdatapipes.devserver import DevCluster
from benchmarks.listing import names
from benchmarks.measure import LISTS, Content, Limit, Measurement, Report, Stored, asked, chosen, cpu_seconds

HELD, PRIVATE = "bytes/object besides its name", "private bytes/object in a worker"
WORKERS, LOOKED_AT = 4, 10_000
OURS = "aisdatapipes AISMapDataset"


def ours() -> Any:
    from aisdatapipes import AISMapDataset

    return AISMapDataset


def weighed(contender: Any, stored: Stored) -> Measurement:
    """One dataset, listed from an embedded cluster in the same process, and weighed."""
    count = stored.content.count
    with DevCluster(targets=1) as cluster:
        cluster.create_bucket(stored.bucket)
        for name in names(count):
            cluster.put(stored.bucket, name, b"")
        make = contender()
        cpu, began = cpu_seconds(), time.perf_counter()
        dataset = make(f"ais://{stored.bucket}/", config=_config(cluster.endpoint))
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        listing = dataset.get_obj_list().listing
        held = listing.ends.nbytes + listing.sizes.nbytes
        private = max(_in_workers(dataset))
        more = {HELD: held / count, PRIVATE: private / count, LISTS: dataset.stats()["lists"]}
        found = Content(len(dataset), 0, 0)
    return Measurement(found, seconds, cpu, 0, more)


def _config(endpoint: str) -> Any:
    from aisdatapipes import ClientConfig

    return ClientConfig(endpoint)


def _in_workers(dataset: Any) -> list[int]:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [context.Process(target=_look, args=(dataset, results)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return found


def _look(dataset: Any, results: Any) -> None:
    """How much of the memory is this process's own after it has looked at many names, over what it was before."""
    before = _private_bytes()
    listing, step = dataset.get_obj_list().listing, max(1, len(dataset) // LOOKED_AT)
    total = sum(len(listing.name(at)) for at in range(0, len(dataset), step))
    results.put(max(0, _private_bytes() - before) if total else 0)


def _private_bytes() -> int:
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) << 10 for row in rows if row.startswith("Private_"))


def main() -> int:
    options = asked(__doc__ or "")
    report = Report("names", (__doc__ or "").splitlines()[0], options.rounds, "embedded cluster", options.quick)
    stored = Stored("", "bench", (), Content(2000 if options.quick else 1_000_000, 0, 0))
    report.measure(chosen({OURS: ours}, options), stored, weighed)
    report.check(Limit(OURS, HELD, 40), Limit(OURS, PRIVATE, 4), Limit(OURS, LISTS, 1))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
