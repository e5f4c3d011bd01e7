"""What an honest cluster of one node would answer: the answers that a hostile one changes."""

from __future__ import annotations

import json
import re

import xxhash

from aisdatapipes.wire.batch import BatchReply, BatchResult, decoded_request, encoded_reply
from aisdatapipes.wire.clustermap import ClusterMap, Node, encoded_map
from aisdatapipes.wire.listing import Entry, Page, decoded_list, encoded_page
from aisdatapipes.wire.placement import digest
from aisdatapipes.wire.shardindex import SERVER, ShardIndex, encoded_index
from aisdatapipes.wire.tar_places import PlaceParser
from tests.conformance.conftest import tar_of
from tests.hostile.server import Asked, whole

SHARDS = {
    f"shards/{i}.tar": tar_of(
        {f"{i}-{j}.{ext}": f"{i}{j}{ext}".encode() * 99 for j in range(3) for ext in ("cls", "txt")}
    )
    for i in range(3)
}
OBJECTS = {f"objects/{i:03}": (f"{i} " * (i + 1)).encode() for i in range(40)}
LARGE = {"large": bytes(range(256)) * 200}
STORED = {**LARGE, **OBJECTS, **SHARDS}


def map_of(url: str) -> bytes:
    """The map of a cluster whose one node, target and proxy, is at ``url``."""
    target, proxy = (Node(name, url, digest(name)) for name in ("t1", "p1"))
    return encoded_map(ClusterMap("uuid", 3, (target,), (proxy,), "p1"))


def answer(asked: Asked, url: str) -> list[bytes]:
    """The answer of a node at ``url``."""
    status, headers, body = content(asked, url)
    pieces = whole(body, *headers, status=status)
    return [pieces[0][: -len(body) or None]] if asked.method == "HEAD" else pieces


def content(asked: Asked, url: str) -> tuple[str, list[str], bytes]:
    """Status, headers and body of the answer."""
    match asked.kind:
        case "map":
            return "200 OK", ["Content-Type: application/json"], map_of(url)
        case "list":
            return "200 OK", ["Content-Type: application/msgpack"], encoded_page(page(asked))
        case "batch":
            return batch(asked)
        case "index":
            return index(asked)
        case "get" | "head" | "range":
            return stored(asked)
        case "put":
            return "200 OK", [], b""
        case _:
            return "400 Bad Request", [], json.dumps({"message": "unknown", "status": 400}).encode()


def page(asked: Asked) -> Page:
    """Three names a page."""
    options = decoded_list(asked.body)
    names = sorted(name for name in STORED if name.startswith(options.prefix) and name > options.token)
    here = names[:20]
    entries = [Entry(name, size=len(STORED[name]), flags=64) for name in here]
    return Page(entries, here[-1] if len(names) > len(here) else "", "listing")


def stored(asked: Asked) -> tuple[str, list[str], bytes]:
    data = STORED.get(asked.path.removeprefix("/v1/objects/b/"))
    if data is None:
        return "404 Not Found", [], json.dumps({"message": "no such object", "tcode": "ErrNotFound"}).encode()
    headers = ["Ais-Checksum-Type: xxhash2", f"Ais-Checksum-Value: {xxhash.xxh64_hexdigest(data)}", "Ais-Version: 1"]
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
    if found is None:
        return "200 OK", headers, data
    first, last = int(found[1]), int(found[2] or len(data) - 1)
    part = data[first : last + 1]
    if not part:
        return "416 Range Not Satisfiable", [f"Content-Range: bytes */{len(data)}"], b""
    headers.append(f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(data)}")
    return "206 Partial Content", headers, part


def batch(asked: Asked) -> tuple[str, list[str], bytes]:
    request = decoded_request(asked.body)
    members = {}
    for entry in request.entries:
        known = entry.name in STORED
        members[("" if known else "__404__/") + f"b/{entry.name}"] = STORED.get(entry.name, b"")
    archive = tar_of(members)
    if request.streaming:
        return "200 OK", ["Content-Type: application/x-tar"], archive
    results = tuple(BatchResult(e.name, "b", "ais", len(STORED.get(e.name, b""))) for e in request.entries)
    reply = encoded_reply(BatchReply("id", results, archive), "boundary")
    return "200 OK", ["Content-Type: multipart/mixed; boundary=boundary"], reply


def index(asked: Asked) -> tuple[str, list[str], bytes]:
    name = asked.path.partition("/b/")[2].removesuffix(".idx")
    if name not in SHARDS:
        return "404 Not Found", [], b""
    data = SHARDS[name]
    places = list(PlaceParser(name).places(data))
    made = ShardIndex.of([(n.encode(), at, size) for n, at, size in places], xxhash.xxh64_hexdigest(data), len(data))
    body = encoded_index(made, SERVER)
    return "200 OK", ["Ais-Checksum-Type: xxhash2", f"Ais-Checksum-Value: {xxhash.xxh64_hexdigest(body)}"], body
