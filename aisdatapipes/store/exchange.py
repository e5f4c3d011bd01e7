"""One question to the cluster, asked until there is an answer: routes, redirects, retries, deadline.

An exchange goes first to the owner where placement is known, else to the endpoint; follows redirects, but only to
nodes of the cluster; asks again what another try may change. It runs on the transport's thread, one callback a step,
and ends exactly once: with a reply, or with an error that names the object.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from aisdatapipes.model.errors import StoreError, Unavailable
from aisdatapipes.store import answers
from aisdatapipes.store.forks import Home
from aisdatapipes.store.transport import Reply, Request, Sink

if TYPE_CHECKING:
    from aisdatapipes.store.cluster import Cluster

log = logging.getLogger("aisdatapipes")

MAX_HOPS = 5  # redirects of one try; a healthy cluster needs one
FIRST_CONTACT = 10.0  # seconds; with one connect timeout on top this stays within 15 s


class Exchange:
    """A question and, in the end, its ``reply`` or its ``error``.

    Args:
        cluster: Who is asked.
        subject: What the question is about, for messages: a URL.
        path: Path and query, percent-encoded.
        what: What is wanted, for messages: "cannot read".
        owner: Origin of the node that has it, where known; else the endpoint is asked.
    """

    # fmt: off
    __slots__ = (
        "_began", "_broken", "_cancelled", "_direct", "_done", "_home", "_over", "attempts", "attempts_at_most",
        "body", "byte_range",
        "cluster", "ended", "error", "headers", "method", "owner", "path", "redirects", "reply", "request", "sink",
        "subject", "what",
    )
    # fmt: on

    # As a job of a window: it is taken when it has ended, and is one request of the width.
    early = False
    weight = 1
    waited_s = 0.0

    def __init__(self, cluster: Cluster, subject: str, path: str, what: str, owner: str | None = None) -> None:
        self.cluster, self.subject, self.path, self.what, self.owner = cluster, subject, path, what, owner
        self.method = "GET"
        self.headers: tuple[str, ...] = ()
        self.body: bytes | None = None
        self.byte_range: tuple[int, int | None] | None = None
        self.sink: Sink | None = None
        self.reply: Reply | None = None
        self.error: StoreError | None = None
        self.request: Request | None = None
        self.attempts = 0
        self.attempts_at_most = cluster.config.retry.attempts
        self.redirects = 0  # of the last try
        self.ended = False
        self._broken = False  # the last answer broke: kept connections are not to be trusted
        self._cancelled = False

    @property
    def retries(self) -> int:
        """Tries after the first one."""
        return max(0, self.attempts - 1)

    def start(self, done: Callable[[Any], None], delay: float = 0.0) -> None:
        """Begin; ``done`` is called once, on the transport's thread, when ``reply`` or ``error`` is there."""
        self._done = done
        self._began = time.monotonic()
        self._try(self.owner, delay)

    def cancel(self) -> None:
        """Stop; ``done`` is not called any more, or one last time."""
        self._cancelled = True  # seen by the transport's thread, should it be between two requests
        request = self.request
        if request is not None:
            self.cluster.transport.cancel(request)

    def begin(self) -> None:
        """Ask; `result` waits for the answer."""
        self._over, self._home = threading.Event(), Home()
        self.start(lambda _: self._over.set())

    def wait(self) -> Reply:
        """Ask and wait for the answer; raises its error."""
        self.begin()
        return self.result()

    def result(self) -> Reply:
        """The answer to what `begin` asked; raises its error."""
        self._home.check()
        try:
            self._over.wait()
        except BaseException:  # Ctrl-C
            self.cancel()
            raise
        if self.error is not None:
            raise self.error
        assert self.reply is not None  # noqa: S101 - ended without an error, so with a reply
        return self.reply

    def accept(self, reply: Reply) -> StoreError | None:
        """None if a 200 or 206 is what was asked for, else why not (then it is asked again)."""
        del reply
        return None

    def keep(self, reply: Reply) -> None:
        """Called with an answer that broke off, before another try: what has come need not come again."""
        del reply

    # ---- steps, on the transport's thread

    def _try(self, origin: str | None, delay: float = 0.0) -> None:
        self.attempts += 1
        self.redirects = 0
        self._direct = origin is not None
        self._send(f"{origin or self.cluster.config.endpoint}{self.path}", delay=delay, with_token=origin is None)

    def _send(self, url: str, *, delay: float = 0.0, with_token: bool = False) -> None:
        if self._cancelled:
            return
        self.request = Request(
            url, self.method, self.headers, self.body, self.byte_range, with_token, delay, self.sink, self._broken
        )
        self.cluster.transport.send(self.request, self._arrived)

    def _arrived(self, reply: Reply) -> None:
        if self.ended:
            return  # all that mattered of the answer was there before its end
        try:
            self._judge(reply)
        except Exception as error:
            if self.ended:
                raise  # it is the listener that failed
            # Whoever waits must hear of it, whatever it is.
            text = f"{self.what}: a defect in aisdatapipes, please report it: {error!r}"
            self._end(None, StoreError(text, url=self.subject, attempts=self.attempts))

    def _judge(self, reply: Reply) -> None:
        status = reply.status
        self._broken = reply.failure is not None
        if status:
            self.cluster.answered = True
        if reply.failure is None and status in (200, 206):
            error = self.accept(reply)
            if error is None:
                self._end(reply, None)
            else:
                self._again(error, reply)
            return
        if reply.failure is not None and status in (200, 206):
            self.keep(reply)
        if self._direct:
            self._ask_endpoint(reply)
        elif reply.failure is None and status in answers.REDIRECTS:
            self._redirected(reply)
        else:
            self._refused(reply)

    def _ask_endpoint(self, reply: Reply) -> None:
        """The owner, as we compute it, did not give it: only the endpoint's word counts."""
        if reply.failure is not None and reply.failure.kind in ("closed", "local"):
            self._refused(reply)  # that says nothing about the owner
            return
        self.cluster.distrust_placement(reply)
        self._try(None)

    def _redirected(self, reply: Reply) -> None:
        here = self.request.url if self.request else ""
        url = urljoin(here, reply.header("Location") or "")
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        self.redirects += 1
        if self.redirects > MAX_HOPS:
            self._again(self._unavailable(f"{MAX_HOPS} redirects in a row, the last one to {origin}"), reply)
        elif origin in self.cluster.origins:
            self._send(url)
        else:
            self.cluster.refresh(lambda: self._follow(origin, url, reply))

    def _follow(self, origin: str, url: str, reply: Reply) -> None:
        """After the map was read again: a node that is still not in it is not of this cluster."""
        if origin in self.cluster.origins:
            self._send(url)
        else:
            text = f"redirected to {origin}, which is no node of this cluster"
            self._again(self._unavailable(text), reply)

    def _refused(self, reply: Reply) -> None:
        stranger = not self.cluster.answered and self.cluster.config.endpoint.startswith("http:")
        error = answers.error_of(reply, self.subject, self.what, self.attempts, stranger=stranger)
        failure = reply.failure
        if failure is not None and failure.kind in ("connect", "timeout") and self.redirects:
            self.cluster.stale = True  # the endpoint sent us to a node that is gone
        passing = answers.failure_may_pass(failure) if failure else answers.may_pass(reply.status)
        if passing:
            self._again(error, reply)
        else:
            self._end(None, error)

    def _again(self, error: StoreError, reply: Reply) -> None:
        """Another try, unless attempts or time are used up."""
        policy = self.cluster.config.retry
        limit = min(policy.max_delay, policy.first_delay * 2.0 ** min(self.attempts - 1, 30))
        asked = answers.retry_after(reply)
        delay = random.uniform(0, limit) if asked is None else min(asked, policy.max_delay)  # noqa: S311 - jitter
        known = self.cluster.answered
        deadline = policy.deadline if known else min(policy.deadline, FIRST_CONTACT)
        if self.attempts >= self.attempts_at_most or time.monotonic() + delay - self._began > deadline:
            self._end(None, error)
            return
        log.warning("%s: try %d failed, next in %.2f s: %s", self.subject, self.attempts, delay, error)
        self._try(None, delay)

    def _unavailable(self, text: str) -> StoreError:
        return Unavailable(f"{self.what}: {text}", url=self.subject, attempts=self.attempts)

    def _end(self, reply: Reply | None, error: StoreError | None) -> None:
        self.reply, self.error, self.request = reply, error, None
        if reply is not None:
            self.cluster.learn_latency(time.monotonic() - self._began)
        self.ended = True
        self.sink = None  # itself, with some: what holds itself waits for the collector, and keeps its bytes until then
        self._done(self)
