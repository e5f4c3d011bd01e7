"""Get-batch: many objects, archive members or parts of them in one request (AIStore: api/apc/ml.go).

The reply is an archive with one member for each entry, in the order of the request. A streaming reply is the
archive itself; a buffered one is multipart: what became of each entry (JSON), then the archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from aisdatapipes.wire.malformed import Malformed

# Where an entry that could not be read stands in the archive, with size 0, under its usual name.
MISSING = "__404__/"


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One object, member of an archive, or part of either.

    Args:
        bucket: Name of the bucket.
        provider: Canonical provider, such as ``ais``.
        name: Name of the object.
        archpath: A member of the object, which is an archive; empty for the object itself.
        start: First byte of a part; None for all. Servers before 5.0 ignore it.
        length: Bytes of the part; -1 for the rest.
        namespace: ``@uuid#name``; empty for the global one.
        opaque: Bytes that a buffered reply brings back.
    """

    bucket: str
    provider: str
    name: str
    archpath: str = ""
    start: int | None = None
    length: int | None = None
    namespace: str = ""
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What one get-batch asks for.

    Args:
        entries: At least one; one may occur several times.
        mime: Format of the reply's archive: ``.tar``, ``.tgz``, ``.tar.gz``, ``.zip``.
        continue_on_error: A missing entry is an empty member under `MISSING`; else it ends the reply.
        only_names: Members are named without the bucket.
        streaming: The archive alone, as it grows; else `BatchReply` in one piece.
        colocation: 1 lets the owner of most entries answer.
    """

    entries: tuple[BatchEntry, ...]
    mime: str = ".tar"
    continue_on_error: bool = True
    only_names: bool = False
    streaming: bool = True
    colocation: int = 0


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one entry, as a buffered reply tells it.

    Args:
        name: Name of the object; of an entry that another target read, ``object/archpath``.
        bucket: Name of the bucket.
        provider: Canonical provider.
        size: Bytes of the member; 0 when there was an error.
        archpath: As asked, where the answering target read it itself.
        error: Why there is no content; empty when there is.
        opaque: As asked.
    """

    name: str
    bucket: str
    provider: str
    size: int
    archpath: str = ""
    error: str = ""
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class BatchReply:
    """A buffered reply.

    Args:
        uuid: The server's id of the job.
        results: One for each entry, in the order of the request; pair them by position.
        archive: The archive's bytes.
    """

    uuid: str
    results: tuple[BatchResult, ...]
    archive: bytes


def member_name(entry: BatchEntry, only_names: bool) -> str:
    """The name under which the archive of the reply holds ``entry``.

    >>> member_name(BatchEntry("photos", "ais", "s.tar", archpath="cats/1.jpg"), only_names=False)
    'photos/s.tar/cats/1.jpg'
    """
    name = entry.name if only_names else f"{entry.bucket}/{entry.name}"
    return f"{name}/{entry.archpath.removeprefix('/')}" if entry.archpath else name


class _In(msgspec.Struct, omit_defaults=True):
    objname: str
    bucket: str = ""
    provider: str = ""
    uname: str = ""
    archpath: str = ""
    opaque: bytes = b""
    start: int = 0
    length: int = 0


class _Request(msgspec.Struct, rename={"entries": "in"}):
    entries: list[_In]
    mime: str = ".tar"
    coer: bool = False
    onob: bool = False
    strm: bool = False
    coloc: int = 0


class _Out(msgspec.Struct):
    objname: str
    bucket: str
    provider: str
    size: int = 0
    archpath: str | msgspec.UnsetType = msgspec.UNSET
    err_msg: str | msgspec.UnsetType = msgspec.UNSET
    opaque: bytes | msgspec.UnsetType = msgspec.UNSET


class _Reply(msgspec.Struct):
    uuid: str = ""
    out: list[_Out] = []


def encoded_request(request: BatchRequest) -> bytes:
    """The body of the request, in JSON.

    Raises: `Malformed` for a name that is no UTF-8: JSON cannot carry it.
    """
    message = _Request(
        entries=[_said(entry) for entry in request.entries],
        mime=request.mime,
        coer=request.continue_on_error,
        onob=request.only_names,
        strm=request.streaming,
        coloc=request.colocation,
    )
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:
        raise Malformed("a get-batch cannot name an object whose name is no UTF-8; use a GET") from None


