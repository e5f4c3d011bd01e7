"""Other versions of what the package works with, in processes of their own.

``make install`` puts each into a folder of its own under ``beside/`` of the environment. A process that finds the
folder first on its path has that version, and all the rest from the main environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
BESIDE = Path(sys.prefix) / "beside"
TIMEOUT = 110  # seconds; importing torch takes several on a busy machine


def python_with(package: str, code: str, *args: str) -> str:
    """What ``code`` prints in a process where ``package``, such as ``aistore-1.24.0``, comes first."""
    return run([sys.executable, "-c", code, *args], PYTHONPATH=path_with(package))


def path_with(*packages: str) -> str:
    """A ``PYTHONPATH`` where these packages come first, then the checkout."""
    for package in packages:
        if not (BESIDE / package).is_dir():
            pytest.skip(f"{package} is not beside this environment: run `make test`, which installs it")
    return os.pathsep.join([*(str(BESIDE / package) for package in packages), str(CHECKOUT)])


def run(command: list[str], **env: str) -> str:
    """What a command prints; its failure is the test's, with all that it said."""
    done = subprocess.run(
        command,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=Path(sys.prefix),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
