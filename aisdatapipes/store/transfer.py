"""One request under way in the engine."""

from __future__ import annotations

from typing import Any

from aisdatapipes.store.transport import Done, Request


class Transfer:
    """Whom to tell, what libcurl writes into, and whose connection it has.

    Attributes:
        chunks: The body, as it came.
        lines: Header lines.
        by_libcurl: The fast lane is not to try it, again.
        repeats: How often it was sent again because its answer broke off.
        curl: The easy handle that does it; None where the fast lane does.
        line: The connection of the fast lane that it has.
        heard: Bytes and header lines at the last look, where silence is limited.
        heard_at: When that was.
    """

    __slots__ = ("by_libcurl", "chunks", "curl", "done", "heard", "heard_at", "line", "lines", "repeats", "request")

    def __init__(self, request: Request, done: Done) -> None:
        self.request, self.done = request, done
        self.chunks: list[bytes] = []
        self.lines: list[bytes] = []
        self.by_libcurl = False
        self.repeats = 0
        self.curl: Any = None
        self.line: Any = None
        self.heard = -1
        self.heard_at = 0.0

    def head(self) -> bytes:
        """The header lines of the answer; not those of interim ones (1xx), which came before it."""
        begin = max((at for at, line in enumerate(self.lines) if line.startswith(b"HTTP/")), default=0)
        return b"".join(self.lines[begin:])
