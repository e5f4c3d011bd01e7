"""What the proxy answers: map, buckets and listings itself, everything about objects by a redirect."""

from __future__ import annotations

import asyncio
import html
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from aisdatapipes.devserver import batches, jobs, pages
from aisdatapipes.devserver.calls import Call, Reply, as_json, check_name, json_reply
from aisdatapipes.devserver.refusals import NOT_ALLOWED, Refused, no_backend, unsupported, wrong_action
from aisdatapipes.devserver.state import bucket_props, health
from aisdatapipes.model.url import PROVIDERS
from aisdatapipes.wire.clustermap import encoded_map
from aisdatapipes.wire.listing import decoded_list, encoded_page
from aisdatapipes.wire.malformed import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from aisdatapipes.devserver.buckets import Bucket
    from aisdatapipes.devserver.jobs import Value
    from aisdatapipes.devserver.state import State
    from aisdatapipes.wire.clustermap import Node

_OBJECT_VERBS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "POST")
_ETL_MISSING = "cannot use ETL in a build without ETL support"
# As the server writes paths: these stay, everything else is percent-encoded.
_SAFE = "/-_.~$&+,:;=@"


def operation(call: Call) -> str:
    """The kind of request, as far as its first line tells."""
    kind = call.path.split("/", 3)
    match kind[2] if len(kind) > 2 else "":
        case "daemon":
            return "map"
        case "objects":
            return "redirect"
        case "ml":
            return "redirect-batch"
        case "buckets":
            return {"GET": "list", "HEAD": "head-bucket"}.get(call.method, "buckets")
        case other:
            return other or "unknown"


async def refine(call: Call) -> None:
    """Sets the operation of what only the control message tells apart."""
    if call.path.startswith("/v1/buckets") and call.method in ("GET", "POST", "DELETE"):
        message = await call.message()
        action = str(message.get("action", ""))
        call.operation = {"create-bck": "create", "destroy-bck": "destroy"}.get(action, action)
        if action == "list" and message.get("value") is None:
            call.operation = "buckets"


async def answer(state: State, node: Node, call: Call) -> Reply:
    """The proxy's reply."""
    if call.operation == "health":
        return Reply(200, health(state))
    state.check_token(call)
    return await _routed(state, node, call)


async def _routed(state: State, node: Node, call: Call) -> Reply:
    match call.path.split("/", 3)[1:3]:
        case ["v1", "daemon"]:
            return _map(state, call)
        case ["v1", "buckets"]:
            return await _buckets(state, node, call)
        case ["v1", "objects"]:
            return _object(state, node, call)
        case ["v1", "ml"] if call.path.startswith("/v1/ml/moss"):
            target, path = await batches.announced(state, call)
            return _redirect(node, target, call, path)
        case ["v1", "cluster"] if call.method == "GET":
            return await jobs.status(state, call)
        case ["v1", "etl"]:
            return _etls(state, call)
        case ["v1", "sort" | "download" | "cluster" | "reverse" | "dsort"]:
            raise unsupported(f"{call.method} {call.path}")
    raise Refused(400, f"invalid request URI: '{call.method} {call.path}' from {call.peer}")


def _map(state: State, call: Call) -> Reply:
    what = call.query.get("what", "")
    if what != "smap":
        raise unsupported(f"what={what!r}")
    return json_reply(encoded_map(state.map, state.created))


def _etls(state: State, call: Call) -> Reply:
    """The registered Python functions; they cannot be made over HTTP."""
    if call.method != "GET" or call.path.rstrip("/") != "/v1/etl" or not state.etls:
        raise unsupported(_ETL_MISSING)
    counts = {"obj_count": 0, "in_bytes": 0, "out_bytes": 0}
    return as_json([{"id": name, "stage": "Running", "xaction_id": name, **counts} for name in state.etls])


def bucket_of(state: State, node: Node, call: Call, name: str) -> Bucket:
    """The bucket that path and query name; refuses when it is not there, or its provider unknown."""
    provider, namespace = place_of(call)
    if provider != "ais" and provider not in state.buckets.clouds:
        raise no_backend(f"p[{node.id}]", provider, namespace, name)
    return state.buckets.find(provider, namespace, name)


def place_of(call: Call) -> tuple[str, str]:
    """Provider and namespace in the query."""
    said = call.query.get("provider", "") or "ais"
    if said not in PROVIDERS:
        expected = "must be one of [ais, aws (s3://), gcp (gs://), azure (az://), oci (oc://)]"
        raise Refused(400, f'invalid backend provider "{said}": {expected}', "ErrInvalidBackendProvider")
    namespace = call.query.get("namespace", "")
    return PROVIDERS[said], "" if namespace == "@#" else namespace


async def _buckets(state: State, node: Node, call: Call) -> Reply:
    name = (call.path.split("/") + [""] * 4)[3]
    if call.method == "HEAD":
        return _bucket_head(bucket_of(state, node, call, name), call)
    if call.method not in ("GET", "POST", "DELETE"):
        return _not_allowed("DELETE, GET, HEAD, PATCH, POST")
    message = await call.message()
    action, value = str(message.get("action", "")), message.get("value")
    if (call.method, action) == ("POST", "create-bck"):
        return _created(state, call, name, value if isinstance(value, dict) else {})
    if call.operation == "buckets":
        return _bucket_list(state, call)
    if call.operation == "list":
        return await _page(state, bucket_of(state, node, call, name), call)
    run = _ACTIONS.get((call.method, action))
    if run is not None:
        return run(state, bucket_of(state, node, call, name), call, value if isinstance(value, dict) else {})
    raise unsupported(f"{action} of bucket {name}") if action in jobs.UNSUPPORTED else wrong_action(action)


