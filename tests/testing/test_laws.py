"""The public laws hold for our datasets, and each fails for a dataset that breaks it."""

from __future__ import annotations

import socket
import threading

import pytest
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISFileLister,
    AISIterDataset,
    AISMapDataset,
    AISShardReader,
    ClientConfig,
    CorruptShard,
    ObjectNotFound,
)
from aisdatapipes.devserver import DevCluster
from aisdatapipes.testing import (
    AISBucket,
    check_copies,
    check_dataset,
    check_early_break,
    check_epochs,
    check_loader,
    check_worker_error,
)

SPAWN_SECONDS = 60  # a spawned worker imports torch first

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def bucket():
    with DevCluster() as cluster, AISBucket.new(cluster.endpoint, "laws") as bucket:
        for number in range(7):
            bucket.put(f"objects/{number}.bin", b"%d" % number)
        for shard in range(3):
            bucket.put_shard(f"shards/{shard}.tar", {f"{shard}-{n}": {"txt": b"%d" % n} for n in range(4)})
        yield bucket


def pipe(bucket):
    urls = AISFileLister([f"{bucket.url}objects/"], bucket.endpoint)
    return urls.sharding_filter().ais_load_files(bucket.endpoint)


DATASETS = {
    "iter": lambda b: AISIterDataset(f"{b.url}objects/", config=ClientConfig(b.endpoint)),
    "shuffled": lambda b: AISIterDataset(f"{b.url}objects/", config=ClientConfig(b.endpoint), shuffle=True),
    "map": lambda b: AISMapDataset(f"{b.url}objects/", config=ClientConfig(b.endpoint)),
    "shards": lambda b: AISShardReader(f"{b.url}shards/", config=ClientConfig(b.endpoint)),
    "pipe": pipe,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_ours_obey_all_laws(bucket, name):
    """Epochs, copies, loader and early break hold for every kind of dataset and for pipes."""
    check_dataset(DATASETS[name](bucket))


class Numbers(IterableDataset):
    """Obeys all laws; the broken ones below differ in one thing each."""

    def __iter__(self):
        info = get_worker_info()
        step, first = (info.num_workers, info.id) if info else (1, 0)
        return iter(range(first, 10, step))


class OncePerEpoch(Numbers):
    """Is empty the second time."""

    used = False

    def __iter__(self):
        found = [] if self.used else list(super().__iter__())
        self.used = True
        return iter(found)


class Reversing(Numbers):
    """Turns round every time."""

    turn = 1

    def __iter__(self):
        self.turn = -self.turn
        return iter(list(super().__iter__())[:: self.turn])


class KeepsIterator(Numbers):
    """Has something that cannot travel, once it was used."""

    def __iter__(self):
        self.current = (number for number in super().__iter__())
        return self.current


class ForgetsInCopies(Numbers):
    """A copy is another one."""

    extra = ()

    def __reduce__(self):
        return (ForgetsInCopies, (), {"extra": (99,)})

    def __iter__(self):
        return iter([*super().__iter__(), *self.extra])


class NotShared(Numbers):
    """Every worker reads everything."""

    def __iter__(self):
        return iter(range(10))


class LosesLast(Numbers):
    """Workers lose their last number."""

    def __iter__(self):
        found = list(super().__iter__())
        return iter(found[:-1] if get_worker_info() else found)


class LeavesThread(Numbers):
    def __iter__(self):
        stop = self.stop = threading.Event()
        threading.Thread(target=stop.wait, name="left-behind", daemon=True).start()
        return super().__iter__()


class LeavesSocket(Numbers):
    def __iter__(self):
        self.socket = socket.socket()
        return super().__iter__()


class Lookup(Dataset):
    """Map-style, without ``__iter__``."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"index": index}


@pytest.mark.parametrize("dataset", [Numbers(), Lookup(), IterableWrapper(range(10)).sharding_filter()])
def test_laws_hold_for_well_behaved_ones(dataset):
    """Whatever behaves passes: the laws know nothing of AIStore."""
    check_epochs(dataset)
    check_copies(dataset, ways=("pickle", "fork"))
    check_loader(dataset)
    check_early_break(dataset)


def test_epochs_differ():
    """A second epoch that is empty, or in another order, is told."""
    with pytest.raises(AssertionError, match="second epoch ends after 0 of 10 samples"):
        check_epochs(OncePerEpoch())
    with pytest.raises(AssertionError, match="second epoch differs at sample 0: 0, not 9"):
        check_epochs(Reversing())


def test_any_order_is_asked_for():
    """With ``any_order`` the order may differ, the samples may not."""
    check_epochs(Reversing(), any_order=True)
    with pytest.raises(AssertionError, match="10 missing"):
        check_epochs(OncePerEpoch(), any_order=True)


def test_copies_differ():
    """A copy that cannot be made, or is another one, is told with the way it was made."""
    with pytest.raises(AssertionError, match="copy by pickle cannot be read: TypeError"):
        check_copies(KeepsIterator(), ways=("pickle",))
    with pytest.raises(AssertionError, match="copy by pickle goes on after 10 samples, with 99"):
        check_copies(ForgetsInCopies(), ways=("pickle",))


@pytest.mark.slow
def test_spawned_copies_differ():
    """A copy that only goes wrong in a spawned process is found there."""
    check_copies(ForgetsInCopies(), ways=("fork",))
    with pytest.raises(AssertionError, match="copy by spawn goes on after 10 samples"):
        check_copies(ForgetsInCopies(), ways=("spawn",), timeout=SPAWN_SECONDS)


def test_loader_gives_twice_or_not():
    """Samples that come too often or not at all are counted."""
    with pytest.raises(AssertionError, match="gives 20 samples, 10 expected: 10 too many"):
        check_loader(NotShared())
    with pytest.raises(AssertionError, match="gives 8 samples, 10 expected: 2 missing"):
        check_loader(LosesLast())
    with pytest.raises(AssertionError, match="pipe without sharding_filter"):
        check_loader(IterableWrapper(range(10)))


def test_break_leaves_something():
    """Threads and sockets that outlive the loop are named."""
    thread, sock = LeavesThread(), LeavesSocket()
    try:
        with pytest.raises(AssertionError, match="left behind: thread left-behind"):
            check_early_break(thread, patience=0.2)
        with pytest.raises(AssertionError, match=r"left behind: socket:\["):
            check_early_break(sock, patience=0.2)
    finally:
        thread.stop.set()
        sock.socket.close()


@pytest.mark.parametrize(
    "error",
    [
        ObjectNotFound("no such object", url="ais://b/o", status=404, attempts=1),
        CorruptShard("member 3 at 1536 is cut", url="ais://b/s.tar"),
        ValueError("plain"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_workers(error):
    """Class, message and attributes of our errors arrive."""
    check_worker_error(error)


class TwoArguments(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)


class Forgets(Exception):
    def __init__(self, text, code=0):
        super().__init__(text)
        self.code = code


def test_errors_that_do_not_survive():
    """A class that wants two arguments, or keeps what is not in its text, is told."""
    with pytest.raises(AssertionError, match="TwoArguments through a DataLoader's worker arrives as RuntimeError"):
        check_worker_error(TwoArguments(1, "x"))
    with pytest.raises(AssertionError, match=r"lost .code: 0, not 7"):
        check_worker_error(Forgets("x", 7))
