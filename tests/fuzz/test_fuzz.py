"""Every parser of bytes that others wrote bears hostile ones: a bounded number of them, the same in every run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.parsers import PARSERS

ROOT = Path(__file__).parent.parent.parent
INPUTS = 100_000  # of each parser; each takes six seconds to a minute
GUIDED_SECONDS = "6"  # coverage finds more with an input, and takes ten times as long for it
PATIENCE = 300  # seconds until a run must have ended: on a busy machine, and with one input that hangs


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("name", PARSERS)
def test_whatever_comes(name: str) -> None:
    """It answers or raises an error of its own; it does not hang, and its memory is bounded."""
    assert _inputs(name, "--at-random", "--inputs", str(INPUTS), "--seconds", str(PATIENCE)) == INPUTS
    assert _inputs(name, "--seconds", GUIDED_SECONDS) > 0


def _inputs(name: str, *options: str) -> int:
    """How many inputs a run tried, all of which held."""
    command = [sys.executable, "-m", "tests.fuzz", name, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    told = re.fullmatch(rf"{name}: (\d+) inputs, held", done.stdout.strip().rpartition("\n")[2])
    assert told is not None
    return int(told[1])


def test_the_fuzzer_can_fail() -> None:
    """A parser that raises what it must not, hangs, or takes memory is found."""
    program = (
        "from tests.fuzz.__main__ import fuzzed; import sys, tests.fuzz.parsers as p\n"
        "harm = {'raise': lambda: {}['x'], 'hang': lambda: [1 for _ in iter(int, 1)], 'take': lambda: bytes(1 << 30)}\n"
        "p.PARSERS['bad'] = p.Parser([b'a' * 64], lambda data: data != b'a' * 64 and harm[sys.argv[1]]())\n"
        "import tests.fuzz.__main__ as m; m.HANG_SECONDS = 1\n"
        "fuzzed('bad', 1000, 60, 1, None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for harm in ("raise", "hang", "take"):
        done = subprocess.run(
            [sys.executable, "-c", program, harm], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert harm == "hang" or "FAILED for the bytes" in done.stdout
