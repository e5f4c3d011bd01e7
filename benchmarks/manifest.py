"""What does a saved listing of 100,000 objects save?

Seconds and memory to list a bucket, against those to load its manifest from a file and from an object of the cluster;
and what an object of it takes on disk. Names have 30 characters; sizes are like those of photographs (random,
log-normal around 100 kB), for equal ones would pack better than any real ones: they are put into the manifest in place
of the bytes that the benchmark stores. The names are compared after the clock has stopped.

    python -m benchmarks.manifest [--quick]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aisdatapipes.testing import AISBucket
from benchmarks.cluster import cluster, put_all
from benchmarks.listing import names
from benchmarks.measure import (
    Limit,
    Measurement,
    Report,
    Stored,
    Target,
    asked,
    chosen,
    content_of,
    cpu_seconds,
    resident_bytes,
    settled_bytes,
)

HELD, DISK = "held bytes/object", "bytes on disk/object"
SAVED = "saved/manifest.npz"
LISTED, LOADED, FETCHED = "Manifest.of: listed", "Manifest.load: a file", "Manifest.load: an object"


def listed(stored: Stored) -> Any:
    """A listing of the bucket."""
    from aisdatapipes import Manifest

    return Manifest.of(f"ais://{stored.bucket}/train/", config=stored.endpoint)


def loaded(stored: Stored) -> Any:
    """The manifest in the file that ``stored`` names."""
    from aisdatapipes import Manifest

    return Manifest.load(stored.names[0], config=stored.endpoint)


def fetched(stored: Stored) -> Any:
    """The manifest in an object of the bucket."""
    from aisdatapipes import Manifest

    return Manifest.load(f"ais://{stored.bucket}/{SAVED}", config=stored.endpoint)


CONTENDERS = {LISTED: listed, LOADED: loaded, FETCHED: fetched}


def measured(contender: Callable[[Stored], Any], stored: Stored) -> Measurement:
    """One manifest, had and weighed."""
    # What a first request and a first file import and start is no part of the cost of an object.
    from aisdatapipes import Manifest

    with tempfile.TemporaryDirectory() as folder:
        Manifest.of(f"ais://{stored.bucket}/none", config=stored.endpoint).save(Path(folder) / "none")
        Manifest.load(Path(folder) / "none", config=stored.endpoint)
    before = settled_bytes()
    cpu, began = cpu_seconds(), time.perf_counter()
    manifest = contender(stored)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    peak = resident_bytes("VmHWM")
    more = {HELD: (settled_bytes() - before) / len(manifest)}
    if contender is not listed:
        more[DISK] = Path(stored.names[0]).stat().st_size / len(manifest)
    content = content_of((name, b"") for name in manifest.names)
    return Measurement(content, seconds, cpu, peak - before, more)


def saved(endpoint: str, bucket: str, path: Path) -> None:
    """Save the bucket's listing, with sizes as real ones are, to a file and to an object."""
    from aisdatapipes import Manifest

    listing = Manifest.of(f"ais://{bucket}/train/", config=endpoint).listing
    listing.sizes[:] = np.random.default_rng(0).lognormal(np.log(100_000), 0.5, len(listing))
    manifest = Manifest(listing)
    manifest.save(path)
    manifest.save(f"ais://{bucket}/{SAVED}")


def main() -> int:
    options = asked(__doc__ or "")
    count = 1000 if options.quick else 100_000
    with (
        cluster() as (endpoint, server),
        AISBucket.new(endpoint, "bench") as made,
        tempfile.TemporaryDirectory() as folder,
    ):
        put_all(endpoint, made.name, ((name, b"x") for name in names(count)))
        path = Path(folder) / "manifest.npz"
        saved(endpoint, made.name, path)
        report = Report("manifest", (__doc__ or "").splitlines()[0], options.rounds, server, options.quick)
        stored = Stored(endpoint, made.name, (str(path),), content_of((name, b"") for name in names(count)))
        report.measure(chosen(CONTENDERS, options), stored, measured)
    report.check(Target(LOADED, LISTED, 10), Target(FETCHED, LISTED, 10), Limit(LOADED, DISK, 8))
    return report.finish(keep=not options.only)


if __name__ == "__main__":
    sys.exit(main())
