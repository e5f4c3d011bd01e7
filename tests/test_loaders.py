"""The loaders of torch and torchdata over our chains."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from torch.utils.data.datapipes.iter import IterableWrapper

import aisdatapipes  # noqa: F401 - gives the functional names

OBJECTS = {f"{i:02d}": bytes([i]) for i in range(20)}
HANG = 100  # seconds; a loader that takes longer hangs


def read(pair):
    return pair[0].name, pair[1].read()


def chain(bucket):
    listed = IterableWrapper([bucket.url]).list_files_by_ais(url=bucket.endpoint)
    return listed.sharding_filter().load_files_by_ais(url=bucket.endpoint).map(read)


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
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader2_multi_process(bucket, dataloader2, method):
    """MultiProcessingReadingService: every object once over its workers, and an early end does not hang."""
    bucket.fill(OBJECTS)
    # main_prefetch_cnt=0: with another value torchdata deadlocks when a loop is left early.
    service = dataloader2.MultiProcessingReadingService(2, method, main_prefetch_cnt=0)
    loader = dataloader2.DataLoader2(chain(bucket), reading_service=service)
    assert dict(loader) == OBJECTS
    next(iter(loader))
    loader.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_iterates(embedded_bucket, workers):
    """StatefulDataLoader of torchdata 0.11, plain iteration, in an interpreter of its own."""
    beside = Path(sys.prefix) / "beside" / "torchdata-0.11.0"
    if not beside.exists():
        pytest.skip("torchdata 0.11 is not beside: make install")
    embedded_bucket.fill(OBJECTS)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from torchdata.stateful_dataloader import StatefulDataLoader\n"
        "from aisdatapipes import AISIterDataset, ClientConfig\n"
        "if __name__ == '__main__':\n"
        "    data = AISIterDataset(sys.argv[2], config=ClientConfig(sys.argv[3]), batch_size=3)\n"
        "    loader = StatefulDataLoader(data, batch_size=3, num_workers=int(sys.argv[4]))\n"
        "    print([name for names, _ in loader for name in names])\n"
    )
    args = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(beside),
        embedded_bucket.url,
        embedded_bucket.endpoint,
        str(workers),
    ]
    done = subprocess.run(args, capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(sorted(OBJECTS))), done.stderr
