"""Pages of a listing, cut out of a bucket."""

from __future__ import annotations

import json
import posixpath
import time
from typing import TYPE_CHECKING

from aisdatapipes.devserver import archives
from aisdatapipes.devserver.refusals import Refused
from aisdatapipes.wire import listing
from aisdatapipes.wire.listing import Entry, ListOptions, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aisdatapipes.devserver.buckets import Bucket, Stored

_PROPS = ("checksum", "atime", "version", "location", "copies", "custom")


def page_of(bucket: Bucket, options: ListOptions, location: Callable[[str], str]) -> Page:
    """The page that ``options`` ask for, without its uuid.

    A page that is full has a token, also when nothing follows: the server does not look ahead.
    """
    prefix = options.prefix.removesuffix("*")
    if set(prefix.split("/")) & {".", ".."}:
        raise Refused(400, f'invalid prefix "{prefix}"')
    filled = _Filled(bucket, options, location)
    found = (
        _folders(bucket, prefix, options, filled)
        if options.flags & listing.NO_RECURSION
        else _flat(bucket, prefix, options, filled)
    )
    size = options.page_size or listing.PAGE_SIZE
    entries = [entry for entry, _ in zip(found, range(size), strict=False)]
    token = entries[-1].name if len(entries) == size else ""
    if options.flags & (listing.NO_RECURSION | listing.ARCH_DIR):
        # Within a page all are in the order of their names: "a.tar", "a.tar.idx", "a.tar/member".
        entries.sort(key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))
    return Page(entries, token)


class _Filled:
    """Entries with the attributes that were asked for, and no others."""

    def __init__(self, bucket: Bucket, options: ListOptions, location: Callable[[str], str]) -> None:
        props = options.props
        if options.flags & listing.NAME_ONLY:
            props = "name"
        elif options.flags & listing.NAME_SIZE:
            props = "name,size"
        self.size = not props or "size" in props
        self.more = [prop for prop in _PROPS if prop in props]
        self.bucket, self.location = bucket, location

    def entry(self, name: str, stored: Stored) -> Entry:
        flags = 0 if stored.cold else listing.CACHED
        entry = Entry(name, size=len(stored.data) if self.size else 0, flags=flags)
        for prop in self.more:
            setattr(entry, prop, self._value(prop, name, stored))
        return entry

    def _value(self, prop: str, name: str, stored: Stored) -> str | int:
        match prop:
            case "checksum":
                return stored.checksum
            case "version":
                return str(stored.version)
            case "copies":
                return 1
            case "custom":
                pairs = " ".join(f"{key}:{value}" for key, value in stored.custom.items())
                return f"[{pairs}]" if pairs else ""
            case "location":
                return self.location(self.bucket.uname(name))
        return time.strftime("%d %b %y %H:%M UTC", time.gmtime(stored.written_ns // 10**9))


def _flat(bucket: Bucket, prefix: str, options: ListOptions, filled: _Filled) -> Iterator[Entry]:
    """Every object; with `ARCH_DIR` each archive is followed by its members."""
    keys, after = bucket.keys(), max(options.token, options.start_after)
    inside = options.flags & listing.ARCH_DIR
    shard = _shard_of(bucket, after) if inside else None
    if shard is not None:  # the page before ended within this archive
        yield from (entry for entry in _members(bucket, shard, filled) if entry.name > after)
        after = shard
    for position in bucket.span(prefix, after):
        name = keys[position].decode("utf-8", "surrogateescape")
        stored = bucket.objects.get(name)
        if stored is None:
            continue  # deleted since the page began
        entry = filled.entry(name, stored)
        if inside and archives.is_archive(name):
            entry.flags |= listing.ARCHIVE
            yield entry
            yield from _members(bucket, name, filled)
        else:
            yield entry


def _shard_of(bucket: Bucket, after: str) -> str | None:
    """The archive that a token names a member of."""
    parts = after.split("/")
    candidates = ("/".join(parts[:end]) for end in range(1, len(parts)))
    return next((name for name in candidates if archives.is_archive(name) and name in bucket.objects), None)


def _members(bucket: Bucket, name: str, filled: _Filled) -> Iterator[Entry]:
    found = archives.members_of(bucket.objects[name], name)
    for full, content in sorted((posixpath.normpath(f"{name}/{member}"), content) for member, content in found):
        flags = listing.CACHED | listing.IN_ARCHIVE
        yield Entry(full, size=len(content) if filled.size else 0, flags=flags)


def _folders(bucket: Bucket, prefix: str, options: ListOptions, filled: _Filled) -> Iterator[Entry]:
    """Objects up to the next slash, and folders."""
    keys, after = bucket.keys(), max(options.token, options.start_after)
    span = bucket.span(prefix, after)
    while span:
        name = keys[span[0]].decode("utf-8", "surrogateescape")
        folder, slash, _ = name[len(prefix) :].partition("/")
        if slash:
            after = prefix + folder + "/"
            yield Entry(after, flags=listing.CACHED | listing.DIRECTORY)
        else:
            after = name
            yield filled.entry(name, bucket.objects[name])
        span = bucket.span(prefix, after)


def page_in_json(page: Page) -> bytes:
    """The page for clients that do not take msgpack; sizes are text there."""
    names = {"custom": "custom-md"}
    entries = []
    for entry in page.entries:
        fields = {names.get(field, field): getattr(entry, field) for field in ("name", "size", *_PROPS, "flags")}
        shown = {key: str(value) if key == "size" else value for key, value in fields.items() if value}
        entries.append({"name": entry.name, **shown})
    content = {"uuid": page.uuid, "continuation_token": page.token, "entries": entries, "flags": page.flags}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
