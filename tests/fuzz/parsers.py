"""The parsers that are fuzzed: valid inputs to begin with, and what must hold for any bytes.

Whatever comes, a parser answers or raises an error of its own. Where two parsers read the same they agree, and what is read
comes out the same when it is written and read again.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire import samples as convention
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.batch import (
    BatchEntry,
    BatchReply,
    BatchRequest,
    BatchResult,
    decoded_reply,
    decoded_request,
    encoded_reply,
    encoded_request,
)
from aisdatapipes.wire.clustermap import ClusterMap, Node, decoded_map, encoded_map
from aisdatapipes.wire.listing import (
    Entry,
    ListOptions,
    Page,
    decoded_brief_page,
    decoded_list,
    decoded_page,
    encoded_list,
    encoded_page,
)
from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.manifest import Saved, SavedSource, decoded_manifest, encoded_manifest
from aisdatapipes.wire.shardindex import KEPT, SERVER, ShardIndex, decoded_index, encoded_index
from aisdatapipes.wire.tar import TarParser, Unlinked
from aisdatapipes.wire.tar_header import BLOCK
from aisdatapipes.wire.tar_places import Place, PlaceParser, is_nothing_but
from tests.wire import nasty, tars

SHARD = "ais://b/s.tar"


class Parser(NamedTuple):
    """What is fuzzed.

    Args:
        seeds: Inputs to begin with.
        holds: Raises where something does not hold for these bytes.
        repaired: Makes checksums good again, which random changes never do.
    """

    seeds: list[bytes]
    holds: Callable[[bytes], object]
    repaired: Callable[[bytes], bytes] = bytes


# ---- tar


def _tars() -> list[bytes]:
    shards = {**nasty.readable(), **nasty.unreadable()}
    found = [case.archive for case in tars.cases().values()] + [case.archive for case in shards.values()]
    found += [archive for archive, _ in tars.hostile().values()]
    return [archive for archive in found if len(archive) <= 8192]


def good_checksums(archive: bytes) -> bytes:
    """The archive with the checksum of each header that has a name in it."""
    made = bytearray(archive)
    for at in range(0, len(made) - BLOCK + 1, BLOCK):
        # Only where the format's own words are: data stay as they are.
        if made[at + 257 : at + 262] == b"ustar" or (at == 0 and made[:1] != b"\0"):
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + BLOCK])
    return bytes(made)


def _read(archive: bytes, size: int, start: int = 0) -> tuple[list[object], str | None]:
    """Members, and the words of the error behind them, in pieces of ``size`` bytes."""
    parser = TarParser(SHARD, start=start)
    found: list[object] = []
    try:
        for at in range(0, len(archive), size):
            found += parser.feed(archive[at : at + size])
        parser.close()
    except Unlinked:
        return found, "unlinked"
    except CorruptShard as error:
        return found, str(error)
    return found, None


def reads_tar(data: bytes) -> None:
    """Pieces do not matter; the places are those of the members; behind each member it can be begun anew."""
    size = 1 + (data[0] * 37 if data else 0)
    found, error = _read(data, size)
    assert (found, error) == _read(data, max(1, len(data)))
    if error is None:
        places = PlaceParser(SHARD)
        read = places.places(data)
        places.close()
        assert [(one.name, one.offset, len(one.data)) for one in found] == read
    for number, member in enumerate(found[:4], 1):
        if 0 <= member.end <= len(data):  # else its padding is cut
            rest, told = _read(data[member.end :], size, member.end)
            assert told == "unlinked" or (found[number:], error) == (rest, told)
    with contextlib.suppress(CorruptShard):
        list(convention.samples(found, SHARD))


def reads_places(data: bytes) -> None:
    """By headers alone, data passed over; and the bytes between two members, wherever they are."""
    parser, at = PlaceParser(SHARD), 0
    with contextlib.suppress(CorruptShard):
        while at < len(data) and not parser.at_garbage:
            chunk = data[at : at + 700]
            for place in parser.places(chunk):
                assert place.size >= 0
            at = parser.pass_over(max(len(data), at + len(chunk)))
        parser.close()
    assert isinstance(is_nothing_but(data, 512, None), bool)
    assert isinstance(is_nothing_but(data, 512, Place("a.txt", 1024, 1)), bool)


def reads_archive(data: bytes) -> None:
    """Compressed shards and zips, told by their first bytes."""
    with contextlib.suppress(CorruptShard):
        for member in opened([data[at : at + 300] for at in range(0, len(data), 300)], SHARD):
            assert isinstance(member.data, bytes)


# ---- indexes

_INDEX = ShardIndex.of([(b"a.jpg", 0, 700), (b"a.cls", 1536, 1), (b"b.jpg", 2560, 0)], "0123456789abcdef", 4096)
_EMPTY = ShardIndex.of([], "0123456789abcdef", 1024)
_HEAD = 11  # version, format, kind of checksum, checksum
_SEED = 1103515245


def good_digest(data: bytes) -> bytes:
    """An index with the right digest of what follows its head."""
    return data[:3] + xxhash.xxh64_intdigest(data[_HEAD:], _SEED).to_bytes(8, "big") + data[_HEAD:]


def reads_index(data: bytes) -> None:
    """The server's form and that of kept ones; what was read is written and read as the same."""
    for form in (SERVER, KEPT):
        with contextlib.suppress(Malformed):
            index = decoded_index(data, form)
            assert list(decoded_index(encoded_index(index, form), form).entries()) == list(index.entries())
            assert all(first < end for first, end in index.uncovered()[:-1])


