"""The examples run, as a reader would run them, against the embedded cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aisdatapipes.devserver import DevProcess
from aisdatapipes.testing import AISBucket

ROOT = Path(__file__).parent.parent
RUN_SECONDS = 150  # each imports torch, in the main process; on a busy machine that alone is many seconds
LINES = 60  # what somebody copies must fit on a screen

pytest.importorskip("sklearn", reason="the extra demo is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(RUN_SECONDS + 30)]


def run(*arguments, cwd=ROOT, **environment):
    """What ``python -m ...`` printed; it must end with status 0."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-W", "error", "-m", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bucket():
    from examples.digits import upload

    with DevProcess() as cluster, AISBucket.new(cluster.endpoint, "examples") as bucket:
        upload.uploaded(cluster.endpoint, bucket.name, upload.digits(200))
        yield bucket


@pytest.mark.parametrize("name", ["train_pipes", "train_shards"])
def test_training(bucket, name):
    """What the documentation shows runs as it stands, and learns."""
    output = run(f"examples.{name}", bucket.endpoint, bucket.name)
    losses = [float(loss) for loss in re.findall(r"mean loss ([\d.]+)", output)]
    assert len(losses) == 10, output
    assert losses[-1] < losses[0] / 2


def test_resume(bucket, tmp_path):
    """The job goes through its epochs, and begun once more it has nothing left to do."""
    launcher = ["torch.distributed.run", "--standalone", "-m", "examples.resume"]
    arguments = [*launcher, f"{bucket.url}train/", str(tmp_path / "checkpoint.pt")]
    environment = {"AIS_ENDPOINT": bucket.endpoint, "GLOO_SOCKET_IFNAME": "lo"}
    lines = re.findall(r"^epoch (\d): 10 steps, loss ([\d.]+)$", run(*arguments, **environment), re.MULTILINE)
    assert [int(epoch) for epoch, _ in lines] == list(range(10))
    assert float(lines[-1][1]) < float(lines[0][1]) / 1.5
    assert run(*arguments, **environment) == ""


@pytest.mark.parametrize("name", ["train_pipes", "train_shards", "resume"])
def test_training_is_short(name):
    """What a user copies is less than sixty lines."""
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < LINES


def test_demo(tmp_path):
    """The demo finds its own cluster, trains both ways well enough, and draws its picture."""
    picture = tmp_path / "demo.png"
    output = run("examples.digits", "--epochs", "5", "--picture", str(picture), AIS_ENDPOINT="")
    rows = re.findall(r"^(DataPipes|AISShardReader) +([\d,]+) ", output, re.MULTILINE)
    assert rows == [("DataPipes", "7,185"), ("AISShardReader", "7,185")], output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_project_of_somebody_else():
    """A project that tests its data loading with the plugin passes, in a process of its own."""
    output = run(
        "pytest", "-p", "pytest_aisdatapipes", "-p", "no:cacheprovider", "-p", "no:randomly", "-q", ".",
        cwd=ROOT / "examples" / "testing_project",
    )  # fmt: skip
    assert re.search(r"\b5 passed\b", output), output
