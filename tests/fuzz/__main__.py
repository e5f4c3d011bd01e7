"""``python -m tests.fuzz [PARSER ...]``: a bounded number of hostile inputs for each parser, the same every time.

With atheris, coverage says which inputs are worth changing further; without, valid ones are changed at random. The first
input for which something does not hold is printed, with what happened, and ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

INPUTS, SECONDS, SEED = 100_000, 60.0, 1
LARGEST_BYTES = 8192  # of an input
HANG_SECONDS = 20  # for one input: a thousand times what the slowest takes
MEMORY_BYTES = 512 << 20  # beyond what the imports take
# What is instrumented.
_LAYERS = ["aisdatapipes.wire", "aisdatapipes.flow.indexcache"]


class Run:
    """One parser under fire: counts, and ends the process when it is over.

    Args:
        name: Of the parser.
        holds: What is called with every input.
        inputs: At most so many.
        seconds: At most so long.
    """

    def __init__(self, name: str, holds: Callable[[bytes], None], inputs: int, seconds: float) -> None:
        self._name, self._holds, self._inputs = name, holds, inputs
        self._end = time.monotonic() + seconds
        self._count = 0

    def one(self, data: bytes) -> None:
        """Try one input."""
        try:
            self._holds(data)
        except BaseException:
            traceback.print_exc()
            self._over(f"FAILED for the bytes {data!r}", 1)
        self._count += 1
        if self._count >= self._inputs or time.monotonic() > self._end:
            self._over("held", 0)

    def _over(self, told: str, status: int) -> None:
        from tests.fuzz import parsers

        parsers.clean()
        print(f"{self._name}: {self._count} inputs, {told}", flush=True)
        os._exit(status)  # libFuzzer does not give control back


def changed(seeds: list[bytes], chance: random.Random) -> bytes:
    """A valid input with a few changes."""
    made = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made) + 1)
        kind = chance.randrange(7)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << chance.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = chance.choice([0, 1, 32, 48, 55, 57, 127, 128, 255])
        elif kind == 2:
            made[at:at] = chance.randbytes(chance.choice([1, 2, 8, 512]))
        elif kind == 3:
            del made[at : at + chance.choice([1, 2, 100, 512, 1024])]
        elif kind == 4:
            made[at:] = b""
        elif kind == 5:
            other = chance.choice(seeds)
            made[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            piece = made[at : at + chance.choice([8, 512, 1024])]
            made[at:at] = piece
    return bytes(made[:LARGEST_BYTES])


def fuzzed(name: str, inputs: int, seconds: float, seed: int, atheris: ModuleType | None) -> None:
    """Run one parser in this process, which ends with it."""
    with atheris.instrument_imports(include=_LAYERS) if atheris else contextlib.nullcontext():
        parsers = importlib.import_module("tests.fuzz.parsers")
    parser = parsers.PARSERS[name]
    logging.disable()
    for valid in parser.seeds:
        parsers.run(parser, valid)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    one = Run(name, lambda data: parsers.run(parser, data), inputs, seconds).one
    if atheris is None:
        chance = random.Random(seed)
        while True:
            signal.alarm(HANG_SECONDS)  # ends the process
            one(changed(parser.seeds, chance))
    with tempfile.TemporaryDirectory() as folder:
        _fuzzed_by_coverage(atheris, one, parser.seeds, seed, folder)


def _fuzzed_by_coverage(atheris: Any, one: Callable[[bytes], None], seeds: list[bytes], seed: int, folder: str) -> None:
    for number, valid in enumerate(seeds):
        Path(folder, f"{number:03d}").write_bytes(valid)
    options = [f"-seed={seed}", f"-max_len={LARGEST_BYTES}", f"-timeout={HANG_SECONDS}", "-rss_limit_mb=0"]
    atheris.Setup(["fuzz", *options, "-verbosity=0", "-print_final_stats=0", folder], one)
    atheris.Fuzz()


def main() -> int:
    """Each parser in a process of its own."""
    told = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    told.add_argument("parsers", nargs="*")
    told.add_argument("--inputs", type=int, default=INPUTS)
    told.add_argument("--seconds", type=float, default=SECONDS)
    told.add_argument("--seed", type=int, default=SEED)
    told.add_argument("--at-random", action="store_true", help="without atheris")
    told.add_argument("--here", action="store_true", help="one parser, in this process")
    asked = told.parse_args()
    if asked.here:
        atheris = None
        with contextlib.suppress(ImportError):
            atheris = None if asked.at_random else importlib.import_module("atheris")
        fuzzed(asked.parsers[0], asked.inputs, asked.seconds, asked.seed, atheris)
    from tests.fuzz.parsers import PARSERS

    command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--here"]
    chosen = asked.parsers or list(PARSERS)
    command = [argument for argument in command if argument not in chosen]
    done = [subprocess.run([*command, name], check=False).returncode for name in chosen]
    return int(any(done))


if __name__ == "__main__":
    sys.exit(main())
