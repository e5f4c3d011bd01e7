"""Memory: the window and a fixed amount, whatever the sizes of objects, shards, batches and listings; and no leak.

Each case runs in an interpreter of its own, and the cluster in another process, so that nothing else is counted. What
is compared is the highest resident size that the kernel saw (``VmHWM``) with the size just before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from aisdatapipes.devserver import DevCluster
from aisdatapipes.wire.tar import END, entry
from tests.environments import CHECKOUT

pytestmark = pytest.mark.slow
HANG = 110  # seconds
MIB = 1 << 20
WINDOW = 32  # MiB; small, so that everything here is many times larger
BEYOND = 64  # MiB that may come on top of the window: the promise
# The highest size after one of the 20 later epochs, less that after one of the 20 before, may be so much, in MiB. Each
# epoch reads 30 MiB in 1,000 objects, so that what keeps 1.5 % of the content, or 450 bytes of each object, is above
# it. The size after one epoch says little: the allocator moves up and down by 12, in steps of 4, in any 20 epochs.
FLAT = 8
WARM, EPOCHS = 5, 20
LISTED = 200_000

CASE = """
import json, os, sys, time
from pathlib import Path
from aistore.sdk import Client
from torch.utils.data import DataLoader
from aisdatapipes import AISIterDataset, AISMapDataset, AISShardReader, ClientConfig, FetchPlan

def kib(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])

def begin(_worker=0):
    global before
    Path("/proc/self/clear_refs").write_text("5")  # the highest size is this one now
    before = kib("VmRSS")

def grown():
    return (kib("VmHWM") - before) / 1024  # MiB

def grown_in_worker(batch):
    total = sum(len(data) for _, data in batch)
    del batch
    return grown(), total

