"""Iterators that a program forgets end with the program, but not later: then torch is half gone, and would abort."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Generator
from typing import Any

_ending = False
_open: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def closed_at_exit(iteration: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """The same generator, which is closed at the latest when the program ends."""
    _open.add(iteration)
    return iteration


def held_at_exit() -> None:
    """A daemon thread that is still iterating when the program ends waits here.

    The connections were closed under it. That is no failure, and its traceback would be the last that is seen.
    """
    if _ending and threading.current_thread() is not threading.main_thread():
        threading.Event().wait()


@atexit.register
def _close_all() -> None:
    global _ending  # noqa: PLW0603 - the program has one end
    _ending = True
    for one in list(_open):
        with contextlib.suppress(ValueError):  # another thread is in it
            one.close()
