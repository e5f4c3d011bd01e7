"""What an answer of the cluster means: the only place where HTTP statuses become errors.

Statuses and the form of error bodies are those of AIStore's API (``cmn/err.go`` writes JSON with ``tcode`` and
``message``; a HEAD carries it in the header ``Hdr-Error``).
"""

from __future__ import annotations

import re

import msgspec

from aisdatapipes.model.errors import (
    BucketNotFound,
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
_FINAL_5XX = frozenset((501, 505, 507))

_LENGTH = 500  # characters of the cluster's own words that go into a message


class _ErrorBody(msgspec.Struct):
    tcode: str = ""
    message: str = ""


_decode = msgspec.json.Decoder(_ErrorBody).decode


def may_pass(reply: Reply) -> bool:
    """True for an answer that another try may change."""
    return _may_pass(reply.status, _words(reply)[1] if reply.status == 400 else "")


def _may_pass(status: int, words: str) -> bool:
    between_nodes = status == 400 and _BETWEEN_NODES.search(words)
    return bool(between_nodes) or status in _RETRY or (status >= 500 and status not in _FINAL_5XX)


def failure_may_pass(failure: Failure) -> bool:
    """True for a failure that another try may change."""
    return failure.kind not in ("tls", "closed", "protocol")


def error_of(reply: Reply, url: str, what: str, attempts: int, *, stranger: bool = False, hint: str = "") -> StoreError:
    """The named error for an answer that is not the one hoped for; a ``stranger`` has never answered in plain HTTP.

    ``hint`` says what to think of an answer, where the caller knows more than its status tells.
    """
    if reply.failure is not None:
        of_failure = _HTTPS if stranger and reply.failure.kind == "reset" else _HINTS[reply.failure.kind]
        return _error_of_failure(reply.failure, of_failure, url, what, attempts)
    tcode, words = _words(reply)
    kind, of_status = _kind(reply.status, tcode, words)
    hint = hint or of_status
    text = f"{what}: {words}" if words else f"{what}: the cluster answered {reply.status}"
    return kind(f"{text}{'; ' if hint else ''}{hint}", url=url, status=reply.status, attempts=attempts)


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
    if status == 401:
        return Denied, "pass a valid token: ClientConfig(token=...), Client(token=...) or AIS_AUTHN_TOKEN"
    if status == 403:
        return Denied, "the token, or its absence, does not allow this"
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
        text = raw[:_LENGTH].decode("utf-8", "replace")
        return "", re.sub(r"\s+", " ", text).strip()
    return body.tcode, body.message[:_LENGTH].strip()


_HINTS = {
    "connect": "is the cluster up, and is this its address?",
    "timeout": "is the cluster up and reachable from here?",
    "reset": "",
    "truncated": "",
    "tls": "pass ca_file= (or AIS_CLIENT_CA) for a private authority; write http:// for a cluster without TLS",
    "protocol": "is this the address of an AIStore cluster?",
    "local": "",
    "closed": "",
}
_HTTPS = "is this the address of an AIStore cluster? if it speaks HTTPS, write https://"


def _error_of_failure(failure: Failure, hint: str, url: str, what: str, attempts: int) -> StoreError:
    kind = Truncated if failure.kind == "truncated" else Unavailable
    return kind(f"{what}: {failure.text}{'; ' if hint else ''}{hint}", url=url, attempts=attempts)
