"""What happens to an error that belongs to one item: raise it, or leave the item out and count it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aisdatapipes.flow.meter import Meter
from aisdatapipes.model.errors import AISPipeError, ConfigError

log = logging.getLogger("aisdatapipes")

Verdict = Literal["raise", "skip"]
OnError = Verdict | Callable[[AISPipeError], Verdict]

_MIN_SEEN = 100  # items before a rate means anything


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many errors, and which, an iteration bears.

    Args:
        on_error: ``"raise"``, ``"skip"``, or a function of the error that answers one of these.
        max_errors: Skipped items at most: a number (int), or a share of the items seen (float below 1); None for
            any number. The error after that is raised.
    """

    on_error: OnError = "raise"
    max_errors: int | float | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip") and not callable(self.on_error):
            raise ConfigError(f'on_error must be "raise", "skip" or a callable, not {self.on_error!r}')
        if self.max_errors is not None and self.max_errors < 0:
            raise ConfigError(f"max_errors must be 0 or more, or a share below 1, not {self.max_errors!r}")

    def bear(self, error: AISPipeError, meter: Meter) -> None:
        """Return if the item is to be skipped, having counted it; else raise ``error``."""
        verdict = self.on_error(error) if callable(self.on_error) else self.on_error
        if verdict not in ("raise", "skip"):
            raise ConfigError(f'on_error answered {verdict!r}; expected "raise" or "skip"') from error
        if verdict == "raise" or self._full(meter):
            raise error
        meter.skipped += 1
        # The first one is worth a look; of the others the count in stats() is enough.
        log.log(logging.WARNING if meter.skipped == 1 else logging.DEBUG, "skipped (on_error): %s", error)

    def _full(self, meter: Meter) -> bool:
        limit = self.max_errors
        if limit is None:
            return False
        if isinstance(limit, float) and limit < 1:
            return meter.skipped + 1 > limit * max(_MIN_SEEN, meter.objects + meter.skipped + 1)
        return meter.skipped >= limit


RAISE = Tolerance()
