"""Samples into shards in a bucket: the tars of WebDataset, a few at a time, without a file on this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aisdatapipes.flow.indexjob import indexed_by_server
from aisdatapipes.model.config import MIB
from aisdatapipes.model.errors import ConfigError, StoreError
from aisdatapipes.model.url import AISURL
from aisdatapipes.store.pool import cluster_of
from aisdatapipes.store.source import Where, config_of
from aisdatapipes.store.write import write_object
from aisdatapipes.wire.sample_tar import SampleTar, encoded_sample
from aisdatapipes.wire.tar_header import END

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("aisdatapipes")

_EXPECTED = "expected one such as 'ais://bucket/train-%06d.tar', with one number in it"


class ShardWriter:
    """WebDataset shards, written straight into a bucket: ``with ShardWriter(pattern) as writer: writer.write(sample)``.

    A shard is stored when it is full, in one piece: the cluster shows it whole or not at all, and replaces an object
    of the same name. Where the ``with`` block raises, the shard that was begun is given up; those before it stay.
    The same samples make the same shards, byte for byte.

    Args:
        pattern: URL of the shards, with a number: ``"ais://bucket/train-%06d.tar"``.
        maxcount: Samples in a shard, at most.
        maxsize: Bytes of a shard, at most, its headers included.
        start_shard: The first number.
        index: Have the cluster index the bucket at the end, and wait for it, so that readers find every sample by its
            place. A cluster that does not do it (before AIStore 5.0, or for want of permission) is no error; the log
            (level INFO) tells. Nor is a bucket that has a tar in chunks, which that would spoil; the log warns.
        config: Endpoint such as ``http://localhost:8080``, a `ClientConfig` or a ``Client`` of the SDK; None for
            ``AIS_ENDPOINT``.

    Attributes:
        shards: URLs of what has been stored so far, with their sizes.

    Memory: one shard, which is why ``maxsize`` is less than WebDataset's.
    Raises: ``ConfigError`` at construction for what cannot work.

    >>> from aisdatapipes.devserver import DevCluster
    >>> with DevCluster.demo() as cluster:
    ...     with ShardWriter("ais://demo/s-%03d.tar", maxcount=2, config=cluster.endpoint) as writer:
    ...         for number in range(3):
    ...             writer.write({"__key__": f"{number:04d}", "txt": "digit", "cls": number})
    ...     writer.shards
    ['ais://demo/s-000.tar', 'ais://demo/s-001.tar']
    """

    def __init__(
        self,
        pattern: str,
        maxcount: int = 100_000,
        maxsize: float = 256 * MIB,
        *,
        start_shard: int = 0,
        index: bool = True,
        config: Where | None = None,
    ) -> None:
        self._closed = True  # until all arguments are known to be good
        self._begun: SampleTar | None = None
        for name, value, least in (("maxcount", maxcount, 1), ("maxsize", maxsize, 1), ("start_shard", start_shard, 0)):
            if not isinstance(value, (int, float)) or value < least:
                raise ConfigError(f"ShardWriter: {name} must be {least} or more, not {value!r}")
        self._pattern, self._number = pattern, int(start_shard)
        _shard_url(pattern, self._number)
        self._maxcount, self._maxsize, self._index = maxcount, maxsize, index
        self._config = config_of(config)
        self.shards: list[AISURL] = []
        self._closed = False

    def write(self, sample: Mapping[str, Any]) -> None:
        """Put one sample into the shard, or into the next one where this one is full, which is then stored first.

        Args:
            sample: ``{"__key__": "0001", "jpg": data, "cls": 3}``: see `encoded_sample` for what values may be.

        Raises: ``ConfigError`` that names key and field, for a sample that cannot be written, is larger than
            ``maxsize``, or has the key of another one of its shard; ``BucketNotFound``, ``Denied``, ``Unavailable``
            where the shard cannot be stored. Then the sample has not been taken, and it can be tried again.
        """
        if self._closed:
            raise ConfigError("ShardWriter: it is closed, and nothing can be written any more")
        key, members = encoded_sample(sample)
        alone = len(members) + len(END)
        if alone > self._maxsize:
            raise ConfigError(
                f"sample {key!r} makes a shard of {alone} bytes, more than maxsize={self._maxsize:.0f}; raise maxsize, "
                "or split the sample"
            )
        begun = self._begun
        if begun is not None and (len(begun) >= self._maxcount or begun.size_with(members) > self._maxsize):
            self._store(begun)
        self._begun = self._begun or SampleTar()
        self._begun.add(key, members)

    def close(self) -> None:
        """Store what is left, and have the shards indexed; idempotent.

        Raises: as `write`; then the shard is still there, and closing can be tried again.
        """
        if self._closed:
            return
        if self._begun is not None:
            self._store(self._begun)
        self._closed = True
        if self._index and self.shards:
            self._have_indexed()

    def _store(self, begun: SampleTar) -> None:
        url = _shard_url(self._pattern, self._number)
        data = begun.content()
        write_object(url, self._config, data)
        self.shards.append(_sized(url, len(data)))
        self._number += 1
        self._begun = None

    def _have_indexed(self) -> None:
        try:
            indexed_by_server(cluster_of(self._config), self.shards[-1])
        except StoreError as error:
            # An answer: it is not for us, or it does not know of such things. Without one, somebody should look.
            level = logging.WARNING if error.status is None else logging.INFO
            log.log(level, "the shards are stored, but have no index of the cluster's: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self._closed, self._begun = True, None  # what is not stored by now is given up

    def __del__(self) -> None:
        if self._begun is not None and not self._closed:
            text = f"ShardWriter({self._pattern!r}) was not closed: its last {len(self._begun)} samples are lost"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)


def _shard_url(pattern: str, number: int) -> AISURL:
    """The URL of a shard; raises ``ConfigError`` for a pattern that makes none."""
    if not isinstance(pattern, str):
        raise ConfigError(f"ShardWriter: {pattern!r} is no pattern of shards; {_EXPECTED}")
    try:
        text, other = pattern % number, pattern % (number + 1)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"ShardWriter: {pattern!r} is no pattern of shards ({cause}); {_EXPECTED}") from None
    if text == other:
        raise ConfigError(f"ShardWriter: {pattern!r} is no pattern of shards: all would have one name; {_EXPECTED}")
    url = AISURL.parse(text)
    if url.endpoint is not None:
        raise ConfigError(f"ShardWriter: {pattern!r}: give the endpoint as config=; {_EXPECTED}")
    if not url.name.endswith(".tar"):
        raise ConfigError(f"ShardWriter: {pattern!r}: shards are plain tars, whose names end in .tar; {_EXPECTED}")
    return url


def _sized(url: AISURL, size: int) -> AISURL:
    return AISURL.make(url, url.provider, url.bucket, url.name, namespace=url.namespace, size=size)
