"""The transport for places without pycurl: urllib3 on a few threads.

The same four verbs and the same behaviour as `store.engine`, at a tenth of its speed: a request in flight costs a
thread. The threads end by themselves after `LINGER` seconds without work.
"""

from __future__ import annotations

import heapq
import itertools
import ssl
import threading
import time
from http.client import HTTPException
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store import answers, descriptors
from aisdatapipes.store.certificates import ca_bundle
from aisdatapipes.store.forks import Home
from aisdatapipes.store.token import token_of
from aisdatapipes.store.transport import CLOSED, FORKED, Done, Failure, FailureKind, Reply, Request, excess, tell

MAX_THREADS = 16  # more of them spend their time waiting for the GIL: 3,423 GET/s with 64, 2,159 with 16 at 5 ms
LINGER = 2.0  # seconds
CHUNK_BYTES = 1 << 20


class ThreadTransport:
    """A `Transport` on urllib3."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._lock = threading.RLock()  # guards everything below; the collector may cancel while it is held
        self._news = threading.Condition(self._lock)  # for threads without a request
        self._resumed = threading.Condition(self._lock)  # for those whose sink said "not now"
        self._waiting: list[tuple[float, int, Request, Done]] = []  # a heap by the time when each is due
        self._order = itertools.count()
        self._dropped: set[Request] = set()  # of those that a thread works at
        self._working: set[Request] = set()
        self._threads: set[threading.Thread] = set()
        self._free = 0
        self._closed = False
        self._home = Home()  # in a child the lock may be one that stays locked for ever
        self._pool = _pool(config)

    def send(self, request: Request, done: Done) -> None:
        """Begin, and return at once."""
        if not self._home.is_here:
            tell(done, Reply(0, b"", b"", FORKED))
            return
        with self._news:
            closed = self._closed
            if not closed:
                thread = self._another_thread()
                heapq.heappush(self._waiting, (time.monotonic() + request.delay, next(self._order), request, done))
                self._news.notify()
        if closed:
            tell(done, Reply(0, b"", b"", CLOSED))
        elif thread is not None:
            self._start(thread)

    def _another_thread(self) -> threading.Thread | None:
        """One that is still to be started, where one more request needs it."""
        # Not "is one free": it may have been woken for another request and not yet have taken it.
        if len(self._waiting) < self._free or len(self._threads) >= MAX_THREADS:
            return None
        thread = threading.Thread(target=self._work, name="aisdatapipes-urllib3", daemon=True)
        self._threads.add(thread)
        return thread

    def _start(self, thread: threading.Thread) -> None:
        """Not under the lock: until a thread counts as started, the collector may cancel something in it."""
        try:
            thread.start()
        except RuntimeError as error:  # no more threads; those that are there do it
            with self._lock:
                self._threads.discard(thread)
                left = [] if self._threads else self._withdraw_all()
            for done in left:
                tell(done, Reply(0, b"", b"", Failure("local", str(error))))

    def _withdraw_all(self) -> list[Done]:
        """Whoever waits for a thread waits no more."""
        left, self._waiting = self._waiting, []
        return [done for *_, done in left]

    def resume(self, request: Request) -> None:
        """Let a request go on whose sink said "not now"."""
        del request  # every paused thread asks its own sink again
        if self._home.is_here:
            with self._lock:
                self._resumed.notify_all()

    def cancel(self, request: Request) -> None:
        """Stop it."""
        if not self._home.is_here:
            return
        with self._news:
            self._waiting[:] = [entry for entry in self._waiting if entry[2] is not request]
            heapq.heapify(self._waiting)
            if request in self._working:
                self._dropped.add(request)
                self._resumed.notify_all()

    def close(self) -> None:
        """End the threads and every connection; what is being received is waited for."""
        if not self._home.is_here:
            return
        with self._news:
            self._closed = True
            left = self._withdraw_all()
            self._news.notify_all()
            self._resumed.notify_all()
            threads = list(self._threads)
        for done in left:
            tell(done, Reply(0, b"", b"", CLOSED))
        for thread in threads:
            if thread.is_alive():  # one that is just being started finds that there is nothing to do
                thread.join()
        self._pool.clear()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            request, done = job
            reply = self._answer(request)
            with self._news:
                self._working.discard(request)
                dropped = request in self._dropped
                self._dropped.discard(request)
            if not dropped:
                tell(done, reply)

    def _next_job(self) -> tuple[Request, Done] | None:
        """The next request that is due; None when this thread is to end."""
        idle_until = time.monotonic() + LINGER
        with self._news:
            self._free += 1
            try:
                while not self._closed:
                    now = time.monotonic()
                    if self._waiting and self._waiting[0][0] <= now:
                        _, _, request, done = heapq.heappop(self._waiting)
                        self._working.add(request)
                        return request, done
                    if not self._waiting and now >= idle_until:
                        break
                    self._news.wait((self._waiting[0][0] if self._waiting else idle_until) - now)
                self._threads.discard(threading.current_thread())
                if not self._threads:
                    self._pool.clear()  # closes the connections
                return None
            finally:
                self._free -= 1

    def _answer(self, request: Request) -> Reply:
        head = b""
        chunks: list[bytes] = []
        status = 0
        failure = None
        try:
            response = self._opened_twice(request)
            status = response.status
            lines = (f"{name}: {value}\r\n" for name, value in response.headers.items())
            head = f"HTTP/1.1 {status}\r\n{''.join(lines)}".encode("latin-1")
            try:
                if not self._received(request, response, chunks):
                    failure = CLOSED  # or cancelled: then nobody hears of it
            except BaseException:
                response.close()  # what else would come is not wanted
                raise
            finally:
                if request in self._dropped or self._closed:
                    response.close()  # not drained: the rest may be large
                response.release_conn()
        except _Excess:
            failure = excess(request)
            chunks.clear()  # nobody wants the beginning
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            failure = Failure(_kind(error, status), str(error) or repr(error))
            if failure.kind == "connect" and (lack := descriptors.lack()):
                failure = Failure("local", lack)
        return Reply(status, head, b"".join(chunks), failure)

    def _opened_twice(self, request: Request) -> urllib3.BaseHTTPResponse:
        """The answer's head; once more on a new connection where a kept one may just have been closed.

        A server closes idle connections, and a request can meet that. libcurl begins again by itself; urllib3 does
        not, and does not say whether the connection was a kept one.
        """
        try:
            return self._opened(request, _pool(self._config) if request.fresh else self._pool)
        except ProtocolError as error:
            if _kind(error, 0) != "reset" or request.method not in ("GET", "HEAD"):
                raise
        return self._opened(request, _pool(self._config))  # the pool is forgotten, its connection closed when read

    def _opened(self, request: Request, pool: urllib3.PoolManager) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(request.url)
        headers = dict(line.split(": ", 1) for line in request.headers)
        headers["User-Agent"] = "aisdatapipes"
        if request.byte_range is not None:
            first, last = request.byte_range
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
        token = token_of(self._config) if request.with_token else None
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A relative URL goes out as it is; urllib3's PoolManager would turn "a/../b" into "b".
        host = pool.connection_from_url(f"{parts.scheme}://{parts.netloc}")
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return host.urlopen(
            request.method, path, body=request.body, headers=headers, retries=False, redirect=False,
            preload_content=False, assert_same_host=False, timeout=_timeout(self._config, request.silence_s),
        )  # fmt: skip

    def _received(self, request: Request, response: urllib3.BaseHTTPResponse, chunks: list[bytes]) -> bool:
        """True when the body is complete; False when it is not wanted any more."""
        sink = request.sink if response.status in (200, 206) else None
        if request.method != "HEAD":
            _check_excess(answers.number_in(response.headers.get("Content-Length")), request)
        came = 0
        for data in response.stream(CHUNK_BYTES, decode_content=False):
            if request in self._dropped or self._closed:
                return False
            came += len(data)
            _check_excess(came, request)
            if sink is None:
                chunks.append(data)
                continue
            while not sink.write(data):
                with self._lock:
                    # The timeout covers a `resume` that came between `write` and here.
                    self._resumed.wait(0.05)
                if request in self._dropped or self._closed:
                    return False
        return True


class _Excess(Exception):
    """More bytes than the request allows."""


def _check_excess(length: int, request: Request) -> None:
    if length > request.most_bytes:
        raise _Excess


def _pool(config: ClientConfig) -> urllib3.PoolManager:
    cert, key = config.client_cert if isinstance(config.client_cert, tuple) else (config.client_cert, None)
    if not config.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # verify=False was the user's word
    return urllib3.PoolManager(
        num_pools=1024,  # hosts; never fewer than a cluster has nodes
        maxsize=MAX_THREADS,
        timeout=_timeout(config),
        cert_reqs=ssl.CERT_REQUIRED if config.verify else ssl.CERT_NONE,
        ca_certs=config.ca_file or ca_bundle(),
        cert_file=cert,
        key_file=key,
    )


def _timeout(config: ClientConfig, silence_s: float | None = None) -> urllib3.Timeout:
    return urllib3.Timeout(connect=config.connect_timeout, read=silence_s or config.read_timeout)


def _kind(error: Exception, status: int) -> FailureKind:
    if isinstance(error, SSLError):
        return "tls"
    if isinstance(error, (NewConnectionError, NameResolutionError)):
        return "connect"
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return "timeout"
    if status or isinstance(error, IncompleteRead):
        return "truncated"
    if isinstance(error, ProtocolError):
        cause = error.args[1] if len(error.args) > 1 else None
        lost = isinstance(cause, OSError) or not isinstance(cause, HTTPException)
        return "reset" if lost else "protocol"
    if isinstance(error, OSError):
        return "reset"
    return "protocol" if isinstance(error, HTTPError) else "local"
