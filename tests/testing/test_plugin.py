"""The pytest plugin, in projects of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aisdatapipes.devserver import DevCluster

ROOT = Path(__file__).parent.parent.parent
PYTEST_SECONDS = 90

pytestmark = pytest.mark.timeout(PYTEST_SECONDS + 20)

PROJECT = """
def test_new_bucket(ais_bucket):
    ais_bucket.put("a.txt", b"A")
    ais_bucket.put_shard("b.tar", {"1": {"txt": b"B"}})
    assert [entry.name for entry in ais_bucket.sdk.list_all_objects()] == ["a.txt", "b.tar"]
    assert ais_bucket.url == f"ais://{ais_bucket.name}/"

def test_other_bucket(ais_bucket, ais_cluster):
    assert ais_bucket.sdk.list_all_objects() == []
    assert ais_bucket.endpoint == ais_cluster.endpoint
"""


def pytest_run(folder, *options, **environment):
    """Exit status and output of pytest in ``folder``, with the plugin loaded once."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "pytest_aisdatapipes", "-p", "no:cacheprovider", "-W", "error",
        *options,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=PYTEST_SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_embedded(tmp_path):
    """Without options, the cluster is embedded, and every test has a bucket of its own."""
    (tmp_path / "test_it.py").write_text(PROJECT)
    status, output = pytest_run(tmp_path)
    assert status == 0, output
    assert "2 passed" in output


@pytest.mark.parametrize("endpoint", ["given", "env", "ini"])
def test_another_cluster(tmp_path, endpoint):
    """An endpoint on the command line, from the environment or in the ini-file is used, and its buckets go away."""
    (tmp_path / "test_it.py").write_text(PROJECT)
    with DevCluster() as cluster:
        if endpoint == "given":
            status, output = pytest_run(tmp_path, f"--ais-endpoint={cluster.endpoint}")
        elif endpoint == "env":
            status, output = pytest_run(tmp_path, "--ais-endpoint=env", AIS_ENDPOINT=cluster.endpoint)
        else:
            (tmp_path / "pytest.ini").write_text(f"[pytest]\nais_endpoint = {cluster.endpoint}\n")
            status, output = pytest_run(tmp_path)
        assert status == 0, output
        assert sum(cluster.requests.values()) > 0
        assert cluster.buckets == ()


def test_unset_environment(tmp_path):
    """``env`` without AIS_ENDPOINT fails with what to do, and does not fall back."""
    (tmp_path / "test_it.py").write_text(PROJECT)
    status, output = pytest_run(tmp_path, "--ais-endpoint=env", AIS_ENDPOINT="")
    assert status == 1, output
    assert "AIS_ENDPOINT is not set" in output


def test_loading_costs_nothing(tmp_path):
    """A project that does not use the fixtures imports neither torch nor aiohttp nor the package."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n    assert not {'torch', 'aiohttp', 'aistore', 'aisdatapipes'} & set(sys.modules)\n"
    )
    status, output = pytest_run(tmp_path)
    assert status == 0, output
