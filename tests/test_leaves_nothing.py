"""The proof that a test leaves nothing sees what it is for: each kind of thing that stays, and none that goes."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import pytest

from aisdatapipes.flow.catalog import Catalog
from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store.source import source_of
from tests import conftest


@contextlib.contextmanager
def a_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left")
    thread.start()
    yield
    done.set()
    thread.join()


@contextlib.contextmanager
def a_child() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield
        child.communicate(b"\n")


@contextlib.contextmanager
def a_connection() -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        yield


@contextlib.contextmanager
def a_segment() -> Iterator[None]:
    segment = SharedMemory(create=True, size=1)
    yield
    segment.close()
    segment.unlink()


@contextlib.contextmanager
def a_file() -> Iterator[None]:
    with tempfile.TemporaryFile():
        yield


@contextlib.contextmanager
def an_epoll() -> Iterator[None]:
    with select.epoll():
        yield


@contextlib.contextmanager
def an_event() -> Iterator[None]:
    fd = os.eventfd(0)
    yield
    os.close(fd)


@contextlib.contextmanager
def a_listing() -> Iterator[None]:
    catalog = Catalog([source_of("ais://b/", ClientConfig("http://127.0.0.1:9"))])
    with catalog.alone():
        pass
    yield
    del catalog


KINDS = [
    ("threads", a_thread), ("children", a_child), ("sockets", a_connection), ("shared memory", a_segment),
    ("open files", a_file), ("open files", an_epoll), ("open files", an_event), ("temporary files", a_listing),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "thing"), KINDS)
def test_what_stays_is_seen(kind, thing, monkeypatch):
    """While something stays, the wait for nothing fails and says which kind; when it is gone, nothing is left."""
    monkeypatch.setattr(conftest, "PATIENCE", 0.3)
    before = conftest._possessions()
    with thing():
        with pytest.raises(AssertionError, match=kind):
            conftest._wait_for_nothing(before)
        assert kind in conftest._left(before)
    conftest._wait_for_nothing(before)


def test_a_socket_that_listens_is_none():
    """A node of the embedded cluster that comes back listens anew; that is not a connection left."""
    before = conftest._possessions()
    with socket.create_server(("127.0.0.1", 0)):
        assert not conftest._left(before)


@pytest.mark.parametrize("set_aside", [False, True])
def test_what_nobody_can_reach_goes(set_aside):
    """A connection in a cycle is collected, also one that the collector was told to overlook."""
    before = conftest._possessions()
    gc.disable()
    try:
        cycle = Cycle()
        if set_aside:
            conftest._set_aside()
        del cycle
        assert "sockets" in conftest._left(before)
        conftest._wait_for_nothing(before)
    finally:
        gc.enable()


class Cycle:
    """Holds itself and the two ends of a connection, and closes them in the end."""

    def __init__(self) -> None:
        self.ends = [end.detach() for end in socket.socketpair()]
        self.itself = self

    def __del__(self) -> None:
        for end in self.ends:
            os.close(end)
