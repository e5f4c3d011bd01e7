"""Faults by name: what the cluster does wrong, to which requests, how often.

::

    cluster.faults.add("status", "get", match="bk/a", times=2, status=503, retry_after=1)
    cluster.faults.add("cut", share=0.1, after=1000)

A fault strikes a request of its operation whose subject, ``bucket/name`` or else the path, the regular
expression ``match`` finds. Operations are the keys of ``cluster.requests``: at the proxy ``map health buckets
list create destroy head-bucket redirect redirect-batch``, at targets ``get head put delete patch batch``, and
the names of control messages.
"""

from __future__ import annotations

import random
import re
import socket
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aisdatapipes.devserver.calls import Delivery, Reply
from aisdatapipes.devserver.refusals import Refused
from aisdatapipes.wire.clustermap import encoded_map
from aisdatapipes.wire.listing import REBALANCING, Page, decoded_page, encoded_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aisdatapipes.devserver.calls import Call
    from aisdatapipes.devserver.state import State

Options = dict[str, Any]

# Closing a socket with this option sends a reset instead of an orderly end.
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@dataclass(slots=True)
class Fault:
    """One fault that was added; ``struck`` counts what it did."""

    kind: str
    operation: str | None
    match: re.Pattern[str]
    times: int | None
    share: float
    skip: int
    options: Options
    struck: int = 0


class Faults:
    """All faults of a cluster; safe to change while it serves."""

    def __init__(self, seed: int = 0) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - a share of requests, and the same one every time

    def add(
        self,
        kind: str,
        operation: str | None = None,
        match: str = "",
        *,
        times: int | None = None,
        share: float = 1.0,
        skip: int = 0,
        **options: Any,
    ) -> Fault:
        """One more fault.

        Args:
            kind: A key of `KINDS`, which says what it does and its options.
            operation: Which requests; None for those that the kind is about, ``"*"`` for all.
            match: Regular expression for the subject.
            times: How often at most.
            share: Which part of the requests, at random but the same in every run.
            skip: Requests that are let through first.
            **options: Of the kind; the others keep their defaults.
        """
        if kind not in KINDS:
            raise ValueError(f"no fault {kind!r}; known are {', '.join(KINDS)}")
        defaults = KINDS[kind].options
        unknown = set(options) - set(defaults)
        if unknown:
            raise ValueError(f"fault {kind!r} has no option {sorted(unknown)}; it has {sorted(defaults)}")
        operation = operation or KINDS[kind].operation
        fault = Fault(kind, operation, re.compile(match), times, share, skip, {**defaults, **options})
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No faults any more."""
        with self._lock:
            self._faults.clear()

    def striking(self, call: Call) -> list[Fault]:
        """The faults that this call meets; each counts as having struck."""
        if not self._faults:
            return []
        with self._lock:
            found = [fault for fault in self._faults if self._strikes(fault, call)]
            for fault in found:
                fault.struck += 1
            return found

    def _strikes(self, fault: Fault, call: Call) -> bool:
        if fault.operation not in ("*", call.operation) or not fault.match.search(call.subject):
            return False
        if fault.kind == "refuse_direct" and call.redirected:
            return False
        if fault.times is not None and fault.struck >= fault.times:
            return False
        if fault.skip > 0:
            fault.skip -= 1
            return False
        return fault.share >= 1 or self._random.random() < fault.share


# What each kind does. Those "instead" give the reply without doing what was asked; others change it.


def _status(options: Options) -> Reply:
    headers = [("Retry-After", str(options["retry_after"]))] if options["retry_after"] is not None else []
    raise Refused(options["status"], options["message"], headers=headers)


def _refuse_batch(options: Options) -> Reply:
    raise Refused(options["status"], "invalid request URI: no get-batch in this version")


def _refuse_direct(_options: Options) -> Reply:
    raise Refused(403, "direct target access denied")


def _same(reply: Reply, _options: Options, _call: Call, _state: State) -> Reply:
    return reply  # the delay itself is the server's: only it may wait


def _drip(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    return replace(reply, delivery=Delivery(pause=options["seconds"], piece=options["piece"]))


def _reset(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    return replace(reply, delivery=Delivery(reset=True, cut_after=options["after"]))


def _cut(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    return replace(reply, delivery=Delivery(cut_after=options["after"]))


def _wrong_length(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    return replace(reply, delivery=Delivery(promise=max(0, len(reply.whole) + options["by"])))


def _corrupt(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    body = bytearray(reply.whole)
    if body:
        at = len(body) // 2 if options["at"] is None else options["at"]
        body[at] ^= 0x01
    return replace(reply, body=bytes(body) if isinstance(reply.body, bytes) else [bytes(body)])


def _idle_close(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    return replace(reply, delivery=Delivery(close_later=options["seconds"]))


def _redirect_loop(reply: Reply, _options: Options, call: Call, state: State) -> Reply:
    proxy = next(node for node in state.map.proxies if node.id == state.map.primary)
    return _redirected(reply, proxy.url, call)


def _redirect_elsewhere(reply: Reply, options: Options, call: Call, _state: State) -> Reply:
    return _redirected(reply, options["url"], call)


def _redirected(reply: Reply, origin: str, _call: Call) -> Reply:
    """The same redirect, to another server."""
    headers = [
        (name, origin + value.removeprefix(_origin(value)) if name == "Location" else value)
        for name, value in reply.headers
    ]
    return replace(reply, headers=headers)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _stale_map(reply: Reply, options: Options, _call: Call, state: State) -> Reply:
    targets = [target for index, target in enumerate(state.map.targets) if index != options["without"]]
    old = replace(state.map, version=state.map.version - 1, targets=tuple(targets) or state.map.targets)
    return replace(reply, body=encoded_map(old, state.created))


def _batch_short(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    if isinstance(reply.body, bytes):
        return reply
    *members, end = reply.body
    return replace(reply, body=[*members[: max(0, len(members) - options["count"])], end])


def _batch_misordered(reply: Reply, _options: Options, _call: Call, _state: State) -> Reply:
    if isinstance(reply.body, bytes):
        return reply
    *members, end = reply.body
    return replace(reply, body=[*reversed(members), end])


def _empty_page(reply: Reply, _options: Options, call: Call, _state: State) -> Reply:
    if dict(reply.headers).get("Content-Type") != "application/msgpack":
        return reply
    # The token leads to the very page that was held back; no name sorts before NUL.
    page = Page([], call.token or "\0", decoded_page(reply.whole).uuid)
    return replace(reply, body=encoded_page(page))


def _rebalance(reply: Reply, options: Options, _call: Call, _state: State) -> Reply:
    if dict(reply.headers).get("Content-Type") != "application/msgpack":
        return reply
    page = decoded_page(reply.whole)
    page.entries = page.entries[options["count"] :]
    page.flags |= REBALANCING
    return replace(reply, body=encoded_page(page))


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault does.

    Args:
        operation: The requests that it strikes when none are named.
        options: Its options and their defaults.
        after: Changes the reply.
        instead: Gives the reply; nothing is done.
        says: What it does, in a few words.
    """

    operation: str
    says: str
    options: Options
    after: Callable[[Reply, Options, Call, State], Reply] | None = None
    instead: Callable[[Options], Reply] | None = None


