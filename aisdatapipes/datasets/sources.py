"""What a dataset is made of: the arguments ``ais_source_list`` and ``prefix_map``, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aistore.sdk.dataset.data_shard import DataShard

from aisdatapipes.flow.listing import Listing, NameFilter
from aisdatapipes.flow.narrowing import narrowed
from aisdatapipes.model.config import ClientConfig
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.store.source import Source, Where, config_of, source_of

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


def listing_of(thing: Any) -> Listing | None:
    """The listing that a `Manifest` holds; None for any other source."""
    held = getattr(thing, "listing", None)
    return held if isinstance(held, Listing) else None


def per_source(things: Sequence[Any]) -> list[Any]:
    """What users gave for each source: a manifest stands for as many as it has."""
    listings = [listing_of(thing) for thing in things]
    return [
        one
        for thing, listing in zip(things, listings, strict=True)
        for one in ([thing] if listing is None else listing.sources)
    ]


def without_manifests(prefix_map: Mapping[Any, Prefixes] | None) -> dict[Any, Prefixes]:
    """What subclasses see of ``prefix_map``: a manifest as key would travel to every worker."""
    return {key: value for key, value in _checked_map(prefix_map).items() if listing_of(key) is None}


def _checked_map(prefix_map: Mapping[Any, Prefixes] | None) -> Mapping[Any, Prefixes]:
    if not isinstance(prefix_map, Mapping | None):
        raise ConfigError(f"prefix_map is a dict of sources and the prefixes wanted of each, not {prefix_map!r}")
    return prefix_map or {}


def checked_parts(
    things: Sequence[Any],
    prefix_map: Mapping[Any, Prefixes] | None,
    where: Where | None,
    etl_name: str | None = None,
    name_filter: NameFilter | None = None,
) -> tuple[Source | Listing, ...]:
    """What is to be listed, and of manifests what they hold, with the prefixes of ``prefix_map`` and the ETL for all.

    A key means every source of the same bucket (cluster, provider, namespace and name), whichever object of the SDK
    it is; a key that means none of the sources is a `ConfigError`. A manifest as key means all of its sources.
    ``name_filter`` is for manifests; what is listed is filtered by whoever lists.
    """
    config = None if where is None else config_of(where)
    parts = [_part(thing, config, etl_name) for thing in things]
    chosen = _chosen(things, parts, _checked_map(prefix_map), config)
    return tuple(_narrowed(part, prefixes, name_filter) for part, prefixes in zip(parts, chosen, strict=True))


def _part(thing: Any, config: ClientConfig | None, etl_name: str | None) -> Source | Listing:
    def said(source: Source) -> Source:
        return dataclasses.replace(source, config=config or source.config, etl_name=etl_name or source.etl_name)

    listing = listing_of(thing)
    return said(source_of(thing, config)) if listing is None else listing.with_sources([*map(said, listing.sources)])


def _chosen(
    things: Sequence[Any], parts: Sequence[Source | Listing], prefix_map: Mapping[Any, Prefixes],
    config: ClientConfig | None,
) -> list[dict[int, tuple[str, ...]]]:  # fmt: skip
    """For each part, the prefixes of its sources, by index, where ``prefix_map`` has some."""
    chosen: list[dict[int, tuple[str, ...]]] = [{} for _ in parts]
    for key, value in prefix_map.items():
        prefixes, found = _prefixes(key, value), False
        wanted = None if listing_of(key) is not None else source_of(key, config or _config_for(key, parts))
        for thing, part, of_part in zip(things, parts, chosen, strict=True):
            for index, source in enumerate(_sources_of(part)):
                if thing is key or (wanted is not None and _same(source, wanted)):
                    found = True
                    if prefixes is not None:
                        of_part[index] = prefixes
        if not found:
            known = ", ".join(sorted({str(source.bucket) for part in parts for source in _sources_of(part)}))
            shown = repr(key) if wanted is None else wanted.bucket
            raise ConfigError(f"prefix_map: {shown} is none of the sources ({known})")
    return chosen


def _config_for(key: Any, parts: Sequence[Source | Listing]) -> ClientConfig | None:
    """A text says no cluster: among manifests alone it means theirs."""
    first = parts[0]
    known = isinstance(key, str) and isinstance(first, Listing) and all(isinstance(part, Listing) for part in parts)
    return _sources_of(first)[0].config if known else None


def _sources_of(part: Source | Listing) -> tuple[Source, ...]:
    return part.sources if isinstance(part, Listing) else (part,)


def _narrowed(
    part: Source | Listing, prefixes: Mapping[int, tuple[str, ...]], name_filter: NameFilter | None
) -> Source | Listing:
    if isinstance(part, Source):
        return part.with_prefixes(prefixes.get(0))
    for index, wanted in prefixes.items():
        source = part.sources[index]
        for prefix in wanted:
            if not prefix.startswith(source.prefixes):
                raise ConfigError(
                    f"prefix_map: the manifest has of {source.bucket} only names with {' or '.join(source.prefixes)}, "
                    f"so it cannot say which begin with {prefix!r}; list the bucket, or make a manifest of more of it"
                )
    return narrowed(part, prefixes, name_filter)


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
