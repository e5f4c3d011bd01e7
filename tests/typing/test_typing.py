"""Users' code is typed: what is right passes ``mypy --strict``, what is wrong is reported on its own line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# `strict` is set in pyproject.toml, with the reason for the one exception.
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MYPY_SECONDS = 280  # the first run reads all of torch; later ones take seconds

pytest.importorskip("mypy")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(MYPY_SECONDS + 20)]


def test_right_and_wrong_code():
    """mypy accepts ``good.py``, and refuses exactly the marked lines of ``bad.py``."""
    good, bad = HERE / "good.py", HERE / "bad.py"
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(good), str(bad)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MYPY_SECONDS, check=False)
    marked = [f"bad.py:{n}" for n, line in enumerate(bad.read_text().splitlines(), 1) if line.endswith("# refused")]
    reported = re.findall(r"^(?:.*/)?([\w.]+\.py:\d+)(?::\d+)?: error:", done.stdout, re.MULTILINE)
    assert (sorted(set(reported)), done.stderr) == (sorted(marked), ""), done.stdout