KINDS: Mapping[str, Kind] = {
    "status": Kind(
        "get",
        "answers this status; retry_after in seconds",
        {"status": 503, "retry_after": None, "message": "fault: unavailable"},
        instead=_status,
    ),
    "delay": Kind("get", "answers so many seconds later", {"seconds": 0.2}, _same),
    "drip": Kind("get", "sends pieces of so many bytes, with seconds between", {"seconds": 0.01, "piece": 1024}, _drip),
    "cut": Kind("get", "closes after so many bytes of the body", {"after": 0}, _cut),
    "wrong_length": Kind("get", "promises so many bytes more, or fewer", {"by": 1}, _wrong_length),
    "corrupt": Kind("get", "flips a bit of one byte, by default of the middle one", {"at": None}, _corrupt),
    "reset": Kind(
        "get", "does it and resets the connection, after so many bytes of the reply", {"after": None}, _reset
    ),
    "idle_close": Kind("get", "closes the idle connection so many seconds later", {"seconds": 0.0}, _idle_close),
    "redirect_loop": Kind("redirect", "redirects to the proxy, again and again", {}, _redirect_loop),
    "redirect_elsewhere": Kind(
        "redirect", "redirects out of the cluster", {"url": "http://127.0.0.1:9"}, _redirect_elsewhere
    ),
    "stale_map": Kind("map", "gives an older map, without one of the targets", {"without": 0}, _stale_map),
    "batch_short": Kind("batch", "leaves out the last members, without saying so", {"count": 1}, _batch_short),
    "batch_misordered": Kind("batch", "sends the members backwards", {}, _batch_misordered),
    "empty_page": Kind("list", "gives an empty page with a token", {}, _empty_page),
    "rebalance": Kind("list", "moves objects: says so, and leaves out the first ones", {"count": 1}, _rebalance),
    "refuse_batch": Kind("redirect-batch", "knows no get-batch", {"status": 404}, instead=_refuse_batch),
    "refuse_direct": Kind("get", "turns away whom no proxy sent", {}, instead=_refuse_direct),
}
