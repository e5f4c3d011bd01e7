"""The event-driven transport: libcurl's multi interface on one background thread.

Why this shape (docs/adr/0002-one-engine-thread.md): a request in flight costs a socket, not a thread, and transfers
go on while the consumer trains. `CurlTransport` is what other threads see: it puts commands into a queue. `_Loop` is
the thread: it alone touches libcurl, so no lock is held while libcurl works. It sleeps in one epoll over libcurl's
sockets, those of the fast lane (`store.lane`), and an eventfd, which wakes it for commands.

The thread ends by itself when it had nothing to do for `LINGER` seconds, and the next request starts another:
whoever stops reading has nothing to close, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pycurl

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store import descriptors, handles
from aisdatapipes.store.forks import Home
from aisdatapipes.store.lane import LOOK_S, MAX_IDLE, Lane
from aisdatapipes.store.token import token_of
from aisdatapipes.store.transfer import Transfer
from aisdatapipes.store.transport import CLOSED, FORKED, Done, Failure, Reply, Request, excess, tell

LINGER = 2.0  # seconds; longer than a pause between two batches, shorter than a server's idle timeout (30 s)
_FIRST_COMMANDS = 2


class CurlTransport:
    """A `Transport` on libcurl. There is one for each cluster and process (`store.pool`)."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        # Guards what follows; never held while a `done` runs. Wherever the collector runs, inside it too, it may find
        # an iteration that nobody can reach, and cancel what that has under way.
        self._lock = threading.RLock()
        self._loop: _Loop | None = None
        self._closed = False
        self._home = Home()  # in a child the lock may be one that stays locked for ever

    def send(self, request: Request, done: Done) -> None:
        """Begin, and return at once."""
        try:
            failure = self._tell(_Loop.begin, Transfer(request, done), start=True)
        except (OSError, RuntimeError) as error:  # no descriptor left to start with
            failure = Failure("local", descriptors.lack() or str(error))
        if failure is not None:
            tell(done, Reply(0, b"", b"", failure))

    def resume(self, request: Request) -> None:
        """Let a request go on whose sink said "not now"."""
        self._tell(_Loop.go_on, request)

    def cancel(self, request: Request) -> None:
        """Stop it."""
        self._tell(_Loop.drop, request)

    def close(self) -> None:
        """End the thread and every connection."""
        if not self._home.is_here:
            return
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.ending = True
                loop.wake()
        if loop is not None and loop.thread.is_alive():  # one that is just being started ends at once
            loop.thread.join()

    def _tell(self, verb: Callable[[_Loop, Any], None], argument: object, *, start: bool = False) -> Failure | None:
        if not self._home.is_here:
            return FORKED
        with self._lock:
            if self._closed:
                return CLOSED
            loop, new = self._loop, None
            if loop is None:
                if not start:
                    return None  # no loop, no transfer that could be resumed or dropped
                loop = new = self._loop = _Loop(self._config, self._may_end, self._forget)
            loop.commands.append((verb, argument))
            # Else a wake-up is on its way already. The second may be of the collector, just before this looks.
            if len(loop.commands) <= _FIRST_COMMANDS:
                loop.wake()
        if new is not None:
            new.start()
        return None

    def _may_end(self, loop: _Loop) -> bool:
        """Asked by a loop that is idle: after True it gets no more commands."""
        with self._lock:
            if loop.commands:
                return False
            if self._loop is loop:
                self._loop = None
            return True

    def _forget(self, loop: _Loop) -> None:
        """Told by a loop that ends: it gets no more commands."""
        with self._lock:
            if self._loop is loop:
                self._loop = None


