"""Jobs of several ranks that are killed and go on: the example's own training, run by torchrun in real processes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.environments import CHECKOUT

pytest.importorskip("PIL", reason="the extra demo is not installed")
BATCH = 4
HANG = 150  # seconds; each rank imports torch, and on a busy machine that alone is many seconds
PAUSE = 0.05  # seconds between two looks at what a job has written
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * HANG + 30)]

# One rank. It writes down each batch before the step that trains on it, with the state that the job has after that
# step; told to, one rank halts before a step, so that the others stand somewhere in the same step or behind it.
RANK = """
import json, logging, os, sys, time
from pathlib import Path
options = json.loads(sys.argv[1])
folder, rank = Path(options["folder"]), int(os.environ["RANK"])

import torch.distributed as dist
from torch.utils.data import DataLoader
from aisdatapipes import AISIterDataset
from examples.resume import collated


class Logged(DataLoader):
    def __iter__(self):
        for step, batch in enumerate(super().__iter__(), 1):
            state = self.dataset.state_dict(batches=step)
            print(json.dumps([state, batch[0]]), file=log, flush=True)
            if rank == options["halting"] and [state["epoch"], state["position"]] == options["at"]:
                (folder / "halted").touch()
                time.sleep(1000)  # seconds; it is killed long before
            yield batch


if __name__ == "__main__":
    logging.basicConfig(filename=folder / f"{rank}.told", level="INFO")
    with open(folder / f"{rank}.log", "w") as log:
        dataset = AISIterDataset(options["url"], shuffle=True, batch_size=options["batch"], even=options["even"])
        loader = Logged(dataset, options["batch"], collate_fn=collated, num_workers=2, persistent_workers=True)
        checkpoint, epochs = Path(options["checkpoint"]), options["epochs"]
        if checkpoint.suffix == ".ckpt":
            from examples.lightning_resume import train
            train(loader, checkpoint.parent, save_every=2, max_epochs=epochs, enable_progress_bar=False)
        else:
            from examples.resume import train
            dist.init_process_group("gloo")
            list(train(loader, checkpoint, epochs, save_every=2))
    dist.destroy_process_group()
