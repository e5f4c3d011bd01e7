"""From shards to samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.reached import Reached
from aisdatapipes.flow.samples import Sample, Shard, samples
from aisdatapipes.flow.shards import ShardStream
from aisdatapipes.flow.tolerance import OnError, Tolerance
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.pipes.base import AISPipe, functional
from aisdatapipes.pipes.decoding import Decoding, decoder_of
from aisdatapipes.pipes.handed import noted
from aisdatapipes.wire.samples import Fields, Missing

CHUNK_BYTES = 1 << 20


@functional("ais_read_shards")
class AISShardSamples(AISPipe[Sample]):
    """The samples of every shard (functional name: ``ais_read_shards``).

    Args:
        source_datapipe: Pipe of ``(url, stream)``, as `AISFileLoaderIterDataPipe` yields, or any pipe whose streams
            have ``read(n)``. Tar (also gzip, bz2, xz, zstd) and zip shards, told by their first bytes.
        fields: Exactly these extensions, in this order, in every sample: ``("jpg;jpeg;png", "cls")``; ``;`` separates
            alternatives. None for those of the samples so far.
        missing: A sample that lacks one: ``"zero"`` fills in ``b""``, ``"error"`` raises, ``"skip"`` leaves it out
            (counted in ``stats()``).
        decode: What becomes of the contents: a callable ``(key, extension, content) -> value``, or names of
            WebDataset's handlers, ``("pil", "cls")``: see `Decoder`. None for bytes.
        on_error: ``"raise"``, ``"skip"`` (what is left of the shard, or a sample that cannot be decoded), or a callable
            on the error that answers one.
        max_errors: How often something may be left out that way: a number, or a share below 1; None for any number.

    Yields: ``(key, {extension: bytes})``, or decoded values. The key is the path up to the first dot of the last
        component, with folders; the extension is all that follows, in lower case (the convention of WebDataset).
    Order: that of the archive.
    Memory: one sample, and what the stream holds.
    Raises: ``CorruptShard`` that names shard, member and offset; ``CorruptSample`` that names shard,
        key and field.
    """

    def __init__(
        self,
        source_datapipe: Iterable[tuple[str, Any]],
        *,
        fields: Iterable[str] | None = None,
        missing: Missing = "zero",
        decode: Decoding = None,
        on_error: OnError = "raise",
        max_errors: float | None = None,
    ) -> None:
        super().__init__()
        self.source_datapipe = source_datapipe
        self._missing: Missing = checked_missing(missing)
        self._fields = None if fields is None else Fields.parse(fields, missing)
        self._decode = decoder_of(decode, self._missing)
        self._tolerance = Tolerance(on_error, max_errors)
        self._meter = Meter()

    def __iter__(self) -> Iterator[Sample]:
        reached = Reached()
        source = noted(self, self.source_datapipe, lambda: reached.items, reached)
        shards = (_shard(name, stream) for name, stream in source)
        return samples(shards, self._fields, self._missing, self._meter, self._tolerance, reached, self._decode)

    def stats(self) -> dict[str, Any]:
        """What this pipe did in this process so far, by counter."""
        return self._meter.stats()


def checked_missing(missing: Any) -> Missing:
    """``missing`` if it is one of the three words."""
    if missing not in get_args(Missing):
        raise ConfigError(f"missing must be one of {get_args(Missing)}, not {missing!r}")
    chosen: Missing = missing
    return chosen


def _shard(name: str, stream: Any) -> Shard:
    if isinstance(stream, ShardStream):
        return Shard(name, stream, stream.file, stream.extensions)
    if not hasattr(stream, "read"):
        raise ConfigError(f"{name}: a shard is a stream with read(), not {type(stream).__name__}")
    return Shard(name, iter(lambda: stream.read(CHUNK_BYTES), b""))
