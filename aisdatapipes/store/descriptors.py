"""File descriptors: how many connections this process can afford, and what it says when it has no more."""

from __future__ import annotations

import os
import resource

MOST_CONNECTIONS = 1024
_SHARE = 4  # of the descriptors that a process may have: workers, files and other clusters need some too


def connections_at_most() -> int:
    """Connections that one transport may have open at a time; further requests wait for their turn."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, limit // _SHARE))


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