def decoded_request(body: bytes, default_bucket: str = "", default_provider: str = "ais") -> BatchRequest:
    """The request that ``body`` holds.

    Args:
        body: JSON.
        default_bucket: The bucket of entries that name none: that of the request's path.
        default_provider: The provider of entries that name none.

    Raises: `Malformed` when it holds none, or a part that cannot be.
    """
    try:
        message = msgspec.json.decode(body, type=_Request)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"not a get-batch request: {error}") from None
    return BatchRequest(
        entries=tuple(_heard(entry, default_bucket, default_provider) for entry in message.entries),
        mime=message.mime or ".tar",
        continue_on_error=message.coer,
        only_names=message.onob,
        streaming=message.strm,
        colocation=message.coloc,
    )


def encoded_reply(reply: BatchReply, boundary: str) -> bytes:
    """A buffered reply; its type is ``multipart/mixed; boundary=`` and the boundary."""
    message = _Reply(reply.uuid, [_reported(result) for result in reply.results])
    line = b"--" + boundary.encode()
    return b"".join(
        (
            line + b'\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n',
            msgspec.json.encode(message) + b"\n",
            b"\r\n" + line + b'\r\nContent-Disposition: form-data; name="archive"; filename="',
            reply.uuid.encode() + b'"\r\nContent-Type: application/octet-stream\r\n\r\n',
            reply.archive,
            b"\r\n" + line + b"--\r\n",
        )
    )


def decoded_reply(body: bytes, content_type: str) -> BatchReply:
    """The buffered reply that ``body`` holds.

    Args:
        body: The whole body.
        content_type: The header, which has the boundary.

    Raises: `Malformed` when it holds none, or ends early.
    """
    found = re.match(r'multipart/mixed;\s*boundary="?([^";]+)"?', content_type)
    if found is None:
        raise Malformed(f"not a buffered get-batch reply: its type is {content_type!r}")
    line = b"--" + found[1].encode()
    # The archive may hold any bytes, so the end is looked for at the end, and the start in front.
    head, middle, rest = body.partition(b"\r\n" + line + b"\r\n")
    end = rest.rfind(b"\r\n" + line + b"--")
    if not head.startswith(line) or not middle or end < 0:
        raise Malformed(f"a buffered get-batch reply that is no multipart body, or ends early ({len(body)} bytes)")
    message_part, archive_part = head[len(line) + 2 :], rest[:end]
    try:
        message = msgspec.json.decode(_part_body(message_part), type=_Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"a buffered get-batch reply with unreadable metadata: {error}") from None
    return BatchReply(message.uuid, tuple(_result(out) for out in message.out), _part_body(archive_part))


def _part_body(part: bytes) -> bytes:
    head, blank, body = part.partition(b"\r\n\r\n")
    if not blank:
        raise Malformed(f"a part of a buffered get-batch reply without an end of its headers: {head[:100]!r}")
    return body


def _said(entry: BatchEntry) -> _In:
    uname = f"{entry.provider}/{entry.namespace}/{entry.bucket}/{entry.name}" if entry.namespace else ""
    return _In(
        objname=entry.name,
        bucket=entry.bucket,
        provider=entry.provider,
        # Only a full name can say the namespace.
        uname=uname,
        archpath=entry.archpath,
        opaque=entry.opaque,
        start=entry.start or 0,
        length=entry.length or 0,
    )


def _heard(entry: _In, bucket: str, provider: str) -> BatchEntry:
    if entry.start < 0 or entry.length < -1 or (entry.start and not entry.length):
        raise Malformed(f"invalid byte range of {entry.objname!r}: start={entry.start}, length={entry.length}")
    ranged = bool(entry.length)
    bucket, provider, name, namespace = entry.bucket or bucket, entry.provider or provider, entry.objname, ""
    if entry.uname:
        parts = entry.uname.split("/", 3)
        if len(parts) != 4:
            raise Malformed(f"not a full name of an object: {entry.uname!r}")
        provider, namespace, bucket, name = parts
    return BatchEntry(
        bucket=bucket,
        provider=provider,
        name=name,
        archpath=entry.archpath,
        start=entry.start if ranged else None,
        length=entry.length if ranged else None,
        namespace="" if namespace == "@#" else namespace,
        opaque=entry.opaque,
    )


def _reported(result: BatchResult) -> _Out:
    return _Out(
        objname=result.name,
        bucket=result.bucket,
        provider=result.provider,
        size=result.size,
        archpath=result.archpath or msgspec.UNSET,
        err_msg=result.error or msgspec.UNSET,
        opaque=result.opaque or msgspec.UNSET,
    )


def _result(out: _Out) -> BatchResult:
    return BatchResult(
        name=out.objname,
        bucket=out.bucket,
        provider=out.provider,
        size=out.size,
        archpath=out.archpath or "",
        error=out.err_msg or "",
        opaque=out.opaque or b"",
    )
