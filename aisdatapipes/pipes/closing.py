"""Iterators that a program forgets end with the program, but not later: then torch is half gone, and would abort."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Generator
from typing import Any

_open: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def closed_at_exit(iteration: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """The same generator, which is closed at the latest when the program ends."""
    _open.add(iteration)
    return iteration


@atexit.register
def _close_all() -> None:
    for one in list(_open):
        with contextlib.suppress(ValueError):  # another thread is in it
            one.close()
