"""Ends of jobs: signals, exits with live iterators, workers that are killed. Nothing stays, and nobody is shouted at."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aisdatapipes import AISIterDataset
from tests.environments import CHECKOUT
from tests.reliability.iterations import HANG, filled, forked

pytestmark = pytest.mark.slow
# Lines on stderr that a job which is ended may write: the traceback of its main process, with torch's own frames.
MOST_LINES = 60
PAUSE = 0.05  # seconds between two looks
# torch's workers look for their parent every 5 s, and then end what they are at.
END = 20  # seconds

JOB = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
from torch.utils.data import DataLoader
from aisdatapipes import AISIterDataset, AISShardReader, ClientConfig, FetchPlan

def collated(batch):
    return [name for name, _ in batch]

if __name__ == "__main__":
    kind, method, url, endpoint = sys.argv[1:]
    config = ClientConfig(endpoint)
    if kind == "shards":
        dataset = AISShardReader(url + "s/", config=config, show_progress=True)
    else:
        dataset = AISIterDataset(url + "o/", config=config, fetch=FetchPlan(kind), show_progress=True)
    loader = DataLoader(dataset, 4, num_workers=2, collate_fn=collated, multiprocessing_context=method)
    batches = iter(loader)
    next(batches), next(batches)  # both workers are at it
    print(*(worker.pid for worker in batches._workers), flush=True)
    for batch in batches:
        time.sleep(0.05)
    for batch in iter(int, 1):  # not the end of the job: it is to be ended
        time.sleep(1)
"""


class Job:
    """A job of a main process and two workers, in a session of its own; it is ended when the test is."""

    def __init__(self, folder, bucket, kind="get", method="fork"):
        self._folder = folder
        script = folder / "job.py"
        script.write_text(JOB)
        # Here the files of the job, and none of another.
        self.files = folder / "files"
        self.files.mkdir()
        environment = {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(self.files), "OMP_NUM_THREADS": "1"}
        with (folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(script), kind, method, bucket.url, bucket.endpoint],
                env=os.environ | environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
        self.workers = [int(word) for word in self.process.stdout.readline().split()]
        assert len(self.workers) == 2, self.errors

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=HANG)

    @property
    def errors(self):
        return (self._folder / "errors").read_text()

    def left(self, files):
        """The workers that are still there, and the files, if they count."""
        alive = [pid for pid in self.workers if _is_alive(pid)]
        return [*alive, *(path.name for path in self.files.glob("aisdatapipes*") if files)]

    def wait_for_nothing(self, *, files=True):
        end = time.monotonic() + END
        while (left := self.left(files)) and time.monotonic() < end:
            time.sleep(PAUSE)
        assert left == []


def _is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize(("kind", "to", "number"), [
    ("get", "main", signal.SIGINT), ("get", "main", signal.SIGTERM), ("get", "main", signal.SIGKILL),
    ("get", "all", signal.SIGINT), ("get", "all", signal.SIGTERM), ("batch", "main", signal.SIGTERM),
    ("shards", "main", signal.SIGTERM), ("shards", "all", signal.SIGINT),
])  # fmt: skip
def test_a_signal_ends_a_job(embedded_bucket, tmp_path, kind, to, number):
    """Ctrl-C, a scheduler's SIGTERM, a kill: main process and workers end, with few words, and leave no file."""
    with Job(tmp_path, filled(embedded_bucket), kind) as job:
        (os.kill if to == "main" else os.killpg)(job.process.pid, number)
        assert job.process.wait(END) in (-number, 128 + number, 1)
        # Who is killed with all others leaves the files to the next job.
        job.wait_for_nothing(files=(to, number) != ("all", signal.SIGTERM))
        lines = job.errors.splitlines()
        assert len(lines) <= MOST_LINES, job.errors
        if number != signal.SIGINT:
            assert not [line for line in lines if "Traceback" in line], job.errors


def test_a_signal_ends_spawned_workers(embedded_bucket, tmp_path):
    """Workers that were spawned end with their job, too; of those of a fork server torch itself does not see to that."""
    with Job(tmp_path, filled(embedded_bucket), method="spawn") as job:
        os.kill(job.process.pid, signal.SIGTERM)
        assert job.process.wait(END) == -signal.SIGTERM
        job.wait_for_nothing()
        assert len(job.errors.splitlines()) <= MOST_LINES, job.errors


