"""Threads and sockets of this process, to see what a loop leaves behind."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Self

_LOOK_EVERY = 0.05  # seconds
_FDS = Path("/proc/self/fd")  # Linux; elsewhere only threads are seen
# An embedded cluster in this process has a thread, and its event loop may start more.
_OF_SERVERS = ("aisdatapipes-devserver", "asyncio_")


@dataclass(frozen=True, slots=True)
class Open:
    """What is open at a moment.

    Args:
        threads: By identity, which is that of the thread and not of its number: numbers are used again.
        sockets: The kernel's names, such as ``socket:[12345]``.
    """

    threads: frozenset[threading.Thread]
    sockets: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """What is open now, after what nobody can reach has been cleared away."""
        gc.collect()
        threads = (one for one in threading.enumerate() if not one.name.startswith(_OF_SERVERS))
        return cls(frozenset(threads), frozenset(_sockets()))

    def left(self, patience: float) -> list[str]:
        """What has been opened since and stays open for ``patience`` seconds; empty as soon as nothing is."""
        deadline = time.monotonic() + patience
        while True:
            now = self.now()
            left = [f"thread {thread.name}" for thread in now.threads - self.threads]
            left += sorted(now.sockets - self.sockets)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(_LOOK_EVERY)


def _sockets() -> list[str]:
    found: list[str] = []
    if _FDS.is_dir():
        for fd in _FDS.iterdir():
            try:
                found.append(str(fd.readlink()))
            except OSError:  # closed meanwhile, such as the one that looks
                continue
    return [name for name in found if name.startswith("socket:")]
