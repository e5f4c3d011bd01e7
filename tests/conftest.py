"""What all tests share: the two servers, a bucket for each test, and the proof that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from aistore.sdk import Bucket, Client

from aisdatapipes.devserver import DevCluster
from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store import pool
from tests.cluster import LocalCluster, aisnode

LEGS = ("embedded", "real")
REASON = "no AIS_ENDPOINT and no aisnode on PATH"
# Seconds that a thread may take to end by itself: the engine's linger (2 s) and some more.
PATIENCE = 8.0
# Seconds between two looks: a connection's other end is a millisecond later, a thread or a child more.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.064


@dataclass
class Server:
    """A cluster under test."""

    leg: str
    endpoint: str
    embedded: DevCluster | None = None
    config: ClientConfig = field(init=False)

    def __post_init__(self) -> None:
        self.config = ClientConfig(self.endpoint)

    def client(self) -> Client:
        return Client(self.endpoint, max_pool_size=32)


@dataclass
class TestBucket:
    """A bucket of one test."""

    server: Server
    name: str
    sdk: Bucket

    __test__ = False

    @property
    def url(self) -> str:
        return f"ais://{self.name}/"

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    def put(self, name: str, data: bytes) -> None:
        if self.server.embedded is not None:
            self.server.embedded.put(self.name, name, data)
        else:
            self.sdk.object(name).get_writer().put_content(data)

    def fill(self, objects: dict[str, bytes]) -> dict[str, bytes]:
        for name, data in objects.items():
            self.put(name, data)
        return objects


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that a test keeps is found by another one, or by the person who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of this test"))


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    with DevCluster(targets=3) as cluster:
        yield Server("embedded", cluster.endpoint, cluster)


@pytest.fixture(scope="session")
def real_server() -> Iterator[Server]:
    if endpoint := os.environ.get("AIS_ENDPOINT"):
        yield Server("real", endpoint)
    elif aisnode() is None:
        pytest.skip(REASON)
    else:
        with LocalCluster(targets=3) as cluster:
            yield Server("real", cluster.endpoint)


@pytest.fixture(params=[pytest.param(leg, marks=getattr(pytest.mark, leg)) for leg in LEGS])
def server(request: pytest.FixtureRequest) -> Server:
    """Each test that asks for it runs against the embedded cluster and against a real one."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def bucket(server: Server) -> Iterator[TestBucket]:
    """A new bucket on either server."""
    yield from _new_bucket(server)


@pytest.fixture
def embedded_bucket(embedded_server: Server) -> Iterator[TestBucket]:
    """A new bucket on the embedded cluster, for what a real one cannot be made to do."""
    yield from _new_bucket(embedded_server)


def _new_bucket(server: Server) -> Iterator[TestBucket]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    sdk = server.client().bucket(name).create()
    yield TestBucket(server, name, sdk)
    sdk.delete(missing_ok=True)


# ---- nothing is left behind


def pytest_configure() -> None:
    """A terminated run ends its clusters as an interrupted one does."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    # Processes that tests fork are ended by this signal, and must not go on as tests.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends with the threads, children, sockets, open files and shared memory that it began with.

    It leaves no temporary file of ours either. What a test of a real cluster leaves on the client's side counts too.
    """
    names = set(request.fixturenames)
    names |= {"embedded_server"} if "embedded_bucket" in names else set()
    # What a server has for itself was there before.
    for name in names & {"server", "embedded_server", "real_server"}:
        request.getfixturevalue(name)
    _set_aside()
    before = _possessions()
    yield
    pool.close_all()
    gc.collect()
    if _left(before):
        _wait_for_nothing(before)


def _set_aside() -> None:
    """Takes what is alive out of the collector's sight, so that a collection looks at one test's objects only.

    There are some hundred thousand others, torch's most of all, and looking at them takes 0.1 to 0.2 s.
    """
    gc.collect()  # what the test before has left is cleared away, and not kept for ever
    gc.freeze()


def _wait_for_nothing(before: dict[str, set[str]]) -> None:
    """What is left goes by itself soon, or with what holds it; else the test fails."""
    end, pause = time.monotonic() + PATIENCE, SHORTEST_PAUSE
    while (left := _left(before)) and time.monotonic() < end:
        if pause == LONGEST_PAUSE:
            gc.unfreeze()  # something that is older than the test may hold it
        if "sockets" in left:
            _close_sessions()
        gc.collect()
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    assert not left


def _close_sessions() -> None:
    """Closes the connections of SDK clients: a test's own are kept by pytest until after this."""
    for thing in gc.get_objects():
        if type(thing) is requests.Session:
            thing.close()


