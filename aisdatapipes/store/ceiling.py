"""How much may come where nobody said how much there is: what fits into this machine, and no more."""

from __future__ import annotations

import functools
import os
from pathlib import Path

# What a job may hold beyond the bytes that a window keeps for it: 64 of them, the default width, are 64 MiB.
SLACK_BYTES = 1 << 20
# Limits of the control group that a container runs in, of both versions of Linux's interface.
_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@functools.cache
def most_in_memory() -> int:
    """Half the memory of this machine or container, in bytes."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *map(_limit, _GROUP_LIMITS)], key=lambda size: size if size > 0 else machine) // 2


def _limit(path: Path) -> int:
    """Bytes; 0 where there is no limit, or no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0
