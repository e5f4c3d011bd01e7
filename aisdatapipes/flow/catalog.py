"""One listing per job: made once, kept in memory, inherited by workers, and shared by those who could not inherit it.

torch tells nobody before it forks its workers. When they start before anyone needed the listing, one of them makes
it and the others take it from a file, which the process that owns the catalog removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import multiprocessing.util
import os
import pickle
import re
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aisdatapipes.flow.listing import Listing, NameFilter
from aisdatapipes.flow.meter import Meter
from aisdatapipes.store.source import Source

T = TypeVar("T")
_alive: weakref.WeakSet[Catalog] = weakref.WeakSet()
_watched: set[Path] = set()  # files of which this worker sees to it that they do not outlive the job

_DERIVED = ".derived"
_NAME = re.compile(r"aisdatapipes-(?P<owner>\d+)-(?P<namespace>\d*)-[0-9a-f]{32}")


class Catalog:
    """The listing of some sources, made when it is first needed.

    Args:
        parts: What is listed, in this order; a listing that is at hand is not made again.
        name_filter: Which names stay of what is listed.

    Attributes:
        sources: Where all objects come from.
        has_given: True where a part of the listing was given, not made here.
    """

    def __init__(self, parts: Sequence[Source | Listing], name_filter: NameFilter | None = None) -> None:
        self.sources = tuple(source for part in parts for source in _sources_of(part))
        self.name_filter = name_filter
        self.has_given = any(isinstance(part, Listing) for part in parts)
        at_hand = all(isinstance(part, Listing) for part in parts)
        self._listing: Listing | None = _one(tuple(parts)) if at_hand else None
        self._parts = () if at_hand else tuple(parts)
        self._derived: Any = None
        self._lock, self._alone = threading.RLock(), False
        self._begin_job()
        _alive.add(self)

    def _begin_job(self) -> None:
        """What one process makes is for this one and its workers."""
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"aisdatapipes-{self._owner}-{_namespace()}-{uuid.uuid4().hex}"
        weakref.finalize(self, _remove, self._path, self._owner)

    def listing(self, meter: Meter) -> Listing:
        """The listing; at most one of the processes of a job makes it."""
        with self._lock:
            if self._listing is None:
                self._see_to_files()
                # Workers may have made it already, whoever is asking now.
                self._listing = self._from_file() or (self._shared(meter) if self._is_worker() else self._made(meter))
            return self._listing

    @property
    def known(self) -> bool:
        """True when asking for the listing costs nothing."""
        return self._listing is not None

    @property
    def knows_derived(self) -> bool:
        """True when asking for what is derived costs nothing."""
        return self._derived is not None

    def derived(self, make: Callable[[], T]) -> T:
        """What ``make`` makes out of the listing, once in a job: workers inherit it, or take it from one that has it.

        So all of them go by the same, also where another try would have another result. It pickles, and is not None.
        The listing has to be at hand: a worker that makes it and one that needs it must not wait for each other.
        """
        with self._lock:
            if self._derived is None:
                if self._is_worker():
                    with self.alone():
                        self._derived = self._kept_derived()
                        if self._derived is None:
                            self._derived = make()
                            _write(self._path.with_suffix(_DERIVED), self._derived)
                else:
                    self._derived = self._kept_derived() or make()
            made: T = self._derived
            return made

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside it no other process or thread of the job is inside it."""
        with self._lock:
            if self._alone:  # the collector, which may run inside it, has found another iteration to end
                yield
                return
            self._see_to_files()
            self._alone = True
            try:
                with _locked(self._path.with_suffix(".lock")):
                    yield
            finally:
                self._alone = False

    def _see_to_files(self) -> None:
        """A worker whose job is killed removes, at its own end, what the owner cannot remove any more."""
        if self._is_worker() and self._path not in _watched:
            _watched.add(self._path)
            _remove_abandoned(self._path.parent)
            multiprocessing.util.Finalize(None, _remove_orphan, (self._path, os.getppid()), exitpriority=0)

    def _made(self, meter: Meter) -> Listing:
        return Listing.of(self._parts, meter, self.name_filter)

    def _is_worker(self) -> bool:
        """True in a child of the process that owns the catalog, which will remove the file."""
        # With a fork server the process that started a worker is not its parent for the system.
        parent = multiprocessing.parent_process()
        return os.getpid() != self._owner and self._owner in (os.getppid(), parent.pid if parent else None)

    def _shared(self, meter: Meter) -> Listing:
        with self.alone():
            found = self._from_file()  # a sibling was faster
            if found is None:
                found = self._made(meter)
                _write(self._path, found)
            return found

    def _from_file(self) -> Listing | None:
        found = _read(self._path)
        return found if isinstance(found, Listing) else None

    def _kept_derived(self) -> Any:
        return _read(self._path.with_suffix(_DERIVED))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._alone = threading.RLock(), False
        _alive.add(self)
        if os.getpid() == self._owner:  # a copy, which may outlive the original
            self._begin_job()


def _after_fork() -> None:
    """A lock that another thread held at the fork would stay locked for ever."""
    for catalog in _alive:
        catalog._lock, catalog._alone = threading.RLock(), False  # noqa: SLF001 - in a child that has one thread


os.register_at_fork(after_in_child=_after_fork)


def _sources_of(part: Source | Listing) -> tuple[Source, ...]:
    return part.sources if isinstance(part, Listing) else (part,)


def _one(parts: tuple[Source | Listing, ...]) -> Listing:
    """The listing of listings; of one it is that one, without a copy."""
    (first, *others) = parts
    return first if isinstance(first, Listing) and not others else Listing.of(parts, Meter())


def _write(path: Path, value: object) -> None:
    written = path.with_suffix(".new")
    with open(written, "wb", opener=_private) as file:
        pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
    written.rename(path)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - written by a process of this job, mode 600
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "wb", opener=_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go by the kernel, whatever happens to this process
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        _remove_files(path)


def _remove_orphan(path: Path, parent: int) -> None:
    """At the end of a worker: if the process that would remove the files was killed, nobody else does."""
    # For multiprocessing a parent lives as long as a worker that was forked later; with a fork server it is not the
    # parent for the system.
    by_multiprocessing = multiprocessing.parent_process()
    if os.getppid() != parent or (by_multiprocessing is not None and not by_multiprocessing.is_alive()):
        _remove_files(path)


def _remove_abandoned(folder: Path) -> None:
    """Files of jobs that were killed with all their workers; not those of a container that shares the folder."""
    for path in folder.glob("aisdatapipes-*"):
        found = _NAME.fullmatch(path.stem)
        if found and found["namespace"] == _namespace() != "" and not Path(f"/proc/{found['owner']}").exists():
            with contextlib.suppress(OSError):  # somebody else's, or removed meanwhile
                path.unlink()


def _namespace() -> str:
    """What tells two containers apart in which processes may have the same numbers; empty where nothing does."""
    try:
        return "".join(re.findall(r"\d+", os.readlink("/proc/self/ns/pid")))  # noqa: PTH115 - no file
    except OSError:
        return ""


def _remove_files(path: Path) -> None:
    for one in (path, path.with_suffix(".lock"), path.with_suffix(".new"), path.with_suffix(_DERIVED)):
        one.unlink(missing_ok=True)