"""


class Job:
    """A job of some ranks, with what they have written; it is ended when the test is."""

    def __init__(self, folder, ranks, checkpoint, bucket, epochs=2, even="none", halts_at=None):
        self.folder, self.ranks, self.checkpoint, self.halts_at = folder, ranks, checkpoint, halts_at
        folder.mkdir()
        options = {
            "folder": str(folder), "checkpoint": str(checkpoint), "url": bucket.url, "batch": BATCH, "even": even,
            "epochs": epochs, "halting": ranks - 1, "at": halts_at,
        }  # fmt: skip
        (folder / "rank.py").write_text(RANK)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        places = os.pathsep.join([str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        environment = {"PYTHONPATH": places, "AIS_ENDPOINT": bucket.endpoint, "GLOO_SOCKET_IFNAME": "lo"}
        with (folder / "output").open("w") as output:
            self.launcher = subprocess.Popen(
                [sys.executable, *launcher, str(folder / "rank.py"), json.dumps(options)],
                env=os.environ | environment | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def said(self):
        return (self.folder / "output").read_text()

    @property
    def saved(self):
        """The order's state in the checkpoint, as (epoch, position)."""
        import torch

        checkpoint = torch.load(self.checkpoint, weights_only=True)
        order = checkpoint["callbacks"]["Order"] if self.checkpoint.suffix == ".ckpt" else checkpoint[-1]
        return order["epoch"], order["position"]

    def wait(self):
        """Until all ranks have ended well, and their workers with them."""
        assert self.launcher.wait(HANG) == 0, self.said
        assert self.groups() == set()

    def wait_until_it_halts(self):
        """Until its last rank halts, and its first, which saves, has begun that step too: it has saved all before it."""
        end = time.monotonic() + HANG
        while not (self.folder / "halted").exists() or self.halts_at not in [step for step, _ in self.batches(0)]:
            assert self.launcher.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(PAUSE)

    def kill(self):
        """SIGKILL to the launcher, to the ranks and their workers, until none of them is there any more."""
        end = time.monotonic() + HANG
        while groups := self.groups():
            assert time.monotonic() < end, groups
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            time.sleep(PAUSE)
        self.launcher.wait(HANG)

    def groups(self):
        """The process groups of the job: one of the launcher, and one of each rank, which its workers are in."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # gone meanwhile
                if str(self.folder / "rank.py").encode() in path.read_bytes():
                    found.add(os.getpgid(int(path.parent.name)))
        return found

    def batches(self, rank):
        """[(epoch, position) after the step, names] of every step that the rank began."""
        text = (self.folder / f"{rank}.log").read_text()
        lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())  # a line may be being written
        return [((state["epoch"], state["position"]), names) for state, names in lines]

    @property
    def fingerprints(self):
        """What the workers of all ranks told when their iterations began."""
        lines = [line for path in self.folder.glob("*.told") for line in path.read_text().splitlines()]
        return {line.split("fingerprint ")[1] for line in lines if "fingerprint" in line}

    def kept(self, upto=(sys.maxsize, 0)):
        """Names that all ranks trained on, by epoch, as far as the checkpoint knows of it."""
        found = {}
        for rank in range(self.ranks):
            for (epoch, position), names in self.batches(rank):
                if (epoch, position) <= upto:
                    # What ends an epoch stands at the beginning of the next one.
                    found.setdefault(epoch if position else epoch - 1, []).extend(names)
        return found


def fill(bucket, count):
    """So many digits; their names are what the ranks write down."""
    from examples.digits import upload

    pictures = upload.digits(count * 5 // 4 + 1)["train"][:count]
    assert len(pictures) == count
    return sorted(bucket.fill({f"{key}-{label}.png": content for key, label, content in pictures}))


def together(parts, epoch):
    return sorted(name for part in parts for name in part.get(epoch, ()))


def test_killed_and_resumed_on_other_worlds(embedded_bucket, tmp_path):
    """Killed twice, on two ranks and on three, and ended by one: each epoch is every sample exactly once."""
    # What is left of epoch 0 for three ranks is three steps of 12, and one of 10 in which no rank has nothing to do.
    names = fill(embedded_bucket, 78)
    checkpoint = tmp_path / "checkpoint.pt"
    with Job(tmp_path / "two", 2, checkpoint, embedded_bucket, halts_at=(0, 40)) as two:
        two.wait_until_it_halts()
        assert len(two.groups()) == 1 + 2
        two.kill()
        first = two.saved
    with Job(tmp_path / "three", 3, checkpoint, embedded_bucket, halts_at=(1, 36)) as three:
        three.wait_until_it_halts()
        three.kill()
        second = three.saved
    with Job(tmp_path / "one", 1, checkpoint, embedded_bucket) as one:
        one.wait()
    assert (first, second, one.saved) == ((0, 32), (1, 24), (2, 0))
    parts = two.kept(first), three.kept(second), one.kept()
    assert [sorted(part) for part in parts] == [[0], [0, 1], [1]]
    assert (together(parts, 0), together(parts, 1)) == (names, names)
    # More was begun than the checkpoint keeps: that is what the resumed jobs had to do again.
    assert len(two.kept()[0]) > len(two.kept(first)[0])
    assert [len(job.fingerprints) for job in (two, three, one)] == [1, 1, 1]
    assert two.fingerprints == three.fingerprints == one.fingerprints


def test_ranks_end_at_the_same_step(bucket, tmp_path):
    """With even="repeat" all ranks make the same steps, with as many samples each, and no sample is left out."""
    names = fill(bucket, 25)
    with Job(tmp_path / "job", 2, tmp_path / "checkpoint.pt", bucket, epochs=1, even="repeat") as job:
        job.wait()
    steps = [[(state, len(batch)) for state, batch in job.batches(rank)] for rank in range(2)]
    assert steps == [[((0, 8), 4), ((0, 16), 4), ((0, 24), 4), ((1, 0), 1)]] * 2
    assert job.saved == (1, 0)
    found = job.kept()[0]
    assert (sorted(set(found)), len(found)) == (names, 26)


def test_lightning(embedded_bucket, tmp_path):
    """With Lightning, killed on one rank and ended by two: the epoch is every sample exactly once."""
    if importlib.util.find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch-lightning, of the extra dev, is not installed")
    names = fill(embedded_bucket, 38)
    checkpoint = tmp_path / "last.ckpt"
    with Job(tmp_path / "one", 1, checkpoint, embedded_bucket, halts_at=(0, 28)) as one:
        one.wait_until_it_halts()
        one.kill()
        first = one.saved
    with Job(tmp_path / "two", 2, checkpoint, embedded_bucket, epochs=1) as two:
        two.wait()
    # Lightning takes a batch ahead: step 7 was begun when step 5 was the last one that had been trained on.
    assert (first, two.saved) == ((0, 16), (1, 0))
    assert [[state for state, _ in two.batches(rank)] for rank in range(2)] == [[(0, 24), (0, 32), (1, 0)]] * 2
    assert together([one.kept(first), two.kept()], 0) == names
