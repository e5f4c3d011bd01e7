"""What the cluster holds: buckets of objects, in memory."""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from aisdatapipes.devserver.refusals import Refused, no_bucket, printed_bucket
from aisdatapipes.model.url import AISURL, PROVIDERS
from aisdatapipes.wire import placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.\-]{1,64}")
_RULE = "may only contain letters, numbers, dashes (-), underscores (_), and dots (.)"


@dataclass(slots=True)
class Stored:
    """One version of an object.

    Args:
        data: The content.
        version: 1 for the first.
        custom: Custom metadata.
        cold: The cluster has not read it from the cloud yet; only in buckets of a cloud.
    """

    data: bytes
    version: int = 1
    custom: dict[str, str] = field(default_factory=dict)
    cold: bool = False
    checksum: str = ""
    written_ns: int = field(default_factory=time.time_ns)
    members: list[tuple[str, memoryview]] | None = None  # of an archive, once somebody asked

    def __post_init__(self) -> None:
        self.checksum = xxhash.xxh64_hexdigest(self.data)


class Bucket:
    """One bucket; names are kept as the bytes they are, in their order.

    Args:
        provider: Where it is.
        namespace: In which part of that.
        name: Unique there.
        coding: What its properties say of erasure coding, which only changes what is said of missing objects here.
    """

    def __init__(self, provider: str, namespace: str, name: str, coding: Mapping[str, Any] | None = None) -> None:
        self.provider, self.namespace, self.name = provider, namespace, name
        self.coding = {"data_slices": 1, "parity_slices": 1, "enabled": False, **(coding or {})}
        self.objects: dict[str, Stored] = {}
        self.created_ns = time.time_ns()
        # Tests put while the server's thread lists.
        self._lock = threading.Lock()
        self._sorted: list[bytes] = []
        self._new: list[bytes] = []

    def __str__(self) -> str:
        return printed_bucket(self.provider, self.namespace, self.name)

    def uname(self, name: str) -> str:
        """The full name of an object, which decides where it lies."""
        return placement.uname(self.provider, self.namespace, self.name, name)

    def put(self, name: str, data: bytes, custom: dict[str, str] | None = None, *, cold: bool = False) -> Stored:
        """The new version, stored."""
        with self._lock:
            before = self.objects.get(name)
            stored = Stored(data, before.version + 1 if before else 1, custom or {}, cold)
            self.objects[name] = stored
            if before is None:
                self._new.append(_key(name))
            return stored

    def delete(self, name: str) -> bool:
        """Whether it was there."""
        with self._lock:
            if self.objects.pop(name, None) is None:
                return False
            keys = self._in_order()
            at = bisect_left(keys, _key(name))
            self._sorted = keys[:at] + keys[at + 1 :]
            return True

    def keys(self) -> list[bytes]:
        """All names in their bytewise order; a list that nobody changes any more."""
        with self._lock:
            return self._in_order()

    def _in_order(self) -> list[bytes]:
        if self._new:
            self._sorted = sorted(self._sorted + self._new)  # nearly free where names came in order
            self._new = []
        return self._sorted


def span(keys: list[bytes], prefix: str, after: str) -> range:
    """Positions of the names that begin with ``prefix`` and come after ``after``.

    A text ``after`` that ends with a slash is a folder: everything in it counts as passed.
    """
    start = _key(prefix)
    first = bisect_left(keys, start)
    if after:
        passed = _key(after)
        beyond = bisect_left(keys, _beyond(passed)) if after.endswith("/") else bisect_right(keys, passed)
        first = max(first, beyond)
    end = bisect_left(keys, _beyond(start)) if start.rstrip(b"\xff") else len(keys)
    return range(first, max(first, end))


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _beyond(prefix: bytes) -> bytes:
    """The first bytes that come after everything which begins with ``prefix``."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])


class Buckets:
    """All buckets of the cluster.

    Args:
        remote: Buckets that clouds have: provider to names.
    """

    def __init__(self, remote: Mapping[str, Iterable[str]] | None = None) -> None:
        self._all: dict[tuple[str, str, str], Bucket] = {}
        self.clouds: set[str] = set()
        for provider, names in (remote or {}).items():
            self.clouds.add(PROVIDERS[provider])
            for name in names:
                self.create(PROVIDERS[provider], "", name)

    def create(self, provider: str, namespace: str, name: str, coding: Mapping[str, Any] | None = None) -> Bucket:
        """A new bucket."""
        if not _NAME.fullmatch(name):
            raise Refused(400, f"bucket name is invalid: {_RULE}")
        key = (provider, namespace, name)
        if key in self._all:
            raise Refused(409, f'bucket "{self._all[key]}" already exists', "ErrBucketAlreadyExists")
        self._all[key] = Bucket(provider, namespace, name, coding)
        return self._all[key]

    def get(self, provider: str, namespace: str, name: str) -> Bucket | None:
        """The bucket, or None."""
        return self._all.get((provider, namespace, name))

    def find(self, provider: str, namespace: str, name: str) -> Bucket:
        """The bucket; refuses when it is not there."""
        found = self.get(provider, namespace, name)
        if found is None:
            raise no_bucket(provider, namespace, name)
        return found

    def destroy(self, bucket: Bucket) -> None:
        """The bucket and everything in it is gone."""
        self._all.pop((bucket.provider, bucket.namespace, bucket.name), None)

    def all(self, provider: str = "") -> list[Bucket]:
        """All buckets, of one provider or of every."""
        return [bucket for key, bucket in sorted(self._all.items()) if provider in ("", key[0])]

    def named(self, text: str) -> Bucket:
        """The bucket that a person names: ``demo`` or ``ais://demo``."""
        return self.find(*bucket_parts(text))


def bucket_parts(text: str) -> tuple[str, str, str]:
    """Provider, namespace and name of ``demo``, ``ais://demo`` or ``ais://@uuid#ns/demo``."""
    if "://" not in text:
        return "ais", "", text
    url = AISURL.parse(text)
    return url.provider, url.namespace, url.bucket
