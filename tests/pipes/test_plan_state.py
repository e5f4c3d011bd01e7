"""State of a plan: exact at the end of a chain, whatever reads ahead in between."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import warnings

import pytest
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import AISURL, AISFileLister, AISPipeDataset, ConfigError, NotResumable, World
from tests.datasets.samples import numbered
from tests.environments import CHECKOUT, path_with, run

ITEMS = [f"ais://b/{i:02d}" for i in range(23)]
OBJECTS = {f"o/{i:02d}": bytes([i]) * (i + 1) for i in range(20)}
PLAN = {"shuffle": True, "seed": 3}


def tail(text):
    return text[-2:]


def even_number(text):
    return int(text[-2:]) % 2 == 0


def named(pair):
    return pair[0].name


def keep(pair):
    return pair[0].name[-1] != "7"


def key(sample):
    return sample[0]


def url_of(text):
    return AISURL.parse(str(text))


CHAINS = {
    "plan": lambda p: p,
    "map": lambda p: p.map(tail),
    "filter": lambda p: p.filter(even_number),
    "batch": lambda p: p.batch(4),
    "map, filter, batch": lambda p: p.map(tail).filter(even_number).batch(3).map(tuple),
}


def cuts(make, epochs=3):
    """Every cut of the second epoch: (what came before, the planner's state, what should come after)."""
    planner, chain = make()
    whole = [list(chain) for _ in range(epochs)]
    assert whole[0] != whole[1]
    for cut in range(1, len(whole[1]) + 1):
        planner, chain = make()
        list(chain)
        passing = iter(chain)
        assert list(itertools.islice(passing, cut)) == whole[1][:cut]
        state = json.loads(json.dumps(planner.state_dict()))
        yield cut, state, whole
        del passing


def check_cuts(make):
    for cut, state, whole in cuts(make):
        planner, chain = make()
        planner.load_state_dict(state)
        rest = list(chain)
        if cut < len(whole[1]):
            assert (rest, list(chain)) == (whole[1][cut:], whole[2])
        else:
            assert rest in ([], whole[2])  # a filter may not have seen yet that nothing follows


@pytest.mark.parametrize("name", CHAINS)
def test_every_cut_of_a_chain(name):
    """Mapped, filtered, batched: the next sample is the next one."""

    def make():
        planner = IterableWrapper(ITEMS).ais_plan(**PLAN)
        return planner, CHAINS[name](planner)

    check_cuts(make)


LOADED = {
    "load": lambda p, e: p.ais_load_files(e).map(named),
    "load after map": lambda p, e: p.map(url_of).ais_load_files(e).map(named),
    "load and filter": lambda p, e: p.ais_load_files(e).filter(keep).map(named),
    "filter and load": lambda p, e: p.filter(even_number).ais_load_files(e).map(named),
    "load and batch": lambda p, e: p.ais_load_files(e).map(named).batch(3),
    "load batches": lambda p, e: p.batch(3).map(tuple).map(first).ais_load_files(e).map(named),
}


def first(batch):
    return batch[0]


@pytest.mark.parametrize("name", LOADED)
def test_every_cut_of_a_chain_that_loads(embedded_bucket, name):
    """The loader reads ahead, and tells the plan what it handed out."""
    embedded_bucket.fill(OBJECTS)

    def make():
        planner = AISFileLister(f"{embedded_bucket.url}o/", embedded_bucket.endpoint).ais_plan(**PLAN)
        return planner, LOADED[name](planner, embedded_bucket.endpoint)

    check_cuts(make)


@pytest.mark.parametrize("between", ["", "map"])
def test_every_cut_of_shards(bucket, between):
    """Inside a shard: its samples that came are passed over, and the shards before it are not read again."""
    for number in range(4):
        bucket.put(f"s/{number}.tar", numbered(5 * number, 5 * number + 4 - number % 2))

    def make():
        planner = AISFileLister(f"{bucket.url}s/", bucket.endpoint).ais_plan(**PLAN)
        loader = planner.ais_load_files(bucket.endpoint)
        chain = loader.map(tuple) if between else loader
        return planner, chain.ais_read_shards(fields=("txt",)).map(key)

    check_cuts(make)


def test_skipped_objects_count(embedded_bucket):
    """What the loader leaves out is consumed."""
    embedded_bucket.fill(OBJECTS)
    urls = [f"{embedded_bucket.url}{name}" for name in OBJECTS]
    urls[3] = urls[9] = urls[19] = f"{embedded_bucket.url}o/missing"

    def make():
        planner = IterableWrapper(urls).ais_plan()
        return planner, planner.ais_load_files(embedded_bucket.endpoint, on_error="skip").map(named)

    planner, chain = make()
    whole = list(chain)
    assert len(whole) == 17
    for cut in range(1, 17):
        planner, chain = make()
        passing = iter(chain)
        list(itertools.islice(passing, cut))
        state = planner.state_dict()
        planner, chain = make()
        planner.load_state_dict(state)
        assert list(chain) == whole[cut:]


def test_it_costs_what_is_left(embedded_bucket):
    """Only what is left is asked for."""
    embedded_bucket.fill(OBJECTS)
    planner = AISFileLister(f"{embedded_bucket.url}o/", embedded_bucket.endpoint).ais_plan(**PLAN)
    planner.load_state_dict(planner.state_dict(batches=13))
    loader = planner.ais_load_files(embedded_bucket.endpoint)
    assert (len(list(loader)), loader.stats()["objects"], loader.stats()["requests"] <= 7) == (7, 7, True)


def test_batches_in_a_dataloader():
    """In the main process, while workers read: the batches that the training took; resumed on another world."""
    planner = IterableWrapper(ITEMS).ais_plan(batch_size=4, **PLAN)
    loader = DataLoader(planner.map(tail), batch_size=4, num_workers=2)
    epochs = [list(loader) for _ in range(2)]
    assert planner.state_dict(batches=0)["epoch"] == 2
    state = planner.state_dict(batches=2, epoch=1)
    ranks = []
    for rank in range(3):
        later = IterableWrapper(ITEMS).ais_plan(batch_size=2, even="none", world=World(rank, 3), **PLAN)
        later.load_state_dict(state)
        ranks += itertools.chain(*DataLoader(later.map(tail), batch_size=2, num_workers=2))
    flat = list(itertools.chain(*epochs[1]))
    assert sorted(ranks) == sorted(flat[8:])


@pytest.fixture(scope="module")
def dataloader2():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata says that it will end
        return pytest.importorskip("torchdata.dataloader2")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_dataloader2(dataloader2, workers):
    """DataLoader2 copies the chain: the state is asked of the plan that it was made of, and loaded into it before."""

    def loader(state=None):
        planner = IterableWrapper(ITEMS).ais_plan(**PLAN)
        if state is not None:
            planner.load_state_dict(state)
        service = dataloader2.InProcessReadingService()
        if workers:
            service = dataloader2.MultiProcessingReadingService(workers, "fork", main_prefetch_cnt=0)
        return planner, dataloader2.DataLoader2(planner.map(tail), reading_service=service)

    def read(one):
        try:
            return list(one)
        finally:
            one.shutdown()

    planner, one = loader()
    whole = read(one)
    _, two = loader(planner.state_dict(batches=9, epoch=0))
    assert read(two) == whole[9:]


def test_epochs_and_copies():
    """The loaded epoch keeps its position, a copy takes the loaded state along, a copy of a plan in use begins anew."""
    planner = IterableWrapper(ITEMS).ais_plan(**PLAN)
    whole = [list(planner) for _ in range(2)]
    planner.load_state_dict(planner.state_dict(batches=5, epoch=1))
    planner.set_epoch(1)
    copy = pickle.loads(pickle.dumps(planner))
    assert list(planner) == list(copy) == whole[1][5:]
    planner.set_epoch(0)
    passing = iter(planner)
    next(passing)
    copy = pickle.loads(pickle.dumps(planner))
    copy.set_epoch(0)
    assert list(copy) == whole[0]


def test_what_cannot_go_on():
    """Other items, sizes, or seed; and chains in which nobody can see what was consumed."""
    state = IterableWrapper(ITEMS).ais_plan(**PLAN).state_dict(batches=3)
    for items in (ITEMS[1:], ITEMS[::-1], [AISURL.parse(ITEMS[0]), *ITEMS[1:-1], "ais://b/new"]):
        other = IterableWrapper(items).ais_plan(**PLAN)
        other.load_state_dict(state)
        with pytest.raises(NotResumable, match="of other items"):
            next(iter(other))
    with pytest.raises(NotResumable, match="seed 3, this order has seed 4"):
        IterableWrapper(ITEMS).ais_plan(shuffle=True, seed=4).load_state_dict(state)


def test_sizes_tell_items_apart():
    """An object that was overwritten with another size is another one."""
    parsed = [AISURL.parse(url) for url in ITEMS]
    sized = [AISURL.make(url, url.provider, url.bucket, url.name, size=5) for url in parsed]
    prints = [IterableWrapper(urls).ais_plan().state_dict(batches=1)["fingerprint"] for urls in (parsed, sized, ITEMS)]
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_what_hides_is_refused(embedded_bucket):
    """A shuffle between plan and loader is refused by the plan; behind the loader by the adapter, which sees it."""
    embedded_bucket.fill(OBJECTS)
    planner = AISFileLister(embedded_bucket.url, embedded_bucket.endpoint).ais_plan()
    loader = planner.shuffle().ais_load_files(embedded_bucket.endpoint)
    passing = iter(loader)
    next(passing)
    with pytest.raises(NotResumable, match="Shuffler"):
        planner.state_dict()
    assert planner.state_dict(batches=1)["position"] == 1  # this is what was asked for
    plan = IterableWrapper(ITEMS).ais_plan()
    for chain in (plan.shuffle(), plan.batch(2).unbatch(), plan.map(tail).shuffle().map(tail)):
        with pytest.raises(ConfigError, match=r"Shuffler|UnBatcher"):
            AISPipeDataset(chain)
    with pytest.raises(ConfigError, match="with ais_plan is needed"):
        AISPipeDataset(IterableWrapper(ITEMS))
    with pytest.raises(ConfigError, match="with ais_plan is needed"):
        AISPipeDataset(ITEMS)


def test_the_adapter_in_a_dataloader():
    """A chain as a dataset: the same batches for any number of workers, its length, its epochs."""

    def data():
        return AISPipeDataset(IterableWrapper(ITEMS).ais_plan(batch_size=4, **PLAN).map(tail))

    assert len(AISPipeDataset(IterableWrapper(ITEMS).ais_plan())) == len(ITEMS)
    epochs = [list(DataLoader(data(), batch_size=4, num_workers=workers)) for workers in (0, 2)]
    assert epochs[0] == epochs[1]
    one = data()
    one.set_epoch(0)
    one.load_state_dict(one.state_dict(batches=3))
    assert list(DataLoader(one, batch_size=4, num_workers=2)) == epochs[0][3:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chain", "chain of shards"])
@pytest.mark.parametrize(
    "which",
    [
        "{}",
        '{"num_workers": 2}',
        '{"num_workers": 2, "persistent_workers": true, "snapshot_every_n_steps": 4}',
        "nodes",
    ],
)
@pytest.mark.parametrize("version", [None, "torchdata-0.11.0"])
def test_stateful_loaders(embedded_bucket, kind, which, version):
    """Every cut, twice, and the epochs after it, in StatefulDataLoader and nodes."""
    if which == "nodes" and version is None:
        pytest.skip("torchdata 0.9 has no nodes")
    embedded_bucket.fill(OBJECTS)
    for number in range(5):
        embedded_bucket.put(f"s/{number}.tar", numbered(4 * number, 4 * number + 4))
    url = f"{embedded_bucket.url}{'s' if kind.endswith('shards') else 'o'}/"
    path = path_with(version) if version else str(CHECKOUT)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.datasets.stateful",
        url,
        embedded_bucket.endpoint,
        kind,
        which,
    ]
    assert int(run(command, PYTHONPATH=path)) >= 6


FORGETFUL = """
import gc
from torch.utils.data.datapipes.iter import IterableWrapper
from aisdatapipes import AISPipeDataset, AISSampler
gc.disable()
data, sampler = AISPipeDataset(IterableWrapper(range(20)).ais_plan().map(str)), AISSampler(range(20))
for thing in (data, sampler):
    thing.begun = iter(thing)  # a cycle, which the end of the program collects
    next(thing.begun)
print("well")
"""


def test_a_program_may_forget_an_iterator():
    """A program that ends with an iteration it has forgotten ends well: torch would abort."""
    assert run([sys.executable, "-W", "ignore", "-c", FORGETFUL], PYTHONPATH=str(CHECKOUT)) == "well\n"
