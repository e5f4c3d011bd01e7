"""A bucket that lasts as long as a test."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aistore.sdk import Client
from typing_extensions import Self

from aisdatapipes.wire.tar import END, entry

_NAME_LENGTH = 40  # AIStore allows 64; a part of the test's name is enough to recognise it


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A cluster that somebody else started.

    Args:
        endpoint: Such as ``http://localhost:8080``.
    """

    endpoint: str


class AISBucket:
    """A bucket of a cluster, to be filled by a test; what the fixture ``ais_bucket`` gives.

    Args:
        endpoint: Of the cluster. Tokens and certificates come from the environment, as everywhere in the SDK.
        name: Of a bucket that exists.

    >>> from aisdatapipes.devserver import DevCluster
    >>> with DevCluster() as cluster, AISBucket.new(cluster.endpoint) as bucket:
    ...     bucket.put("a.txt", b"A")
    ...     [entry.name for entry in bucket.sdk.list_all_objects()]
    ['a.txt']
    """

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint, self.name = endpoint, name
        self._client = Client(endpoint)

    @classmethod
    def new(cls, endpoint: str, title: str = "") -> Self:
        """A new bucket with a name nobody has; something of ``title`` is in it."""
        words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:_NAME_LENGTH].strip("-") or "test"
        bucket = cls(endpoint, f"{words}-{secrets.token_hex(4)}")
        bucket.sdk.create()
        return bucket

    @property
    def url(self) -> str:
        """``ais://name/``."""
        return f"ais://{self.name}/"

    @property
    def sdk(self) -> Any:
        """The ``Bucket`` of the AIStore SDK."""
        return self._client.bucket(self.name)

    def put(self, name: str, data: bytes) -> None:
        """An object, stored."""
        self.sdk.object(name).get_writer().put_content(data)

    def put_shard(self, name: str, samples: Mapping[str, Mapping[str, bytes]]) -> None:
        """A WebDataset tar shard, stored; ``samples`` maps a key to contents by extension."""
        members = (
            entry(f"{key}.{extension}", content)
            for key, fields in samples.items()
            for extension, content in fields.items()
        )
        self.put(name, b"".join(members) + END)

    def destroy(self) -> None:
        """The bucket is gone with all that is in it; so are this object's connections."""
        self.sdk.delete(missing_ok=True)
        self.sdk.client.session_manager.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return f"AISBucket({self.endpoint!r}, {self.name!r})"
