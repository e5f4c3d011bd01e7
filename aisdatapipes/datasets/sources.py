"""What a dataset is made of: the arguments ``ais_source_list`` and ``prefix_map``, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from aistore.sdk.dataset.data_shard import DataShard

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.store.source import Source, source_of

Prefixes = str | list[str] | tuple[str, ...] | None


def as_list(ais_source_list: Any, owner: str) -> list[Any]:
    """The sources as a list that can be walked again and again; one source alone is a list of one."""
    if ais_source_list is None or ais_source_list == "":
        raise ConfigError(f"<{owner}> ais_source_list must be provided")
    one = isinstance(ais_source_list, (str, DataShard)) or not isinstance(ais_source_list, Iterable)
    things = [ais_source_list] if one else list(ais_source_list)
    if not things:
        raise ConfigError(f"<{owner}> ais_source_list must be provided")
    return things


def checked_sources(
    things: list[Any],
    prefix_map: Mapping[Any, Prefixes] | None,
    config: ClientConfig | None,
    etl_name: str | None = None,
) -> tuple[Source, ...]:
    """What is to be listed, with the prefixes of ``prefix_map`` and the ETL for all.

    A key means every source of the same bucket (cluster, provider, namespace and name), whichever object of the SDK
    it is; a key that means none of the sources is a `ConfigError`.
    """
    sources = [source_of(thing, config) for thing in things]
    for key, value in (prefix_map or {}).items():
        prefixes = _prefixes(key, value)
        wanted = source_of(key, config)
        same = [i for i, source in enumerate(sources) if things[i] is key or _same(source, wanted)]
        if not same:
            known = ", ".join(sorted({str(source.bucket) for source in sources}))
            raise ConfigError(f"prefix_map: {wanted.bucket} is none of the sources ({known})")
        for i in same:
            sources[i] = sources[i].with_prefixes(prefixes)
    return tuple(dataclasses.replace(source, etl_name=etl_name) if etl_name else source for source in sources)


def _same(source: Source, wanted: Source) -> bool:
    # A group of objects and its whole bucket are two things: a key that is one does not mean the other.
    return source.identity == wanted.identity and source.names == wanted.names


def _prefixes(key: Any, value: Prefixes) -> tuple[str, ...] | None:
    if value is None:
        return None
    prefixes = (value,) if isinstance(value, str) else value
    if not isinstance(prefixes, (list, tuple)) or not all(isinstance(prefix, str) for prefix in prefixes):
        raise ConfigError(f"prefix_map[{key!r}] is a prefix or a list of prefixes, not {value!r}")
    return tuple(prefixes)
