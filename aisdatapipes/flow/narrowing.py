"""Parts of a listing that is at hand: what a listing with prefixes or a filter would have given, without asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aisdatapipes.flow.listing import Listing, NameFilter
from aisdatapipes.store.source import Source

_AT_ONCE = 10_000  # names; a listing's page


def narrowed(listing: Listing, prefixes: Mapping[int, Sequence[str]], name_filter: NameFilter | None = None) -> Listing:
    """The objects whose names begin with one of the prefixes given for their source, and satisfy the filter.

    Args:
        listing: What is at hand.
        prefixes: By index of the source; one that is not in it is used whole. Names come prefix by prefix, as in a
            listing; one that begins with two of them comes twice.
        name_filter: Which names stay.
    """
    if not prefixes and name_filter is None:
        return listing
    sources: list[Source] = []
    kept: list[npt.NDArray[np.int64]] = []
    for index, source in enumerate(listing.sources):
        runs = [listing.of_sources(slice(index, index + 1))]
        wanted = prefixes.get(index)
        if wanted is not None:
            runs = [_beginning(listing, runs[0], prefix) for prefix in wanted]
        if name_filter is not None:
            runs = [_satisfying(listing, run, name_filter) for run in runs]
        kept.append(np.concatenate([np.zeros(0, np.int64), *runs]))
        sources.append(source.with_prefixes(wanted))
    return _taken(listing, sources, kept)


def _beginning(listing: Listing, positions: npt.NDArray[np.int64], prefix: str) -> npt.NDArray[np.int64]:
    start = prefix.encode("utf-8", "surrogateescape")
    found = [position for position, name in _names(listing, positions) if name.startswith(start)]
    return np.array(found, np.int64)


def _satisfying(listing: Listing, positions: npt.NDArray[np.int64], name_filter: NameFilter) -> npt.NDArray[np.int64]:
    names = _names(listing, positions)
    found = [position for position, name in names if name_filter(name.decode("utf-8", "surrogateescape"))]
    return np.array(found, np.int64)


def _names(listing: Listing, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """Positions with the names there, as bytes."""
    for at in range(0, len(positions), _AT_ONCE):
        some = positions[at : at + _AT_ONCE]
        starts, ends = listing.starts(some).tolist(), listing.ends[some].tolist()
        for position, start, end in zip(some.tolist(), starts, ends, strict=True):
            yield position, bytes(listing.blob[start:end])


def _taken(listing: Listing, sources: list[Source], kept: list[npt.NDArray[np.int64]]) -> Listing:
    """The objects at some positions, given for each source."""
    positions = np.concatenate([np.zeros(0, np.int64), *kept])
    blob = bytearray()
    for at in range(0, len(positions), _AT_ONCE):
        blob += b"".join(name for _, name in _names(listing, positions[at : at + _AT_ONCE]))
    lengths = listing.ends[positions] - listing.starts(positions)
    return Listing(sources, [len(run) for run in kept], blob, np.cumsum(lengths), listing.sizes[positions])
