"""The cluster that is measured, and how it is filled quickly."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pycurl
from aistore.sdk import Bucket, Client

WIDTH = 32  # PUTs in flight


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, str]]:
    """(endpoint, what it is): ``AIS_ENDPOINT``, else a real cluster of our own, else the embedded one, loudly."""
    if endpoint := os.environ.get("AIS_ENDPOINT"):
        yield endpoint, described(endpoint)
        return
    from tests.cluster import LocalCluster, aisnode

    if aisnode() is not None:
        with LocalCluster(targets=3) as real:
            yield real.endpoint, described(real.endpoint)
        return
    from aisdatapipes.devserver import DevProcess

    print("\n*** No AIS_ENDPOINT and no aisnode on PATH: measured against the EMBEDDED cluster. Its rates are those of")
    print("*** a Python program; what follows says little about AIStore.\n")
    with DevProcess(targets=3) as embedded:
        yield embedded.endpoint, described(embedded.endpoint)


def described(endpoint: str) -> str:
    """Version and size of a cluster."""
    smap = _asked(endpoint, "smap") or {}
    status = _asked(endpoint, "node_status") or {}
    version = status.get("ais_version") or "embedded cluster"
    return f"{'AIStore ' if version[:1].isdigit() else ''}{version}, {len(smap.get('tmap') or {})} targets"


def _asked(endpoint: str, what: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"{endpoint}/v1/daemon?what={what}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError):
        return None


def bucket_of(endpoint: str, name: str) -> Bucket:
    """A bucket as users of the SDK have it."""
    return Client(endpoint).bucket(name)


def put_all(endpoint: str, bucket_name: str, objects: Iterable[tuple[str, bytes]]) -> None:
    """Store objects, many at a time; names must not need quoting."""
    multi, free, left = pycurl.CurlMulti(), [_writer() for _ in range(WIDTH)], iter(objects)
    under_way = 0
    while True:
        while free and (one := next(left, None)) is not None:
            name, data = one
            curl = free.pop()
            curl.setopt(pycurl.URL, f"{endpoint}/v1/objects/{bucket_name}/{name}?provider=ais")
            curl.setopt(pycurl.POSTFIELDS, data)
            curl.setopt(pycurl.CUSTOMREQUEST, "PUT")
            multi.add_handle(curl)
            under_way += 1
        if not under_way:
            return
        multi.perform()
        _, good, bad = multi.info_read()
        for curl in good:
            if (status := curl.getinfo(pycurl.RESPONSE_CODE)) != 200:
                raise OSError(f"PUT {curl.getinfo(pycurl.EFFECTIVE_URL)}: status {status}")
            multi.remove_handle(curl)
            free.append(curl)
            under_way -= 1
        if bad:
            raise OSError(f"PUT: {bad[0][2]}")
        if not good:
            multi.select(0.05)


def _writer() -> Any:
    curl = pycurl.Curl()
    curl.setopt(pycurl.FOLLOWLOCATION, 1)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.WRITEFUNCTION, len)  # answers have no body worth keeping
    curl.setopt(pycurl.HTTPHEADER, ["Expect:"])
    return curl


def filler(number: int, size: int) -> bytes:
    """``size`` bytes that no other number has."""
    return np.random.default_rng(number).bytes(size)
