"""What a target answers: objects it owns, whole, in part, or a member of them."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING

import xxhash

from aisdatapipes.devserver import archives, batches
from aisdatapipes.devserver.calls import Call, Reply, byte_range, check_name, json_reply
from aisdatapipes.devserver.proxy import place_of
from aisdatapipes.devserver.refusals import Refused, no_object, not_recovered, unsupported
from aisdatapipes.devserver.state import health
from aisdatapipes.wire.clustermap import encoded_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from aisdatapipes.devserver.buckets import Bucket, Stored
    from aisdatapipes.devserver.state import State
    from aisdatapipes.wire.clustermap import Node

_BINARY = ("Content-Type", "application/octet-stream")
_PROPS = frozenset(
    {"name", "size", "checksum", "atime", "version", "custom"}
    | {"location", "copies", "ec", "chunked", "last-modified", "etag"}
)
_INDEX_BUCKET = ".sys-shardidx"


def operation(call: Call) -> str:
    """The kind of request."""
    kind = call.path.split("/", 3)
    match kind[2] if len(kind) > 2 else "":
        case "objects":
            return call.method.lower()
        case "ml":
            return "batch"
        case "daemon":
            return "map"
        case other:
            return other or "unknown"


async def answer(state: State, node: Node, call: Call) -> Reply:
    """The target's reply."""
    if call.operation == "map" and call.query.get("what") == "smap":
        return json_reply(encoded_map(state.map, state.created))
    if call.operation == "health":
        return Reply(200, health(state))
    if call.operation == "batch":
        return await batches.answered(state, node, call)
    if not call.path.startswith("/v1/objects/"):
        raise Refused(400, f"invalid request URI: '{call.method} {call.path}' from {call.peer}")
    if not call.redirected:
        _check_direct(state, node, call)
    name, key = call.object_parts()
    if name == _INDEX_BUCKET:
        return _shard_index(state, node, key)
    bucket = state.buckets.find(*place_of(call), name)
    check_name(key, call.method)
    return await _object(state, node, bucket, key, call)


async def _object(state: State, node: Node, bucket: Bucket, key: str, call: Call) -> Reply:
    match call.method:
        case "GET":
            return await _get(state, node, bucket, key, call)
        case "HEAD":
            return _head(state, bucket, key, call, _found(state, node, bucket, key))
        case "PUT":
            return await _put(state, node, bucket, key, call)
        case "DELETE":
            if not bucket.delete(key):
                raise Refused(404, f"{bucket}/{key} doesn't exist")
            return Reply()
        case "PATCH":
            return await _patch(_found(state, node, bucket, key), call)
    raise unsupported(f"{call.method} of object {bucket}/{key}")


def _check_direct(state: State, node: Node, call: Call) -> None:
    """Whom no proxy sent may read, unless the cluster has tokens."""
    if state.tokens:
        raise Refused(403, "direct target access denied")
    if call.method not in ("GET", "HEAD"):
        raise Refused(400, f"t[{node.id}]: {call.method}(obj) is expected to be redirected")
    state.count("direct")


def _found(
    state: State, node: Node, bucket: Bucket, key: str, missing: Callable[[str, str], Refused] = no_object
) -> Stored:
    stored = bucket.objects.get(key)
    uname = bucket.uname(key)
    if stored is None or state.owner(uname).id != node.id or state.is_away(uname):
        raise missing(f"t[{node.id}]", f"{bucket}/{key}")
    return stored


def _shard_index(state: State, node: Node, key: str) -> Reply:
    """The index of a shard: it lies where the shard lies, whatever its own name says."""
    uname = key.removesuffix(".idx")
    found = state.indexes.get(uname)
    if found is None or state.owner(uname).id != node.id:
        raise no_object(f"t[{node.id}]", f"ais://{_INDEX_BUCKET}/{key}")
    return Reply(200, [_BINARY], found)


async def _get(state: State, node: Node, bucket: Bucket, key: str, call: Call) -> Reply:
    stored = _found(state, node, bucket, key, not_recovered if bucket.coding["enabled"] else no_object)
    stored.cold = False
    query = call.query
    if query.get("etl_name"):  # wins over everything else in the query
        return await _transformed(state, node, stored, query["etl_name"])
    if query.get("archpath") or query.get("archmode"):
        return await _from_archive(node, bucket, key, call, stored)
    headers = [*_described(stored, ("atime", "checksum", "version", "custom")), _BINARY]
    asked = call.headers.get("Range")
    if asked is None:
        return Reply(200, headers, stored.data)
    first, end = byte_range(asked, len(stored.data))
    part = f"bytes {first}-{end - 1}/{len(stored.data)}"
    return Reply(206, [("Accept-Ranges", "bytes"), *headers, ("Content-Range", part)], stored.data[first:end])


async def _transformed(state: State, node: Node, stored: Stored, name: str) -> Reply:
    function = state.etls.get(name)
    if function is None:
        primary = next(proxy.url for proxy in state.map.proxies if proxy.id == state.map.primary)
        hint = f'try starting new ETL with "{primary}/v1/etl/init" endpoint'
        raise Refused(404, f"t[{node.id}]: {name} does not exist - {hint}", "ErrNotFound")
    try:
        content = await asyncio.to_thread(function, stored.data)
    except Exception as error:  # whatever a user's function raises is its answer
        raise Refused(500, f"ETL error: {error!r}") from error
    return Reply(200, [_BINARY], [content])  # chunked, and without a checksum


