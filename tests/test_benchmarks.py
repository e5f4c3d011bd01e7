"""The benchmarks run, and read what was stored; how fast is nobody's business here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aisdatapipes.devserver import DevProcess
from benchmarks.measure import Content, Limit, Measurement, Report, Stored, Target, content_of

ROOT = Path(__file__).parent.parent
SECONDS = 300  # starts up to a dozen processes; a busy machine takes a minute or two
WITH_A_CLUSTER = (
    "objects",
    "medium",
    "large",
    "shards",
    "shard_memory",
    "latency",
    "workers",
    "first",
    "strategies",
    "listing",
    "manifest",
    "order",
    "samples",
    "labels",
    "length",
    "blocks",
    "indexes",
)
NONE = Stored("", "", (), Content(1, 1, 0))


def ran(name: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.fixture(scope="module")
def environment():
    """Where a benchmark finds a cluster: the embedded one is enough to see that it counts right."""
    import os

    with DevProcess(targets=2) as cluster:
        yield os.environ | {"AIS_ENDPOINT": cluster.endpoint}


def test_make_bench_runs_all():
    """Whatever is a question; `make soak` is a job, and plots only show results."""
    (listed,) = re.findall(r"^BENCHMARKS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if '== "__main__"' in path.read_text()}
    assert sorted(listed.replace("\\", "").split()) == sorted(programs - {"soak", "plots"})


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", WITH_A_CLUSTER)
def test_quick_run(name, environment):
    """A benchmark ends well when every contender read every byte."""
    before = sorted(path.name for path in (ROOT / "benchmarks" / "results").glob("*"))
    done = ran(name, environment)
    assert (done.returncode, "WRONG" in done.stdout) == (0, False), done.stdout + done.stderr
    assert sorted(path.name for path in (ROOT / "benchmarks" / "results").glob("*")) == before


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", ["embedded", "names", "tar_reader", "manifest_formats", "killed"])
def test_quick_run_without_a_cluster(name):
    """A benchmark that needs no cluster runs anywhere."""
    import os

    env = {key: value for key, value in os.environ.items() if key != "AIS_ENDPOINT"}
    done = ran(name, env)
    assert done.returncode == 0, done.stdout + done.stderr


def lying(contender, stored):  # the signature of a measure
    return Measurement(contender, 1.0, 1.0, 0)


def failing(contender, stored):
    raise OSError(contender)


def test_wrong_content_fails_the_run(capsys):
    """Another count or another byte than was stored is no result: the row says so, and the exit status."""
    for content in (Content(2, 1, 0), Content(1, 2, 0), Content(1, 1, 7)):
        report = Report("none", "Question?", 1, "no server", quick=True)
        report.measure({"liar": content}, NONE, lying)
        assert report.finish(keep=True) == 1
        assert "WRONG: liar, round 1" in capsys.readouterr().out


def test_failure_fails_the_run(capsys):
    """A contender that raises fails the run, and the others are measured all the same."""
    report = Report("none", "Question?", 1, "no server", quick=True)
    report.measure({"bad": "reason"}, NONE, failing)
    report.measure({"good": NONE.content}, NONE, lying)
    assert report.finish(keep=True) == 1
    assert "WRONG: bad, round 1: OSError: reason" in capsys.readouterr().out
    assert list(report.rows) == ["good"]


def test_no_row_fails_the_run():
    """Nothing measured is no success, and no result."""
    assert Report("none", "Question?", 1, "no server").finish(keep=True) == 1
    assert not (ROOT / "benchmarks" / "results" / "none.json").exists()


def test_sum_knows_names_and_bytes_but_no_order():
    """Two samples in another order are the same; a byte, or the names exchanged, are not."""
    one, two = ("a", b"1"), ("b", {"x": b"2", "y": b"3"})
    assert content_of([one, two]) == content_of([two, one])
    assert content_of([one, two]).count == 2
    assert content_of([one, two]).bytes == 3
    assert content_of([("a", b"1"), ("b", b"2")]).sum != content_of([("a", b"2"), ("b", b"1")]).sum
    assert content_of([("a", b"1")]).sum != content_of([("a", b"0")]).sum


def test_targets_compare_rounds_with_each_other():
    """A target is judged by the median of the ratios within each round."""
    report = Report("none", "Question?", 3, "no server")
    report.rows["fast"] = [Measurement(NONE.content, seconds, 0, 5_000_000) for seconds in (1.0, 2.0, 1.0)]
    report.rows["slow"] = [Measurement(NONE.content, seconds, 0, 0) for seconds in (3.0, 6.0, 30.0)]
    report.check(Target("fast", "slow", 2), Target("fast", "slow", 4), Limit("fast", "peak memory MB", 5))
    assert [line.partition(":")[0] for line in report.targets] == ["met", "MISSED", "met"]
