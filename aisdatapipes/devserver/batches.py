"""Get-batch: the proxy chooses a target and announces the batch there; the target answers it once."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import secrets
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aisdatapipes.devserver import archives
from aisdatapipes.devserver.calls import Call, Reply, check_name
from aisdatapipes.devserver.refusals import Refused, no_object, unsupported
from aisdatapipes.model.url import PROVIDERS
from aisdatapipes.wire import batch
from aisdatapipes.wire.batch import BatchEntry, BatchReply, BatchRequest, BatchResult
from aisdatapipes.wire.malformed import Malformed

if TYPE_CHECKING:
    from aisdatapipes.devserver.state import State
    from aisdatapipes.wire.clustermap import Node

_TYPES = {
    ".tar": "application/x-tar",
    ".tgz": "application/gzip",
    ".tar.gz": "application/gzip",
    ".zip": "application/zip",
}


async def announced(state: State, call: Call) -> tuple[Node, str]:
    """The target that will answer, and the path to ask it by; the batch is announced to it."""
    bucket = (call.path.split("/") + [""] * 5)[4]
    provider = PROVIDERS.get(call.query.get("provider", ""), "ais")
    try:
        request = batch.decoded_request(await call.read(), bucket, provider)
    except Malformed as error:
        raise Refused(400, str(error)) from None
    if not request.entries:
        raise Refused(400, "moss: empty input")
    for entry in request.entries:
        state.buckets.find(PROVIDERS.get(entry.provider, entry.provider), entry.namespace, entry.bucket)
        check_name(entry.name, "GET")
    target = _designated(state, request)
    wid = secrets.token_urlsafe(6)
    state.batches[wid] = request
    parts = ["/v1/ml/moss", *([bucket] if bucket else []), "gbt-" + secrets.token_urlsafe(6), wid]
    return target, "/".join([*parts, str(len(state.map.usable_targets))])


def _designated(state: State, request: BatchRequest) -> Node:
    """Any target; with colocation the owner of most entries."""
    if request.colocation:
        owners = Counter(state.owner(_uname(state, entry)) for entry in request.entries)
        return owners.most_common(1)[0][0]
    return random.choice(state.map.usable_targets)  # noqa: S311 - nothing secret


def _uname(state: State, entry: BatchEntry) -> str:
    return state.buckets.find(entry.provider, entry.namespace, entry.bucket).uname(entry.name)


async def answered(state: State, node: Node, call: Call) -> Reply:
    """What the announced batch asked for; it can be asked for only once."""
    if not call.redirected:
        raise Refused(401, f"t[{node.id}]: get-batch is expected to be redirected")
    await call.read()  # sent again by the client, and not needed
    request = state.batches.pop(call.path.rstrip("/").split("/")[-2], None)
    if request is None:
        raise Refused(404, f"t[{node.id}]: no such get-batch, or one that was answered")
    if request.mime not in _TYPES:
        raise unsupported(f"get-batch output format {request.mime!r}")
    made = _Made(state, node, request)
    # Walking shards and packing takes a while: not in the loop that serves everybody.
    pieces = await asyncio.to_thread(lambda: _packed(request.mime, made.members()))
    if request.streaming:
        # Headers of the real thing are gone before anything is read: an error can only end the archive early.
        return Reply(200, [("Content-Type", _TYPES[request.mime])], pieces)
    if made.failed is not None:
        raise made.failed
    boundary = secrets.token_hex(30)
    reply = BatchReply("gbt-" + secrets.token_urlsafe(6), tuple(made.results), b"".join(pieces))
    headers = [("Content-Type", f"multipart/mixed; boundary={boundary}")]
    return Reply(200, headers, [batch.encoded_reply(reply, boundary)])


@dataclass(slots=True)
class _Part:
    content: bytes | memoryview
    error: str = ""


class _Made:
    """The members of a batch, what is to be reported about each, and what ended it early."""

    def __init__(self, state: State, node: Node, request: BatchRequest) -> None:
        self.state, self.node, self.request = state, node, request
        self.results: list[BatchResult] = []
        self.failed: Refused | None = None

    def members(self) -> list[tuple[str, bytes | memoryview]]:
        found: list[tuple[str, bytes | memoryview]] = []
        soft_errors = 0
        for entry in self.request.entries:
            try:
                part = self._part(entry)
            except Refused as refused:
                self.failed = refused
                break
            name = batch.member_name(entry, self.request.only_names)
            if part.error:
                soft_errors += 1
                if not self.request.continue_on_error:
                    self.failed = Refused(404, part.error, "ErrNotFound")
                    break
                if soft_errors > self.state.soft_errors:
                    self.failed = Refused(400, f"number of soft errors exceeded the limit: {soft_errors}")
                    break
                name = batch.MISSING + name
            found.append((name, part.content))
            self.results.append(_reported(entry, part))
        return found

    def _part(self, entry: BatchEntry) -> _Part:
        """The content, or why there is none; refuses what ends the whole batch."""
        bucket = self.state.buckets.get(PROVIDERS.get(entry.provider, entry.provider), entry.namespace, entry.bucket)
        stored = bucket.objects.get(entry.name) if bucket else None
        # What is in the cloud only counts as missing: a batch never reads a cold object.
        gone = bucket is not None and self.state.is_away(bucket.uname(entry.name))
        if stored is None or bucket is None or stored.cold or gone:
            where = bucket or f"{entry.provider}://{entry.bucket}"
            return _Part(b"", no_object(f"t[{self.node.id}]", f"{where}/{entry.name}").message)
        content: bytes | memoryview = stored.data
        if entry.archpath:
            found = archives.member(stored, entry.name, entry.archpath)
            if found is None:
                what = f"{entry.archpath} in {bucket}/{entry.name}"
                return _Part(b"", no_object(f"t[{self.node.id}]", what).message)
            content = found
        if entry.length is None:
            return _Part(content)
        start = entry.start or 0
        end = len(content) if entry.length == -1 else start + entry.length
        if start >= len(content) or end > len(content):
            raise Refused(
                416,
                f"size={len(content)}: not satisfiable range [{start}-{end - 1}]",
                "ErrRangeNotSatisfiable",
            )
        return _Part(content[start:end])


def _reported(entry: BatchEntry, part: _Part) -> BatchResult:
    return BatchResult(
        name=entry.name,
        bucket=entry.bucket,
        provider=entry.provider,
        size=len(part.content),
        archpath=entry.archpath,
        error=part.error,
        opaque=entry.opaque,
    )


def _packed(mime: str, members: list[tuple[str, bytes | memoryview]]) -> list[bytes]:
    """The archive in pieces; of a plain tar, one for each member and one for its end."""
    if mime == ".zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in members:
                archive.writestr(name, bytes(content))
        return [out.getvalue()]
    pieces = [*(archives.tar_member(name, content) for name, content in members), archives.END]
    return pieces if mime == ".tar" else [gzip.compress(b"".join(pieces), 1)]