async def _from_archive(node: Node, bucket: Bucket, key: str, call: Call, stored: Stored) -> Reply:
    archpath, mode, pattern = (call.query.get(name, "") for name in ("archpath", "archmode", "archregx"))
    if "Range" in call.headers:
        what = f"(archpath={archpath})" if archpath else f"(archregx={pattern}, archmode={mode})"
        asked = call.headers["Range"]
        raise unsupported(f"cannot range-read archived content range: {asked}, arch query: {what}", 400)
    if stored.members is None:  # a long archive takes a while to walk: not in the loop that serves everybody
        await asyncio.to_thread(archives.members_of, stored, key)
    if archpath:
        content = archives.member(stored, key, archpath)
        if content is None:
            raise no_object(f"t[{node.id}]", f"{archpath} in {bucket}/{key}")
        return Reply(200, [_BINARY], bytes(content))
    chosen = archives.selected(stored, key, mode, pattern)
    if chosen is None:
        raise no_object(f"t[{node.id}]", f"(archregx={pattern}, archmode={mode}) in {bucket}/{key}")
    return Reply(200, [("Content-Type", "application/x-tar")], [chosen])


def _head(state: State, bucket: Bucket, key: str, call: Call, stored: Stored) -> Reply:
    size = ("Content-Length", str(len(stored.data)))
    present = ("Ais-Present", "false" if stored.cold else "true")
    location = ("Ais-Location", state.location(bucket.uname(key)))
    props = call.query.get("props", "")
    if not props:  # as before 4.2: everything, and no length of an empty object
        headers = [
            *_described(stored, ("atime", "checksum", "version", "custom")),
            ("Ais-Bucket-Name", bucket.name),
            ("Ais-Bucket-Provider", bucket.provider),
            location,
            ("Ais-Mirror-Copies", "1"),
            ("Ais-Mirror-Paths", "[/memory]"),
            ("Ais-Name", key.encode("utf-8", "replace").decode()),
            present,
        ]
        return Reply(200, [*headers, size] if stored.data else headers)
    wanted = [prop.strip() for prop in props.split(",")]
    unknown = next((prop for prop in wanted if prop not in _PROPS), None)
    if unknown is not None:
        raise Refused(400, f'invalid property "{unknown}" in props list', headers=[present])
    headers = [size, present, *_described(stored, wanted)]
    if "location" in wanted:
        headers.append(location)
    return Reply(200, headers)


def _described(stored: Stored, wanted: tuple[str, ...] | list[str]) -> list[tuple[str, str]]:
    """Headers of an object's attributes."""
    tables: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "atime": lambda: [("Ais-Atime", str(stored.written_ns))],
        "checksum": lambda: [("Ais-Checksum-Type", "xxhash2"), ("Ais-Checksum-Value", stored.checksum)],
        "version": lambda: [("Ais-Version", str(stored.version))],
        "custom": lambda: [("Ais-Custom-Md", f"{key}={value}") for key, value in stored.custom.items()],
        "copies": lambda: [("Ais-Mirror-Copies", "1"), ("Ais-Mirror-Paths", "/memory")],
        "last-modified": lambda: [("Last-Modified", formatdate(stored.written_ns / 1e9, usegmt=True))],
        "etag": lambda: [("ETag", f'"v{stored.version}-{stored.checksum}"')],
    }
    return [header for prop in wanted if prop in tables for header in tables[prop]()]


async def _put(state: State, node: Node, bucket: Bucket, key: str, call: Call) -> Reply:
    query = call.query
    if query.get("object_to"):
        return _copy(state, _found(state, node, bucket, key), query["object_to"])
    for parameter in ("append_type", "archpath", "uploadId", "etl_name"):
        if query.get(parameter):
            raise unsupported(f"PUT with {parameter}")
    data = await call.read()
    given, kind = call.headers.get("Ais-Checksum-Value"), call.headers.get("Ais-Checksum-Type", "xxhash2")
    before = bucket.objects.get(key)
    if given and before is not None and before.checksum == given:
        return Reply(200, _described(before, ("atime", "checksum", "version")))
    have = xxhash.xxh64_hexdigest(data)
    if given and kind == "xxhash2" and have != given:
        raise Refused(400, f"BAD DATA CHECKSUM: expected {given}, have {have} for {bucket}/{key}", "ErrBadCksum")
    stored = bucket.put(key, data)
    return Reply(200, _described(stored, ("atime", "checksum", "version")))


def _copy(state: State, stored: Stored, to: str) -> Reply:
    parts = to.strip("/").split("/", 3)
    if len(parts) != 4:
        raise Refused(400, f'invalid destination "{to}"')
    bucket = state.buckets.find(parts[0], "" if parts[1] == "@#" else parts[1], parts[2])
    bucket.put(parts[3], stored.data, dict(stored.custom))
    return Reply()


async def _patch(stored: Stored, call: Call) -> Reply:
    value = (await call.message()).get("value") or {}
    if not isinstance(value, dict):
        raise Refused(400, "custom metadata is a map of texts")
    if call.says("set-new-custom"):
        stored.custom.clear()
    stored.custom.update({str(key): str(content) for key, content in value.items()})
    return Reply()