class _Loop:
    """The thread and all that it owns."""

    def __init__(self, config: ClientConfig, may_end: Callable[[_Loop], bool], forget: Callable[[_Loop], None]) -> None:
        self._config = config
        self._may_end, self._forget = may_end, forget
        self.ending = False
        self.commands: deque[tuple[Callable[[_Loop, Any], None], Any]] = deque()
        self._transfers: dict[Request, Transfer] = {}
        self._by_curl: dict[Any, Transfer] = {}
        self._idle: list[Any] = []
        self._delayed: list[tuple[float, int, Transfer]] = []
        self._order = itertools.count()  # breaks ties in the heap
        self._watched: set[Transfer] = set()  # those whose silence is limited
        self._watched_at = 0.0
        self._timer: float | None = None  # when libcurl wants to be called, on the monotonic clock
        self._wanted: set[int] = set()  # sockets that libcurl waits for now
        self._most = descriptors.connections_at_most()
        self._queued: deque[Transfer] = deque()  # they wait for one of these connections
        self._poll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake_fd, select.EPOLLIN)
        self._lane = Lane(self._poll, config, self._told, self._refused)
        self.thread = threading.Thread(target=self._run, name="aisdatapipes-engine", daemon=True)
        try:
            self._multi = pycurl.CurlMulti()
            self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
            self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
            # Most of what is kept is the lane's.
            self._multi.setopt(pycurl.M_MAXCONNECTS, min(MAX_IDLE, max(1, self._most // 2)))
        except pycurl.error as error:  # no descriptor left
            os.close(self._wake_fd)  # the others close themselves
            raise RuntimeError(str(error)) from error

    def start(self) -> None:
        """Start the thread, or tell everybody that there are no more threads.

        Not under the transport's lock: until a thread counts as started, the collector may cancel something in it.
        """
        try:
            self.thread.start()
        except RuntimeError as error:
            self._forget(self)
            self._end(Failure("local", descriptors.lack() or str(error)))

    def wake(self) -> None:
        """End the sleep; called under the transport's lock, while this loop is the current one."""
        if threading.current_thread() is not self.thread:
            os.eventfd_write(self._wake_fd, 1)

    # ---- the loop

    def _run(self) -> None:
        left_by = CLOSED
        try:
            while self._turn():
                pass
        except BaseException as error:
            left_by = Failure("local", f"the transport's thread failed: {error!r}")
            raise
        finally:
            # First nobody may reach this loop any more, so that the next request starts another; whoever is just
            # waking it has the lock, and what he writes to must still be there.
            self._forget(self)
            self._end(left_by)

    def _turn(self) -> bool:
        """One round; False when the thread is to end."""
        while self.commands:
            verb, argument = self.commands.popleft()
            verb(self, argument)
        if self.ending:
            return False
        self._attach_queued()
        self._lane.flush()
        busy = bool(self._transfers)
        events = self._poll.poll(self._wait_s() if busy else LINGER)
        if not busy and not events:
            return not self._may_end(self)
        for fd, mask in events:
            self._on_event(fd, mask)
        self._on_time()
        self._collect()
        return True

    def _end(self, why: Failure) -> None:
        left = list(self._transfers.values())
        left += [argument for verb, argument in self.commands if verb is _Loop.begin]
        try:
            self._close(left)
        finally:  # whatever has become of the rest: they wait for it
            for transfer in left:
                tell(transfer.done, Reply(0, b"", b"", why))

    def _close(self, left: list[Transfer]) -> None:
        for transfer in left:
            self._release(transfer, keep=False)
        for curl in self._idle:
            curl.close()
        self._lane.close()
        self._multi.close()
        self._poll.close()
        os.close(self._wake_fd)

    def _wait_s(self) -> float:
        """Seconds until something is due; -1 when nothing is."""
        due = [self._timer] if self._timer is not None else []
        if self._delayed:
            due.append(self._delayed[0][0])
        if self._watched:
            due.append(self._watched_at + LOOK_S)
        lane = self._lane.due()
        if lane is not None:
            due.append(lane)
        return max(0.0, min(due) - time.monotonic()) if due else -1

    def _on_event(self, fd: int, mask: int) -> None:
        if fd == self._wake_fd:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
            return
        line = self._lane.lines.get(fd)
        if line is not None:
            self._lane.on_event(line)
            return
        if fd not in self._wanted:  # such as an idle connection that the server has closed
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)
            return
        # An error or a hang-up is found by reading.
        flags = pycurl.CSELECT_OUT if mask & select.EPOLLOUT else 0
        flags |= pycurl.CSELECT_IN if mask & ~select.EPOLLOUT else 0
        self._multi.socket_action(fd, flags)

    def _on_time(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            transfer = heapq.heappop(self._delayed)[2]
            if transfer.request in self._transfers:  # else it was dropped meanwhile
                self._attach(transfer)
        if self._timer is not None and now >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._lane.on_time(now)
        if self._watched and now >= self._watched_at + LOOK_S:
            self._watched_at = now
            for transfer in [one for one in self._watched if self._is_silent(one, now)]:
                self._finish(transfer, Failure("timeout", f"not one byte for {transfer.request.silence_s:.1f} s"))

    def _is_silent(self, transfer: Transfer, now: float) -> bool:
        """Whether it has brought nothing for too long. libcurl's own limit is of an average over six seconds more."""
        heard = int(transfer.curl.getinfo(pycurl.SIZE_DOWNLOAD_T)) + len(transfer.lines)
        if heard != transfer.heard:
            transfer.heard, transfer.heard_at = heard, now
        return now - transfer.heard_at > (transfer.request.silence_s or 0)

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Libcurl tells what it waits for: between two requests for nothing, and then for the same connection again.

        So a socket stays in epoll when nothing is wanted of it: that spares a system call for each request. Closed by
        libcurl it leaves epoll by itself, and its number may come back as another socket.
        """
        if what == pycurl.POLL_REMOVE:
            self._wanted.discard(fd)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        self._wanted.add(fd)
        try:
            self._poll.modify(fd, mask)
        except FileNotFoundError:
            self._poll.register(fd, mask)

    def _on_timer(self, delay_ms: int) -> None:
        self._timer = None if delay_ms < 0 else time.monotonic() + delay_ms / 1000

    # ---- commands

    def begin(self, transfer: Transfer) -> None:
        """Start a transfer now, or when its delay is over."""
        self._transfers[transfer.request] = transfer
        if transfer.request.delay > 0:
            due = time.monotonic() + transfer.request.delay
            heapq.heappush(self._delayed, (due, next(self._order), transfer))
        else:
            self._attach(transfer)

    def go_on(self, request: Request) -> None:
        """Unpause a transfer; libcurl hands over at once what its sink did not take."""
        transfer = self._transfers.get(request)
        if transfer is not None and transfer.curl is not None:
            transfer.curl.pause(pycurl.PAUSE_CONT)

    def drop(self, request: Request) -> None:
        """Forget a transfer; its connection is closed with it."""
        transfer = self._transfers.get(request)
        if transfer is not None:
            self._release(transfer, keep=False)

    # ---- transfers

    def _attach_queued(self) -> None:
        while self._queued and self._connections < self._most:
            transfer = self._queued.popleft()
            if transfer.request in self._transfers:  # else it was dropped meanwhile
                self._attach(transfer)

    @property
    def _connections(self) -> int:
        """Those that have a transfer."""
        return len(self._by_curl) + self._lane.busy

    def _attach(self, transfer: Transfer) -> None:
        if self._connections >= self._most:
            self._queued.append(transfer)
            return
        if len(self._by_curl) + len(self._lane.lines) >= self._most:
            self._lane.forget_one()
        if not transfer.by_libcurl and self._lane.takes(transfer.request):
            self._lane.begin(transfer)
        else:
            self._attach_to_curl(transfer)

    def _refused(self, transfer: Transfer) -> None:
        """The fast lane does not do it."""
        transfer.by_libcurl = True
        self._attach(transfer)

    def _attach_to_curl(self, transfer: Transfer) -> None:
        request = transfer.request
        reuse = self._idle and handles.reusable(request)
        try:
            token = token_of(self._config) if request.with_token else None
            curl = self._idle.pop() if reuse else handles.new_handle(self._config)
            handles.aim(curl, request, transfer.lines, transfer.chunks, token)
        except Exception as error:  # noqa: BLE001 - such as a certificate file that is none
            del self._transfers[request]
            tell(transfer.done, Reply(0, b"", b"", Failure("local", str(error))))
            return
        transfer.curl = curl
        self._by_curl[curl] = transfer
        if request.silence_s is not None:
            self._watched.add(transfer)
        self._multi.add_handle(curl)

    def _release(self, transfer: Transfer, *, keep: bool) -> None:
        self._transfers.pop(transfer.request, None)
        self._watched.discard(transfer)
        self._lane.drop(transfer)
        curl, transfer.curl = transfer.curl, None
        if curl is None:
            return
        del self._by_curl[curl]
        self._multi.remove_handle(curl)
        if keep and handles.reusable(transfer.request) and len(self._idle) < MAX_IDLE:
            handles.let_go(curl)
            self._idle.append(curl)
        else:
            curl.close()

    def _collect(self) -> None:
        more = 1
        while more:
            more, good, bad = self._multi.info_read()
            for curl in good:
                self._finish(self._by_curl[curl], None)
            for curl, code, text in bad:
                transfer, began = self._by_curl[curl], bool(curl.getinfo(pycurl.RESPONSE_CODE))
                failure = handles.failure(code, text, began=began)
                if failure.kind == "excess":
                    failure = excess(transfer.request)
                    transfer.chunks.clear()  # nobody wants the beginning
                elif failure.kind == "connect" and (lack := descriptors.lack()):
                    failure = Failure("local", lack)
                self._finish(transfer, failure)

    def _finish(self, transfer: Transfer, failure: Failure | None) -> None:
        status = transfer.curl.getinfo(pycurl.RESPONSE_CODE)
        body = b"".join(transfer.chunks)  # of a single piece no copy
        self._release(transfer, keep=failure is None)
        tell(transfer.done, Reply(status, transfer.head(), body, failure, transfer.repeats))

    def _told(self, transfer: Transfer, status: int, head: bytes, body: bytes, failure: Failure | None) -> None:
        """The fast lane has done it."""
        del self._transfers[transfer.request]
        tell(transfer.done, Reply(status, head, body, failure))