FOLDER = Path(tempfile.gettempdir()) / f"fuzz-of-kept-indexes-{os.getpid()}"
_CACHE = IndexCache(FOLDER)


def reads_kept(data: bytes) -> None:
    """A file that is damaged is none; one that is whole is that of the shard which is asked for."""
    if not FOLDER.exists():
        _CACHE.put(_INDEX)
    (FOLDER / f"{_INDEX.checksum}-{_INDEX.size}.idx").write_bytes(data)
    index = _CACHE.get(_INDEX.checksum, _INDEX.size)
    assert index is None or (index.checksum, index.size) == (_INDEX.checksum, _INDEX.size)


# ---- answers of a cluster

_BOUNDARY = "xyz"
_RESULTS = (BatchResult("a", "b", "ais", 1), BatchResult("s.tar", "b", "ais", 0, "x", "no such object", b"o"))
_PAGE = Page(uuid="u", token="b", entries=[Entry("a", size=7, checksum="c"), Entry("b/\udcff", size=0)])
_MAP = ClusterMap(
    "u",
    3,
    (Node("t1", "http://127.0.0.1:1", 5, 0), Node("t2", "http://[::1]:2", 9, 2)),
    (Node("p", "http://h:3", 1, 0),),
    "p",
)


def reads_batch(data: bytes) -> None:
    """Answers to a get-batch, streaming and buffered, and requests for one."""
    with contextlib.suppress(Malformed):
        reply = decoded_reply(data, f"multipart/mixed; boundary={_BOUNDARY}")
        assert isinstance(reply.archive, bytes)
    with contextlib.suppress(Malformed):
        decoded_request(data, "b")
    parser = TarParser(SHARD, link_bytes=0)
    with contextlib.suppress(CorruptShard):
        parser.feed(data)
        parser.close()


def reads_listing(data: bytes) -> None:
    """Pages in both forms, which agree, and requests for a page."""
    with contextlib.suppress(Malformed):
        page = decoded_page(data)
        assert decoded_page(encoded_page(page)) == page
    with contextlib.suppress(Malformed):
        brief = decoded_brief_page(data)
        assert all(isinstance(entry.name, str) for entry in brief.entries)
    with contextlib.suppress(Malformed):
        decoded_list(data)


def reads_map(data: bytes) -> None:
    """Maps of a cluster."""
    with contextlib.suppress(Malformed):
        found = decoded_map(data)
        assert isinstance(found.origins, frozenset)
        assert all(node.usable for node in found.usable_targets)


# ---- manifests


def _manifest() -> bytes:
    source = SavedSource("ais://b", 2, ("x/",))
    ends, sizes = np.array([1, 2], np.int64), np.array([7, -1], np.int64)
    return encoded_manifest(Saved((source,), "0123456789abcdef", None, b"ab", ends, sizes))


def packed(data: bytes) -> bytes:
    """A zip with good checksums, of members that ``data`` has one behind the other, each with its length before it."""
    names = [info.filename for info in zipfile.ZipFile(io.BytesIO(_manifest())).infolist()]
    made, at = io.BytesIO(), 0
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            length = int.from_bytes(data[at : at + 2], "little")
            archive.writestr(name, data[at + 2 : at + 2 + length])
            at += 2 + length
    return made.getvalue()


def unpacked(manifest: bytes) -> bytes:
    """What `packed` takes."""
    with zipfile.ZipFile(io.BytesIO(manifest)) as archive:
        members = [archive.read(info) for info in archive.infolist()]
    return b"".join(len(member).to_bytes(2, "little") + member for member in members)


def reads_manifest(data: bytes) -> None:
    """As they come, and with their checksums made good."""
    for manifest in (data, packed(data)):
        with contextlib.suppress(Malformed):
            saved = decoded_manifest(manifest)
            assert len(saved.ends) == len(saved.sizes)


def _reply(archive: bytes) -> bytes:
    return encoded_reply(BatchReply("u", _RESULTS, archive), _BOUNDARY)


_SERVER, _MADE = encoded_index(_INDEX, SERVER), encoded_index(_INDEX, KEPT)
_REQUEST = encoded_request(BatchRequest((BatchEntry("b", "ais", "s.tar", "x", 1, 2), BatchEntry("b", "ais", "y"))))
_TAR = nasty.packed(nasty.B, nasty.C)

PARSERS = {
    "tar": Parser(_tars(), reads_tar, good_checksums),
    "tar places": Parser(_tars(), reads_places, good_checksums),
    "archive": Parser([case.archive for case in nasty.compressed().values()], reads_archive),
    "server index": Parser([_SERVER, encoded_index(_EMPTY, SERVER)], reads_index, good_digest),
    "kept index": Parser([_MADE, _SERVER, b""], reads_kept, good_digest),
    "get-batch": Parser([_reply(_TAR), _reply(b""), _REQUEST, _TAR], reads_batch),
    "listing": Parser(
        [encoded_page(_PAGE), encoded_page(Page()), encoded_list(ListOptions(prefix="a", token="t"))], reads_listing
    ),
    "cluster map": Parser([encoded_map(_MAP)], reads_map),
    "manifest": Parser([_manifest(), unpacked(_manifest())], reads_manifest),
}


def run(parser: Parser, data: bytes) -> None:
    """What must hold, holds: for the bytes with their checksums made good, and now and then as they are."""
    repaired = parser.repaired(data)
    parser.holds(repaired)
    if repaired != data and len(data) % 8 == 0:
        parser.holds(data)


def clean() -> None:
    """Leave nothing behind."""
    shutil.rmtree(FOLDER, ignore_errors=True)
