"""The loaders of torch and torchdata over our chains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

import aisdatapipes  # noqa: F401 - gives the functional names
from tests.environments import CHECKOUT, path_with

OBJECTS = {f"{i:02d}": bytes([i]) for i in range(20)}
HANG = 100  # seconds; a loader that takes longer hangs


def read(pair):
    return pair[0].name, pair[1].read()


def chain_of(url, endpoint):
    listed = IterableWrapper([url]).list_files_by_ais(url=endpoint)
    return listed.sharding_filter().load_files_by_ais(url=endpoint).map(read)


def chain(bucket):
    return chain_of(bucket.url, bucket.endpoint)


@pytest.fixture(scope="module")
def dataloader2():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata says that it will end
        return pytest.importorskip("torchdata.dataloader2")


def test_dataloader2_in_process(bucket, dataloader2):
    """InProcessReadingService: every object once, in two epochs."""
    bucket.fill(OBJECTS)
    loader = dataloader2.DataLoader2(chain(bucket), reading_service=dataloader2.InProcessReadingService())
    assert [dict(loader) for _ in range(2)] == [OBJECTS, OBJECTS]
    loader.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_dataloader2_multi_process(bucket, dataloader2, method):
    """MultiProcessingReadingService: every object once over its workers, and an early end does not hang."""
    bucket.fill(OBJECTS)
    # main_prefetch_cnt=0: with another value torchdata deadlocks when a loop is left early.
    service = dataloader2.MultiProcessingReadingService(2, method, main_prefetch_cnt=0)
    loader = dataloader2.DataLoader2(chain(bucket), reading_service=service)
    assert dict(loader) == OBJECTS
    next(iter(loader))
    loader.shutdown()


# One of two ranks: a whole epoch, then one that is left after two items, with the chain of this file.
RANK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch.distributed
from torchdata.dataloader2 import (
    DataLoader2, DistributedReadingService, MultiProcessingReadingService, SequentialReadingService,
)
from tests.test_loaders import chain_of

if __name__ == "__main__":
    rank, meeting, url, endpoint, workers = sys.argv[1:]
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
    service = DistributedReadingService(timeout=60)
    if int(workers):
        service = SequentialReadingService(
            service, MultiProcessingReadingService(int(workers), "fork", main_prefetch_cnt=0)
        )
    loader = DataLoader2(chain_of(url, endpoint), reading_service=service)
    whole = [name for name, _ in loader]
    left = iter(loader)
    begun = [next(left)[0] for _ in range(2)]
    loader.shutdown()
    print(json.dumps([whole, begun]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_dataloader2_distributed(embedded_bucket, dataloader2, tmp_path, workers):
    """DistributedReadingService, alone and over workers: every object once over the ranks; no rank hangs."""
    embedded_bucket.fill(OBJECTS)
    where = [str(tmp_path / "meeting"), embedded_bucket.url, embedded_bucket.endpoint, str(workers)]
    said = together([[sys.executable, "-c", RANK, str(rank), *where] for rank in range(2)])
    (whole, begun), (other_whole, other_begun) = (json.loads(text) for text in said)
    assert sorted(whole + other_whole) == sorted(OBJECTS)
    assert len(whole) == len(other_whole)
    assert (begun, other_begun) == (whole[:2], other_whole[:2])


def together(commands):
    """What each command prints; all run at a time, and none outlives this."""
    env = os.environ | {"PYTHONPATH": str(CHECKOUT), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    try:
        said = [rank.communicate(timeout=HANG) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * len(ranks), said
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    return [out for out, _ in said]


@pytest.mark.slow
def test_dataloader_with_a_fork_server(embedded_bucket):
    """Four workers out of a fork server: every object once, in two epochs, and a loop that is left ends."""
    embedded_bucket.fill(OBJECTS)
    # Persistent, because each imports torch.
    options = {"num_workers": 4, "multiprocessing_context": "forkserver", "persistent_workers": True}
    loader = DataLoader(chain(embedded_bucket), batch_size=None, **options)
    assert [sorted(map(tuple, loader)) for _ in range(2)] == [sorted(OBJECTS.items())] * 2
    next(iter(loader))


DATASET = "AISIterDataset(url, config=ClientConfig(endpoint), batch_size=3)"
CHAIN = "chain_of(url, endpoint)"
STATEFUL = """
import json, sys
from torchdata.stateful_dataloader import StatefulDataLoader
from aisdatapipes import AISIterDataset, ClientConfig
from tests.test_loaders import chain_of

if __name__ == "__main__":
    url, endpoint, workers = sys.argv[1:]
    loader = StatefulDataLoader({data}, batch_size=3, num_workers=int(workers))
    print(json.dumps([name for names, _ in loader for name in names]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", [DATASET, CHAIN], ids=["dataset", "chain"])
def test_stateful_dataloader_iterates(embedded_bucket, data, workers):
    """StatefulDataLoader of torchdata 0.11, plain iteration, in an interpreter of its own."""
    embedded_bucket.fill(OBJECTS)
    code = STATEFUL.replace("{data}", data)
    args = [sys.executable, "-W", "ignore", "-c", code, embedded_bucket.url, embedded_bucket.endpoint, str(workers)]
    env = os.environ | {"PYTHONPATH": path_with("torchdata-0.11.0")}
    done = subprocess.run(args, capture_output=True, text=True, timeout=HANG, check=False, env=env)
    assert done.returncode == 0, done.stderr
    names = json.loads(done.stdout)
    assert (sorted(names), len(names)) == (sorted(OBJECTS), len(OBJECTS))
    if data is DATASET or not workers:
        assert names == sorted(OBJECTS)  # batches of the dataset are dealt to workers in turn