def _created(state: State, call: Call, name: str, value: Value) -> Reply:
    provider, namespace = place_of(call)
    if provider != "ais":
        raise unsupported(f"cannot create {provider} bucket {name}")
    state.buckets.create(provider, namespace, name, value.get("ec"))
    return Reply()


def _bucket_list(state: State, call: Call) -> Reply:
    provider, _ = place_of(call)
    wanted = provider if call.query.get("provider") else ""
    return as_json([jobs.described(bucket) for bucket in state.buckets.all(wanted)])


def _destroyed(state: State, bucket: Bucket, call: Call, _value: Value) -> Reply:
    if bucket.provider != "ais" and call.operation == "destroy":
        raise unsupported(f"cannot destroy cloud bucket {bucket}", 405)
    state.buckets.destroy(bucket)
    return Reply()


def _bucket_head(bucket: Bucket, call: Call) -> Reply:
    props = as_json(bucket_props(bucket)).whole.decode().strip()
    headers = [("Ais-Bucket-Props", props)]
    if "bsumm_remote" not in call.query:
        return Reply(200, headers)
    if not call.query.get("uuid"):
        return Reply(202, [*headers, ("Ais-Xaction-Id", secrets.token_urlsafe(6))])
    summary = as_json(jobs.summarised(bucket, "")).whole.decode().strip()
    return Reply(200, [*headers, ("Ais-Bucket-Summ", summary)])


async def _page(state: State, bucket: Bucket, call: Call) -> Reply:
    try:
        options = decoded_list(call.body)
    except Malformed as error:
        raise Refused(400, str(error)) from None
    call.token = options.token or options.start_after
    # Long pages take a while: not in the loop that serves everybody.
    page = await asyncio.to_thread(pages.page_of, bucket, options, state.location)
    if state.away:
        page.entries = [entry for entry in page.entries if not state.is_away(bucket.uname(entry.name))]
    page.uuid = options.uuid or secrets.token_urlsafe(6)
    if "msgpack" in call.headers.get("Accept", ""):
        return Reply(200, [("Content-Type", "application/msgpack")], encoded_page(page))
    return json_reply(pages.page_in_json(page))


# What can be done with a bucket that is there.
_ACTIONS: dict[tuple[str, str], Callable[[State, Bucket, Call, Value], Reply]] = {
    ("GET", "summary-bck"): jobs.summary,
    ("POST", "copy-bck"): jobs.copied,
    ("POST", "index-shard"): jobs.indexed,
    ("DELETE", "destroy-bck"): _destroyed,
    ("DELETE", "evict-remote-bck"): _destroyed,
    ("DELETE", "delete-listrange"): jobs.deleted,
}


def _object(state: State, node: Node, call: Call) -> Reply:
    if call.method not in _OBJECT_VERBS:
        return _not_allowed("DELETE, GET, HEAD, POST, PUT")
    bucket_name, name = call.object_parts()
    mode = call.query.get("archmode", "")
    if mode:
        jobs.check_mode(mode, call)
    bucket = None if bucket_name == ".sys-shardidx" else bucket_of(state, node, call, bucket_name)
    check_name(name, call.method)
    uname = bucket.uname(name) if bucket else f"ais/@#/{bucket_name}/{name}"
    return _redirect(node, state.owner(uname), call, call.path)


def _redirect(node: Node, target: Node, call: Call, path: str) -> Reply:
    """301 for a GET of an object, else 307; the client's query comes first and untouched."""
    mark = [("pid", node.id), ("utm", _base36(time.time_ns()))]
    query = "&".join(filter(None, (call.raw_query, urlencode(mark))))
    if set(path) & set("%?# +"):  # then the server rebuilds the address, and its query is sorted
        query = urlencode(sorted([*parse_qsl(call.raw_query, keep_blank_values=True), *mark]))
    location = f"{target.url}{quote(path, _SAFE, errors='surrogateescape')}?{query}"
    permanent = call.operation == "redirect" and call.method == "GET"
    headers = [("Location", location)]
    if call.method in ("GET", "HEAD"):
        headers.append(("Content-Type", "text/html; charset=utf-8"))
    if call.method in ("PUT", "POST", "PATCH") and call.headers.get("Expect"):
        headers.append(("Connection", "close"))  # the body was announced and is not wanted here
    words = "Moved Permanently" if permanent else "Temporary Redirect"
    page = f'<a href="{html.escape(location)}">{words}</a>.\n\n'.encode() if call.method == "GET" else b""
    return Reply(301 if permanent else 307, headers, page)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def _not_allowed(allow: str) -> Reply:
    headers = [("Allow", allow), ("Content-Type", "text/plain; charset=utf-8")]
    return Reply(405, headers, NOT_ALLOWED.encode())
