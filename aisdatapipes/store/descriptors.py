"""File descriptors: how many connections this process can afford, and what it says when it has no more."""

from __future__ import annotations

import os
import resource
from pathlib import Path

MOST_CONNECTIONS = 1024
# A quarter of the descriptors that a process may have, and half of those that are free when it begins: workers, files
# and other clusters need some too.
_SHARE, _SHARE_OF_FREE = 4, 2


def connections_at_most() -> int:
    """Connections that one transport may have open at a time; further requests wait for their turn."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, limit // _SHARE, (limit - _open_ones()) // _SHARE_OF_FREE))


def _open_ones() -> int:
    """Descriptors of this process; 0 where nobody tells."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0


def lack() -> str | None:
    """Why no descriptor can be opened now; None when one can. libcurl does not say that it was for want of them."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        why = os.strerror(error.errno or 0).lower()
        return (
            f"{why}: this process may have {limit} at a time; close some (open iterators hold connections), or raise "
            "the limit (ulimit -n)"
        )
    return None
