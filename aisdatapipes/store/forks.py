"""In which process something was begun: a forked child has a copy of it, but not the threads that would end it.

Whoever waits for the transport, or takes a lock that its thread takes too, asks first: in a child such a wait would
have no end. A child has to begin anew, and is told so.
"""

from __future__ import annotations

import os

from aisdatapipes.model.errors import ConfigError

_generation = 0  # a forked child is of the next one: a number tells that for less than asking the system who this is


class Home:
    """The process that makes this."""

    __slots__ = ("_generation",)

    def __init__(self) -> None:
        self._generation = _generation

    @property
    def is_here(self) -> bool:
        """False in a process that was forked from it."""
        return self._generation == _generation

    def check(self) -> None:
        """Raise `ConfigError` in a process that was forked from it."""
        if self._generation != _generation:
            raise ConfigError("this iterator was begun in another process: begin a new one after the fork")


def _after_fork() -> None:
    global _generation  # noqa: PLW0603 - a child's fresh start
    _generation += 1


os.register_at_fork(after_in_child=_after_fork)
