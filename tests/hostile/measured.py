"""Run as a process: reads as it is told to, and tells how it ended and how much memory that took.

A line in is ``reader endpoint``; a line out is JSON: the outcome's name, its words, and bytes that the peak of memory
rose by. This process believes that the machine has half a gigabyte.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from pathlib import Path

_asked = os.sysconf
os.sysconf = lambda name: (1 << 29) // _asked("SC_PAGE_SIZE") if name == "SC_PHYS_PAGES" else _asked(name)

from aisdatapipes import AISPipeError  # noqa: E402
from aisdatapipes.store import pool  # noqa: E402
from tests.hostile.readers import config_of, read  # noqa: E402


def memory(key: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def main() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name, endpoint = line.rstrip("\n").split("\t")
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        try:
            outcome = "data", f"{len(read(name, config_of(endpoint)))}"
        except AISPipeError as error:
            outcome = type(error).__name__, str(error)
        except BaseException as error:
            outcome = "escaped", repr(error)
        rose = memory("VmHWM") - before
        pool.close_all()
        print(json.dumps([*outcome, rose]), flush=True)


if __name__ == "__main__":
    main()
