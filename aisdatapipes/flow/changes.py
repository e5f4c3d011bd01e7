"""What differs between two listings of the same sources."""

from __future__ import annotations

from dataclasses import dataclass

from aisdatapipes.flow.listing import Listing


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new listing has that the old one had not; false where nothing differs.

    Args:
        added: URLs of objects that are new, in listing order.
        removed: URLs of objects that are gone.
        changed: URLs of objects of another size. One that was overwritten with equally many bytes is not seen.
        before: Fingerprint of the old listing.
        after: Fingerprint of the new one. It differs, too, where only the order of objects does.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    before: str
    after: str

    def __bool__(self) -> bool:
        return self.before != self.after

    def __str__(self) -> str:
        return f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed"


def changes(old: Listing, new: Listing) -> Changes:
    """What differs. Memory: none if nothing does, else one entry of a dict for each old object."""
    before, after = old.fingerprint, new.fingerprint
    if before == after:
        return Changes((), (), (), before, after)
    sizes = dict(_entries(old))
    added, changed, seen = [], [], set()
    for url, size in _entries(new):
        if url in seen:
            continue  # under two prefixes
        seen.add(url)
        was = sizes.pop(url, None)
        if was is None:
            added.append(url)
        elif was != size:
            changed.append(url)
    return Changes(tuple(added), tuple(sizes), tuple(changed), before, after)


def _entries(listing: Listing) -> list[tuple[str, int]]:
    return [(str(url), url.size) for url in listing.urls(range(len(listing)))]