def pytest_sessionfinish() -> None:
    """What was set aside is looked at once more, by the collections with which pytest ends."""
    gc.unfreeze()


def _left(before: dict[str, set[str]]) -> dict[str, set[str]]:
    now = _possessions()
    return {what: now[what] - before[what] for what in now if now[what] - before[what]}


def _possessions() -> dict[str, set[str]]:
    return {
        "threads": {f"{thread.name} {thread.ident}" for thread in threading.enumerate() if _ours(thread)},
        "children": _children(),
        "shared memory": _shared_memory(),
        "sockets": _sockets(),
        "open files": _open_files(),
        "temporary files": _temporary_files(),
    }


def _open_files() -> set[str]:
    """Descriptors of files, of epolls, of events and the like, with their numbers.

    Pipes belong to multiprocessing; what libraries have installed with themselves, such as fonts, they keep open.
    """
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, such as the one that looks
            name = str(fd.readlink())
            if not name.startswith(("socket:", "pipe:", "/proc/", "/dev/", sys.prefix)):
                found.add(f"{fd.name} {name}")
    return found


def _temporary_files() -> set[str]:
    """What the processes of a job share: the one that made it removes it."""
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"aisdatapipes-{os.getpid()}-*")}


def _sockets() -> set[str]:
    """Open sockets of this process, those of the embedded cluster among them, but none that listens.

    A target of the embedded cluster that comes back listens on a new one; a cluster left behind shows by its thread.
    """
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, such as the one that looks
            name = str(fd.readlink())
            if name.startswith("socket:") and not _listens(int(fd.name)):
                found.add(name)
    return found


def _listens(fd: int) -> bool:
    # Asked of a copy of the descriptor: it is not ours to close. /proc/net/tcp has those of the whole machine.
    copy = os.dup(fd)
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # closed meanwhile, and the number used again
        os.close(copy)
        raise
    with one:
        return one.family == socket.AF_INET and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _shared_memory() -> set[str]:
    """Segments and semaphores that this process has mapped, and those of torch's processes that are gone."""
    # joblib's stay for the life of the process; multiprocessing's go with their queues, later
    names = [path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith(("sem.loky", "sem.mp-"))]
    mapped = Path("/proc/self/maps").read_text() if names else ""
    makers = {name: re.match(r"torch_(\d+)_", name) for name in names}
    gone = {name for name, maker in makers.items() if maker and not Path(f"/proc/{maker[1]}").exists()}
    return gone | {name for name in names if f"/dev/shm/{name}\n" in mapped}


def _ours(thread: threading.Thread) -> bool:
    # pytest-timeout's, and the pool of the embedded cluster, which lives as long as the session.
    return not thread.name.startswith(("pytest_timeout", "asyncio_", "uvloop_", "Tqdm", "tqdm"))


def _children() -> set[str]:
    found: set[str] = set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return found  # the usual case, without a look at every process of the machine
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue
        state, parent = rest.split()[:2]
        # Helpers of multiprocessing stay for the life of the process by design.
        if parent == str(os.getpid()) and state != "Z" and not _is_helper(path):
            found.add(f"{path.parent.name} {name.partition('(')[2]}")
    return found


def _is_helper(stat: Path) -> bool:
    try:
        command = (stat.parent / "cmdline").read_bytes()
    except OSError:
        return True
    return b"resource_tracker" in command or b"forkserver" in command or b"aisnode" in command


# ---- who ran


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The last lines say which servers the tests ran against, and how many each."""
    passed = terminalreporter.stats.get("passed", [])
    counts = {leg: sum(1 for report in passed if leg in report.keywords) for leg in LEGS}
    write = terminalreporter.write_line
    write("")
    write(f"embedded cluster: {counts['embedded']} tests passed")
    if os.environ.get("AIS_ENDPOINT") or aisnode():
        write(f"real AIStore ({_version()}): {counts['real']} tests passed")
    else:
        write(f"real AIStore: SKIPPED, {REASON}: these tests say nothing about a real server", red=True, bold=True)
    write(f"no server needed: {len(passed) - sum(counts.values())} tests passed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses a server by a fixture of one leg only carries that leg's mark."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "embedded_server" in names or "embedded_bucket" in names:
            item.add_marker(pytest.mark.embedded)
        if "real_server" in names:
            item.add_marker(pytest.mark.real)


def _version() -> str:
    if os.environ.get("AIS_ENDPOINT"):
        return os.environ["AIS_ENDPOINT"]
    program = aisnode()
    answer = subprocess.run([str(program), "version"], capture_output=True, text=True, check=False, timeout=30)
    return " ".join((answer.stdout + answer.stderr).split()[:2])