def test_files_that_nobody_removed(embedded_bucket, tmp_path, monkeypatch):
    """Files of a job that was killed with all its workers go when another job makes some; a living job's stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    embedded_bucket.put("o", b"")
    dataset = AISIterDataset(embedded_bucket.url, config=embedded_bucket.server.config)
    abandoned = [tmp_path / dataset._catalog._path.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")]
    abandoned += [abandoned[0].with_suffix(suffix) for suffix in (".lock", ".derived", ".new")]
    others = [tmp_path / f"aisdatapipes-{gone.pid}-1-{32 * '0'}", tmp_path / "aisdatapipes-notes"]
    living = abandoned[0].with_name(abandoned[0].name.replace(f"-{gone.pid}-", f"-{os.getppid()}-"))
    for path in (*abandoned, *others, living):
        path.touch()
    assert forked(lambda: list(dataset)) == 0
    assert {path for path in tmp_path.iterdir() if path.is_file()} >= {*others, living}
    assert not [path for path in abandoned if path.exists()]


@pytest.mark.parametrize("kind", ["get", "batch", "shards"])
def test_a_killed_worker(embedded_bucket, tmp_path, kind):
    """A worker that is killed is an error in the main process, which ends, and the other worker with it."""
    with Job(tmp_path, filled(embedded_bucket), kind) as job:
        os.kill(job.workers[0], signal.SIGKILL)
        assert job.process.wait(END) == 1
        job.wait_for_nothing()
        assert "killed by signal: Killed" in job.errors
        assert len(job.errors.splitlines()) <= MOST_LINES, job.errors


# What a program may have when it comes to its end. Each is a body that ends with ``print("end")``.
PROGRAMS = {
    "global": "iterator = iter(dataset); next(iterator)",
    "many": "iterators = [iter(dataset) for _ in range(50)]; [next(one) for one in iterators]",
    "cycle": "iterator = iter(dataset); next(iterator); held = [iterator]; held.append(held)",
    "unbegun": "iterator = iter(dataset)",
    "in a function": "def f():\n    for sample in dataset:\n        yield sample\niterator = f(); next(iterator)",
    "thread": """
import threading
seen = threading.Event()
def read():
    while True:
        for _ in dataset:
            seen.set()
threading.Thread(target=read, daemon=True).start()
seen.wait()
""",
    "waiting thread": """
import threading
slow = iter(type(dataset)(dataset._ais_source_list, config=ClientConfig(endpoint), name_filter=lambda n: begun.set() or time.sleep(99)))
begun = threading.Event()
threading.Thread(target=next, args=(slow,), daemon=True).start()
begun.wait()
""",
    "loader": "iterator = iter(DataLoader(dataset, 4, num_workers=2, collate_fn=list)); next(iterator)",
    "persistent": """
loader = DataLoader(dataset, 4, num_workers=2, collate_fn=list, persistent_workers=True)
list(loader)
iterator = iter(loader); next(iterator)
""",
    "exit": "iterator = iter(dataset); next(iterator); print('end'); sys.exit(0)",
    "map": "from aisdatapipes import AISMapDataset\nm = AISMapDataset(url + 'o/', config=ClientConfig(endpoint)); m.__getitems__([1, 2])",
}  # fmt: skip
PROGRAM = """
import sys, time
from torch.utils.data import DataLoader
from aisdatapipes import AISIterDataset, ClientConfig
url, endpoint = sys.argv[1:]
dataset = AISIterDataset(url + "o/", config=ClientConfig(endpoint))
{body}
print("end")
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interpreter_ends_with_iterators_alive(embedded_bucket, program):
    """Whatever a program has open when it ends: its exit status is its own, at once and without a word."""
    filled(embedded_bucket)
    embedded_bucket.server.embedded.faults.add("delay", "get", share=0.2, seconds=0.05)
    code = PROGRAM.replace("{body}", PROGRAMS[program])
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, embedded_bucket.url, embedded_bucket.endpoint],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, timeout=HANG, check=False,
        )  # fmt: skip
    finally:
        embedded_bucket.server.embedded.faults.clear()
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)