if __name__ == "__main__":
    endpoint, case = sys.argv[1], json.loads(sys.argv[2])
    config = ClientConfig(endpoint)
    options = {"config": config, "fetch": FetchPlan(case["strategy"], window_bytes=case["window"] << 20)}
    for _ in AISIterDataset("ais://warm/", config=config):
        pass  # what is loaded and begun once is not counted
    kind = {"shards": AISShardReader, "map": AISMapDataset}.get(case["kind"], AISIterDataset)
    if kind is AISShardReader:
        options["index"] = case["index"]
    source = f"ais://{case['bucket']}/"
    if case["names"]:
        source = [Client(endpoint).bucket(case["bucket"]).object(name) for name in case["names"]]
    begin()
    dataset = kind(source, **options)
    if case["kind"] == "map":
        print(json.dumps([len(dataset), grown()]))
        sys.exit()
    count, sizes = 0, []
    if case["workers"]:
        loader = DataLoader(dataset, 4, num_workers=case["workers"], collate_fn=grown_in_worker, worker_init_fn=begin)
        told = list(loader)
        print(json.dumps([sum(total for _, total in told), max(size for size, _ in told)]))
        sys.exit()
    for _ in range(case["epochs"]):
        samples = iter(dataset)
        while (sample := next(samples, None)) is not None:
            content = sample[1]
            count += sum(map(len, content.values())) if isinstance(content, dict) else len(content)
            sample = content = None  # a consumer that keeps nothing
            time.sleep(case["pause"])
        sizes.append(kib("VmRSS") / 1024)
    print(json.dumps([count, sizes if len(sizes) > 1 else grown()]))
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster with a bucket for each case."""
    with DevCluster() as cluster:
        for bucket, objects in {
            "warm": {"o": b"x"},
            "small": {f"{i:05}": os.urandom(8) * 4096 for i in range(6000)},
            "mixed": {f"{i:05}": bytes((i * 7919) % 61_440) for i in range(1000)},
            "middle": {f"{i:03}": bytes(5 * MIB) for i in range(60)},
            "large": {f"{i}": bytes(200 * MIB) for i in range(3)},
            "shards": {f"{i}.tar": _shard(range(20 * i, 20 * i + 20), 15 * MIB) for i in range(2)},
            "one": {"one.tar": _shard(range(3), 100 * MIB)},
            "listed": {},
        }.items():
            cluster.create_bucket(bucket)
            for name, data in objects.items():
                cluster.put(bucket, name, data)
        for i in range(LISTED):
            cluster.put("listed", f"a-folder-of-many/with-a-long-name-{i:08}.jpeg", b"")
        yield cluster


def _shard(keys, size):
    return b"".join(entry(f"{key:04}.bin", bytes(size)) for key in keys) + END


def measured(cluster, kind, bucket, strategy="auto", window=WINDOW, **more):
    """(bytes that were read, MiB that the process grew by; for several epochs its size after each)."""
    case = {"kind": kind, "bucket": bucket, "strategy": strategy, "window": window, "names": [], "workers": 0,
            "pause": 0, "epochs": 1, "index": "off", **more}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CASE, cluster.endpoint, json.dumps(case)],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, grown = json.loads(done.stdout)
    return count, grown


@pytest.mark.parametrize(("strategy", "pause"), [("auto", 0), ("get", 0.0002), ("batch", 0), ("batch", 0.0002)])
def test_many_small_objects(cluster, strategy, pause):
    """188 MiB in small objects, for consumers that are faster and slower than the network: window + 64 MiB."""
    count, grown = measured(cluster, "objects", "small", strategy, pause=pause)
    assert (count, grown < WINDOW + BEYOND) == (6000 * 32768, True), grown


@pytest.mark.parametrize("strategy", ["auto", "get", "ranges"])
def test_a_few_large_objects(cluster, strategy):
    """An object larger than the window is read alone: its size + 64 MiB, once."""
    count, grown = measured(cluster, "objects", "large", strategy)
    assert (count, grown < 200 + BEYOND) == (600 * MIB, True), grown


@pytest.mark.parametrize(
    ("strategy", "pause"), [("auto", 0), ("get", 0.02), ("batch", 0), ("batch", 0.02), ("ranges", 0)]
)
def test_objects_of_some_megabytes(cluster, strategy, pause):
    """300 MiB in objects of 5 MiB, by get-batch too: window + 64 MiB."""
    count, grown = measured(cluster, "objects", "middle", strategy, pause=pause)
    assert (count, grown < WINDOW + BEYOND) == (300 * MIB, True), grown


@pytest.mark.parametrize("strategy", ["auto", "get"])
def test_objects_of_unknown_size(cluster, strategy):
    """The same where no listing told the sizes; but get-batch has what it was asked for."""
    names = [f"{i:03}" for i in range(60)]
    count, grown = measured(cluster, "objects", "middle", strategy, names=names)
    assert (count, grown < WINDOW + BEYOND) == (300 * MIB, True), grown


@pytest.mark.parametrize("index", ["off", "client"])
def test_large_shards(cluster, index):
    """Shards of 300 MiB with members of 15 MiB: window + a sample + a member + 64 MiB, streamed and by their index."""
    count, grown = measured(cluster, "shards", "shards", index=index)
    assert (count, grown < WINDOW + 2 * 15 + BEYOND) == (600 * MIB, True), grown


def test_a_shard_of_huge_members(cluster):
    """Samples larger than the window: one, the member behind it, which tells that it is complete, + window + 64 MiB."""
    count, grown = measured(cluster, "shards", "one")
    assert (count, grown < 2 * 100 + WINDOW + BEYOND) == (300 * MIB, True), grown


def test_a_long_listing(cluster):
    """A listing of 200,000 names is no more than its arrays and some pages: 64 MiB."""
    count, grown = measured(cluster, "map", "listed")
    assert (count, grown < BEYOND) == (LISTED, True), grown


@pytest.mark.parametrize("strategy", ["get", "batch"])
def test_workers(cluster, strategy):
    """Each of two workers stays within the same bounds."""
    count, grown = measured(cluster, "objects", "small", strategy, workers=2)
    assert (count, grown < WINDOW + BEYOND) == (6000 * 32768, True), grown


@pytest.mark.parametrize("strategy", ["get", "batch", "ranges"])
def test_many_epochs(cluster, strategy):
    """The size of a process that has read some epochs stays where it is."""
    epochs = WARM + 2 * EPOCHS
    count, sizes = measured(cluster, "objects", "mixed", strategy, epochs=epochs)
    assert count == epochs * sum(len(cluster.get("mixed", name)) for name in cluster.names("mixed"))
    grown = max(sizes[-EPOCHS:]) - max(sizes[WARM:-EPOCHS])
    assert grown < FLAT, (grown, sizes)
