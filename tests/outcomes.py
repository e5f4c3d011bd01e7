"""What comes of each nasty shard in each way of reading: the table in docs/shards.md, and what its test expects.

``python -m tests.outcomes`` writes the tables into the document.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.wire.nasty import Nasty, compressed, readable, unreadable

DOCUMENT = Path(__file__).parent.parent / "docs" / "shards.md"
MODES = ("off", "client", "server", "map")

# What may come of a shard.
SAMPLES = "samples"
WARNED = "samples, one warning"
MORE = 'samples, each with `"txt": b""`'
REACHED = "`CorruptShard` when reached"
START = "`CorruptShard` at the start"
NOT_PLAIN = "`ConfigError` at the start"
# What webdataset makes of it.
SAME, ERROR = "the same", "an error"
OTHER, SILENT = "other samples", "no error"


class Row(NamedTuple):
    """A shard, and what comes of it: for each of `MODES`, and for webdataset."""

    shard: Nasty
    outcomes: tuple[str, ...]
    webdataset: str


# Extensions of a shard are known before it is streamed by the cluster's listing, which has links in it.
_LISTED = "a symbolic link with an extension of its own"
_READABLE = (SAMPLES,) * 4
_UNREADABLE = (REACHED, START, START, START)
_COMPRESSED = (SAMPLES, NOT_PLAIN, NOT_PLAIN, NOT_PLAIN)
_OF_WEBDATASET = {
    "names beginning with `./`": OTHER,
    "`._*` and `.DS_Store`": OTHER,
    "hard link": OTHER,
    "hard link that ends a sample": OTHER,
    "hard link with a size": OTHER,
    "zstd": ERROR,
    "zip": ERROR,
} | dict.fromkeys((
    "a key that comes back", "a sparse member, GNU", "a sparse member, pax", "hard link to nothing", "cut in a header",
    "a header with a bit flipped", "a negative size", "a member of an unknown type", "a part of several volumes",
    "a zero block amid", "two archives in one", "gzip that is cut",
), SILENT)  # fmt: skip


def rows() -> dict[str, Row]:
    """The table, by what is special about a shard."""
    found = {}
    for what, shard in readable().items():
        first = WARNED if shard.warned else MORE if what == _LISTED else SAMPLES
        outcomes = (first, *_READABLE[1:])
        found[what] = Row(shard, outcomes, _OF_WEBDATASET.get(what, SAME))
    for what, shard in unreadable().items():
        found[what] = Row(shard, _UNREADABLE, _OF_WEBDATASET.get(what, ERROR))
    for what, shard in compressed().items():
        outcomes = (REACHED, *_COMPRESSED[1:]) if shard.told else _COMPRESSED
        found[what] = Row(shard, outcomes, _OF_WEBDATASET.get(what, SAME))
    return found


# Samples that lack a field: fields=, missing=, and what comes of it in each of `MODES`.
FILLED, LEFT_OUT, LACKING, NO_SKIP = (
    '`b""`',
    "left out, counted",
    "`CorruptShard` when reached",
    "`ConfigError` at construction",
)
MISSING: dict[tuple[str, str], tuple[str, ...]] = {
    ("None", "zero"): (FILLED,) * 4,
    ("None", "error"): (LACKING,) * 4,
    ("None", "skip"): (LEFT_OUT,) * 3 + (NO_SKIP,),
    ('("jpg", "cls")', "zero"): (FILLED,) * 4,
    ('("jpg", "cls")', "error"): (LACKING,) * 4,
    ('("jpg", "cls")', "skip"): (LEFT_OUT,) * 3 + (NO_SKIP,),
    ('("jpg;png", "cls")', "error"): (SAMPLES,) * 4,
}


def _table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def of_shards() -> str:
    """The table of nasty shards, in Markdown."""
    head = ("shard", "streaming", '`index="client"`', '`index="server"`', "map style", "webdataset")
    return _table(head, [(what, *row.outcomes, row.webdataset) for what, row in rows().items()])


def of_missing() -> str:
    """The table of missing fields, in Markdown."""
    head = ("`fields`", "`missing`", "streaming", '`index="client"`', '`index="server"`', "map style")
    return _table(head, [(f"`{fields}`", f'`"{missing}"`', *cells) for (fields, missing), cells in MISSING.items()])


TABLES: dict[str, Callable[[], str]] = {"shards": of_shards, "missing": of_missing}


def with_tables(text: str) -> str:
    """The document with the tables as they are now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table of {name}: python -m tests.outcomes -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{DOCUMENT}: no place for the table of {name}")
        text = f"{before}{begin}{table()}{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
