"""What an answer of the cluster means: the only place where HTTP statuses become errors.

Statuses and the form of error bodies are those of AIStore's API (``cmn/err.go`` writes JSON with ``tcode`` and
``message``; a HEAD carries it in the header ``Hdr-Error``).
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import msgspec

from aisdatapipes.model.errors import (
    BucketNotFound,
    CorruptBody,
    Denied,
    ObjectNotFound,
    RemoteBucketNotFound,
    StoreError,
    Truncated,
    Unavailable,
)
from aisdatapipes.store.transport import Failure, Reply

REDIRECTS = frozenset((301, 302, 307, 308))
# Conflicts (409, 423) end when somebody else's cold GET has ended; 429 and most 5xx pass too.
_RETRY = frozenset((408, 409, 423, 425, 429))
# AIStore answers 400 when a proxy does not reach a target, and when a target that has just started does not know its
# cluster yet. Both pass.
_BETWEEN_NODES = re.compile(
    r"failed to call t\[.*(dial tcp|connection re|EOF|deadline exceeded|timeout|broken pipe)|: Smap v0$", re.DOTALL
)
# Of an erasure coded bucket the owner tries to make what it lacks of copies and slices on other targets. Where nobody
# has any, the object does not exist; all else passes, such as a target that has just gone.
_NOT_RECOVERED = re.compile(r": failed to (load )?EC-recover(ed)? ")
_NO_PARTS = "err: no metafile"
_FINAL_5XX = frozenset((501, 505, 507))

_API = "/v1/"  # where all of it is; a service of another kind at a node's address is never asked for anything

_NUMBER = re.compile(r"[0-9]{1,19}")

_LENGTH = 500  # characters of the cluster's own words that go into a message: half from each end


class _ErrorBody(msgspec.Struct):
    tcode: str = ""
    message: str = ""


_decode = msgspec.json.Decoder(_ErrorBody).decode


def may_pass(reply: Reply) -> bool:
    """True for an answer that another try may change."""
    return _may_pass(reply.status, _words(reply)[1] if reply.status == 400 else "")


def _may_pass(status: int, words: str) -> bool:
    if status == 400:
        return bool(_BETWEEN_NODES.search(words) or (_NOT_RECOVERED.search(words) and not _has_no_parts(words)))
    return status in _RETRY or (status >= 500 and status not in _FINAL_5XX)


def _has_no_parts(words: str) -> bool:
    """True for an object that an erasure coded bucket does not have."""
    return bool(_NOT_RECOVERED.search(words)) and words.endswith(_NO_PARTS)


def failure_may_pass(failure: Failure) -> bool:
    """True for a failure that another try may change."""
    return failure.kind not in ("tls", "closed", "protocol", "excess")


def error_of(
    reply: Reply, url: str, what: str, attempts: int, *, stranger: bool = False, secure: bool = False, hint: str = ""
) -> StoreError:
    """The named error for an answer that is not the one hoped for.

    A ``stranger`` has never answered; with ``secure`` it was asked in HTTPS. ``hint`` says what to think of an answer,
    where the caller knows more than its status tells.
    """
    if reply.failure is not None:
        of_failure = _HINTS[reply.failure.kind]
        if stranger and reply.failure.kind == "reset":
            of_failure = _CERTIFICATE if secure else _HTTPS
        return _error_of_failure(reply.failure, of_failure, url, what, attempts)
    tcode, words = _words(reply)
    kind, of_status = _kind(reply.status, tcode, words)
    hint = hint or of_status
    text = f"{what}: {words}" if words else f"{what}: the cluster answered {reply.status}"
    return kind(f"{text}{'; ' if hint else ''}{hint}", url=url, status=reply.status, attempts=attempts)


def location(reply: Reply, here: str) -> tuple[str, str] | None:
    """Origin and URL of a redirect of a request to ``here``; None where it does not lead to AIStore's API.

    A proxy copies the path of a request, percent signs resolved: bytes that no URL has are encoded again.
    """
    told = "".join(char if "!" <= char <= "~" else f"%{ord(char):02X}" for char in reply.header("Location") or "")
    try:
        url = urljoin(here, told)
        parts = urlsplit(url)
    except ValueError:  # such as an address in brackets that is none
        return None
    return (f"{parts.scheme}://{parts.netloc}", url) if told and parts.path.startswith(_API) else None


def number_in(text: str | None) -> int:
    """The number of bytes that a header tells; -1 where it tells none, or one that no object can have."""
    if text is None or not _NUMBER.fullmatch(text):
        return -1
    number = int(text)
    return number if number >> 63 == 0 else -1


def range_in(reply: Reply) -> tuple[int, int]:
    """First byte, and bytes of the whole object, by ``Content-Range: bytes 0-9/100``; -1 for what it does not tell."""
    told, _, total = (reply.header("Content-Range") or "").removeprefix("bytes ").partition("/")
    return number_in(told.partition("-")[0]), number_in(total)


def retry_after(reply: Reply) -> float | None:
    """Seconds that the server asks to wait; None where it does not say (or says a date)."""
    value = reply.header("Retry-After")
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None


def _kind(status: int, tcode: str, words: str) -> tuple[type[StoreError], str]:
    if status == 404:
        if tcode == "ErrRemoteBckNotFound":
            return (
                RemoteBucketNotFound,
                "check the name, and that the cluster is configured for this provider",
            )
        if tcode == "ErrBckNotFound":
            return BucketNotFound, "check the name and the provider, or create the bucket first"
        return ObjectNotFound, ""
    if status == 400 and _has_no_parts(words):
        return ObjectNotFound, "the bucket is erasure coded, and no target has a part of it"
    if status == 401:
        return Denied, (
            "pass a valid token: ClientConfig(token=... or token_file=...), Client(token=...), AIS_AUTHN_TOKEN or "
            "AIS_AUTHN_TOKEN_FILE"
        )
    if status == 403:
        return Denied, "the token, or its absence, does not allow this; ask for a role that does"
    if status == 400 and "HTTP request to an HTTPS server" in words:
        return StoreError, "the endpoint speaks HTTPS: write https://"
    if _may_pass(status, words):
        return Unavailable, ""
    return StoreError, ""


def _words(reply: Reply) -> tuple[str, str]:
    """(AIStore's name of the error, its message) out of the body or the header."""
    raw = reply.body or (reply.header("Hdr-Error") or "").encode("latin-1")
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", _shown(raw.decode("utf-8", "replace"))
    return body.tcode, _shown(body.message)


def _shown(text: str) -> str:
    """On one line, without its middle where it is long, and without what a terminal would obey."""
    half = _LENGTH // 2  # names come first, reasons last
    short = text if len(text) <= _LENGTH else f"{text[:half]} ... {text[-half:]}"
    flat = re.sub(r"\s+", " ", short).strip()
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in flat)


_HINTS = {
    "connect": "is the cluster up, and is this its address?",
    "timeout": "is the cluster up and reachable from here?",
    "reset": "",
    "truncated": "",
    "tls": (
        "pass ca_file= (or AIS_CLIENT_CA) for a private authority, client_cert= (or AIS_CRT and AIS_CRT_KEY) where the "
        "cluster asks for one; write http:// for a cluster without TLS"
    ),
    "protocol": "is this the address of an AIStore cluster?",
    "local": "",
    "excess": "",
    "closed": "",
}
_CERTIFICATE = "does it ask for a client's certificate? pass client_cert= (or AIS_CRT and AIS_CRT_KEY)"
_HTTPS = "is this the address of an AIStore cluster? if it speaks HTTPS, write https://"


def _error_of_failure(failure: Failure, hint: str, url: str, what: str, attempts: int) -> StoreError:
    kind = {"truncated": Truncated, "excess": CorruptBody}.get(failure.kind, Unavailable)
    return kind(f"{what}: {failure.text}{'; ' if hint else ''}{hint}", url=url, attempts=attempts)
