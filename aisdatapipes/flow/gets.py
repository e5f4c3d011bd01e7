"""Objects by GET: whole, or in parts where they are large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import xxhash

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.flow.window import ordered
from aisdatapipes.model.config import FetchPlan
from aisdatapipes.model.errors import CorruptBody
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.cluster import Cluster
from aisdatapipes.store.read import Read

# A whole-object GET up to this size: one request, one checksum. Above it parts keep the memory of a single
# answer bounded and let a broken one be repeated alone.
WHOLE_BYTES = 32 << 20


def got(
    urls: Iterable[AISURL], clusters: Clusters, plan: FetchPlan, meter: Meter, tolerance: Tolerance
) -> Iterator[tuple[AISURL, bytes]]:
    """Each URL with the content of its object, in the order of the URLs.

    Raises: what ``tolerance`` does not bear, when the object is reached and not before.
    """
    parts: list[Read] = []
    for read in ordered(_reads(urls, clusters, plan), plan.width, plan.window_bytes, meter):
        parts.append(read)
        if not read.last:
            continue
        done, parts = parts, []
        error = next((part.error for part in done if part.error is not None), None) or _mixed(done)
        data = done[0].data if len(done) == 1 else b"".join([part.data for part in done])
        if error is None and len(done) > 1 and plan.verify:
            error = _corrupt(done[0], data)
        if error is not None:
            tolerance.bear(error, meter)
            continue
        meter.objects += 1
        meter.bytes += len(data)
        yield read.url, data


def _reads(urls: Iterable[AISURL], clusters: Clusters, plan: FetchPlan) -> Iterator[Read]:
    for url in urls:
        cluster = clusters.of(url)
        if _in_parts(url, plan):
            yield from part_reads(cluster, url, plan)
        else:
            yield Read(cluster, url, verify=plan.verify)


def part_reads(cluster: Cluster, url: AISURL, plan: FetchPlan) -> Iterator[Read]:
    """The reads that make up an object of known size, part by part."""
    for start in range(0, url.size, plan.range_bytes):
        length = min(plan.range_bytes, url.size - start)
        yield Read(cluster, url, span=(start, length), last=start + length == url.size)


def _in_parts(url: AISURL, plan: FetchPlan) -> bool:
    if url.size <= 0 or url.etl_name:  # an ETL answers as a whole
        return False
    if plan.strategy == "ranges":
        return url.size > plan.range_bytes
    return plan.strategy == "auto" and url.size > max(WHOLE_BYTES, plan.range_bytes)


def _mixed(parts: list[Read]) -> CorruptBody | None:
    """An error if the parts are not of one version, or not all of the object."""
    first = parts[0]
    if len(parts) == 1:
        return None
    if any(part.version != first.version for part in parts) or first.total != first.url.size:
        return CorruptBody(
            "cannot read: the object was overwritten while it was read, or since it was listed",
            url=first.url, status=206, attempts=max(part.attempts for part in parts),
        )  # fmt: skip
    return None


def _corrupt(first: Read, data: bytes) -> CorruptBody | None:
    """An error if the joined parts are not what the checksum of the whole promises."""
    found = xxhash.xxh64_hexdigest(data) if first.checksum else None
    if found == first.checksum:
        return None
    text = f"cannot read: the content's xxh64 is {found}, the cluster promised {first.checksum}"
    return CorruptBody(text, url=first.url, status=206, attempts=first.attempts)
