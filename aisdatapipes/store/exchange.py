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

from aisdatapipes.model.errors import Denied, ObjectNotFound, StoreError, Unavailable, shown
from aisdatapipes.store import answers
from aisdatapipes.store.forks import Home
from aisdatapipes.store.token import token_of
from aisdatapipes.store.transport import ANSWER_BYTES, Reply, Request, Sink
from aisdatapipes.wire.clustermap import is_origin

if TYPE_CHECKING:
    from aisdatapipes.store.cluster import Cluster

log = logging.getLogger("aisdatapipes")

MAX_HOPS = 5  # redirects of one try; a healthy cluster needs one
SOON_S = 0.2  # seconds between two readings of the map while listed objects are not found
FIRST_CONTACT = 10.0  # seconds; with one connect timeout on top this stays within 15 s


class Exchange:
    """A question and, in the end, its ``reply`` or its ``error``.

    Args:
        cluster: Who is asked.
        subject: What the question is about, for messages: a URL.
        path: Path and query, percent-encoded.
        what: What is wanted, for messages: "cannot read".
        owner: Origin of the node that has it, where known; else the endpoint is asked.

    Attributes:
        listed: It was there when it was listed: that it is not there any more is believed of a whole cluster only.
        silence_s: Seconds without a byte before a try is given up; None for those of the config.
    """

    # fmt: off
    __slots__ = (
        "_began", "_broken", "_cancelled", "_direct", "_done", "_home", "_over", "_repeats", "_sent", "_tried_at",
        "attempts", "attempts_at_most", "body", "byte_range", "cluster", "ended", "error", "headers", "listed",
        "method", "outgrown", "owner", "path", "redirects", "reply", "request", "room", "silence_s", "sink", "subject",
        "what",
    )
    # fmt: on

    # As a job of a window: it is taken when it has ended, and is one request of the width.
    early = False
    weight = 1
    waited_s = 0.0
    # Where the endpoint leads out of the cluster, as far as it is known, the map is read again; not for the map itself.
    asks_for_the_map = True

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
        self.silence_s: float | None = None
        self.listed = False
        self.ended = False
        self.outgrown = False
        self.room = -1
        self._sent: str | None = None
        self._repeats = 0  # attempts that the transport made by itself
        self._broken = False  # an answer broke: kept connections are not to be trusted
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

    def wait_for_end(self) -> None:
        """Wait until what `begin` asked has its answer or its error."""
        self._home.check()
        try:
            self._over.wait()
        except BaseException:  # Ctrl-C
            self.cancel()
            raise

    def result(self) -> Reply:
        """The answer to what `begin` asked; raises its error."""
        self.wait_for_end()
        if self.error is not None:
            raise self.error
        assert self.reply is not None  # noqa: S101 - ended without an error, so with a reply
        return self.reply

    @property
    def plain(self) -> bool:
        """Whether answers tell their length in advance, as those do that give what is stored."""
        return False

    @property
    def expected(self) -> int:
        """Bytes of an answer, most likely; -1 where nobody knows."""
        return -1

    @property
    def most_bytes(self) -> int:
        """Of an answer, at most: a longer one is not read, and is an error."""
        return ANSWER_BYTES

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
        self._tried_at = time.monotonic()
        self.redirects = 0
        self._direct = origin is not None
        if origin is None:
            try:
                self._sent = token_of(self.cluster.config)
            except Denied as error:
                self._end(None, Denied(f"{self.what}: {error}", url=self.subject, attempts=self.attempts))
                return
        self._send(f"{origin or self.cluster.proxies.asked}{self.path}", delay=delay, with_token=origin is None)

    def _send(self, url: str, *, delay: float = 0.0, with_token: bool = False) -> None:
        if self._cancelled:
            return
        self.request = Request(
            url, self.method, self.headers, self.body, self.byte_range, with_token, delay, self.sink, self._broken,
            self.most_bytes, self.silence_s, self.plain, self.expected,
        )  # fmt: skip
        self.cluster.transport.send(self.request, self._arrived)

    def _arrived(self, reply: Reply) -> None:
        if self.ended:
            return  # all that mattered of the answer was there before its end
        self.attempts += reply.repeats
        self._repeats += reply.repeats
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
        # For good: the hop that follows a redirect would meet the same kept connections again.
        self._broken = self._broken or reply.failure is not None
        if status:
            self.cluster.answered = True
        if reply.failure is None and status in (200, 206):
            error = self.accept(reply)
            if error is None:
                self._end(reply, None)
            else:
                self._again(error, reply)
            return
        if reply.failure is not None and reply.failure.kind != "excess" and status in (200, 206):
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
        self.redirects += 1
        found = answers.location(reply, self.request.url if self.request else "")
        if found is None:
            self._again(self._unavailable("redirected to what is no address of AIStore's API"), reply)
            return
        origin, url = found
        if self.redirects > MAX_HOPS:
            self._again(self._unavailable(f"{MAX_HOPS} redirects in a row, the last one to {origin}"), reply)
        elif self._leads_to(origin) or self.cluster.without_map or not self.asks_for_the_map:
            self._follow(origin, url, reply)
        else:
            self.cluster.refresh(lambda: self._follow(origin, url, reply))

    def _follow(self, origin: str, url: str, reply: Reply) -> None:
        """Go on there, but only to a node of this cluster: what is not in the map is none."""
        if self._leads_to(origin):
            self._send(url)
        else:
            text = f"redirected to {origin}, which is no node of this cluster"
            self._again(self._unavailable(text), reply)

    def _leads_to(self, origin: str) -> bool:
        """Whether it is a node of this cluster: by its map, or where we may not have that, by the endpoint's word."""
        if origin in self.cluster.origins:
            return True
        return self.cluster.without_map and self.redirects == 1 and is_origin(origin)

    def _refused(self, reply: Reply) -> None:
        error = answers.error_of(
            reply, self.subject, self.what, self.attempts,
            stranger=not self.cluster.answered, secure=self.cluster.config.endpoint.startswith("https:"),
        )  # fmt: skip
        failure = reply.failure
        if failure is not None and failure.kind in ("connect", "timeout"):
            self._not_reached()
        passing = answers.failure_may_pass(failure) if failure else answers.may_pass(reply)
        if passing or (reply.status == 401 and self._has_new_token()):
            self._again(error, reply)
        elif self.listed and isinstance(error, ObjectNotFound):
            self.cluster.refresh(lambda: self._gone(error, reply), SOON_S)
        else:
            self._end(None, error)

    def _not_reached(self) -> None:
        if self.redirects:
            self.cluster.stale = True  # the endpoint sent us to a node that is gone
        elif self.request is not None:
            self.cluster.proxies.leave(self.request.origin)

    def _gone(self, error: StoreError, reply: Reply) -> None:
        """A listed object is not there. In a cluster that lacks a target that says little: it may be on that one."""
        if self.cluster.membership.lacks_one:
            hint = "a target has left the cluster, and what is on it is not there until it is back"
            error = answers.error_of(reply, self.subject, self.what, self.attempts, hint=hint)
        if self.cluster.membership.may_have_it(self._tried_at):
            self._again(error, reply)
        else:
            self._end(None, error)

    def _has_new_token(self) -> bool:
        """Whether the token was replaced since it was sent."""
        try:
            return token_of(self.cluster.config) != self._sent
        except Denied:
            return False  # the refusal says more

    def _again(self, error: StoreError, reply: Reply) -> None:
        """Another try, unless attempts or time are used up."""
        policy = self.cluster.config.retry
        limit = min(policy.max_delay, policy.first_delay * 2.0 ** min(self.attempts - 1, 30))
        asked = answers.retry_after(reply)
        delay = random.uniform(0, limit) if asked is None else min(asked, policy.max_delay)  # noqa: S311 - jitter
        known = self.cluster.answered
        deadline = policy.deadline if known else min(policy.deadline, FIRST_CONTACT)
        if self.attempts - self._repeats >= self.attempts_at_most or time.monotonic() + delay - self._began > deadline:
            self._end(None, error)
            return
        log.warning("%s: try %d failed, next in %.2f s: %s", shown(self.subject), self.attempts, delay, error)
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
