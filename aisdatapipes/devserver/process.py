"""The embedded cluster in a process of its own, so that a client does not share the interpreter with it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_STOP_SECONDS = 10.0  # it ends at once; if it does not, it is killed


class DevProcess:
    """``python -m aisdatapipes.devserver`` while the ``with`` block runs.

    Args:
        targets: How many.
        demo: With the bucket ``demo``.
        token: The token it accepts; None accepts everybody.
    """

    def __init__(self, targets: int = 3, *, demo: bool = False, token: str | None = None) -> None:
        self._command = [
            sys.executable,
            "-m",
            "aisdatapipes.devserver",
            "--until-eof",
            "--targets",
            str(targets),
        ]
        self._command += ["--demo"] if demo else []
        self._command += ["--token", token] if token else []
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""

    def start(self) -> Self:
        """The process, when it listens."""
        # It ends when its input does, also when this process dies without saying goodbye.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            code = self._process.wait(_STOP_SECONDS)
            self.stop()
            raise RuntimeError(f"the embedded cluster did not start (exit status {code}); its output says why")
        return self

    def stop(self) -> None:
        """The process has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None

    @property
    def pid(self) -> int:
        """Of the process."""
        if self._process is None:
            raise RuntimeError("the cluster's process has not been started")
        return self._process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
