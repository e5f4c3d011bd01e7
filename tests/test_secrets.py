"""Tokens and certificates reach the cluster and nobody else."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import pickle
import traceback

import pytest
from aistore.sdk import Client
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISIterDataset,
    AISMapDataset,
    AISSampler,
    AISShardReader,
    ClientConfig,
    Denied,
    Manifest,
    ObjectNotFound,
    ShardWriter,
    WorkerRequestClient,
)
from aisdatapipes.devserver import DevCluster

TOKEN = "T0KEN-of-a-test"
WRONG = "WR0NG-of-a-test"


@pytest.fixture(scope="module")
def guarded():
    """A cluster that wants a token."""
    with DevCluster(targets=2, token=TOKEN) as cluster:
        cluster.create_bucket("b")
        cluster.put("b", "a", b"1")
        yield cluster


def shown(*things):
    return " ".join(f"{thing} {thing!r}" for thing in things)


def test_values_do_not_show_a_token(guarded):
    """No repr and no text of a config, dataset, pipe or client has the token in it, nor that of an unpickled copy."""
    config = ClientConfig(guarded.endpoint, token=TOKEN)
    bucket = Client(guarded.endpoint, token=TOKEN).bucket("b")
    dataset = AISIterDataset(bucket)
    pipe = IterableWrapper(["ais://b/"]).ais_list_files(config).ais_load_files(config)
    assert list(dataset) == [("a", b"1")]
    assert [stream.read() for _, stream in pipe] == [b"1"]
    things = [config, dataset, AISMapDataset(bucket), pipe, dataset.stats(), pipe.stats()]
    copies = [pickle.loads(pickle.dumps(thing)) for thing in things]
    assert TOKEN not in shown(*things, *copies, WorkerRequestClient(bucket.client))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_do_not_show_a_token(guarded, workers):
    """Messages and attributes of errors have no token in them, also those that come out of workers."""
    for token, error in ((TOKEN, ObjectNotFound), (WRONG, Denied)):
        config = ClientConfig(guarded.endpoint, token=token)
        dataset = AISIterDataset(Client(guarded.endpoint).bucket("b").object("gone"), config=config)
        with pytest.raises(error) as caught:
            list(DataLoader(dataset, batch_size=None, num_workers=workers))
        assert token not in shown(caught.value, vars(caught.value), caught.value.__cause__, caught.value.__context__)


def test_logs_do_not_show_a_token(guarded, caplog, capfd):
    """With every message shown, reading and failing write no token."""
    caplog.set_level(logging.DEBUG)
    bucket = Client(guarded.endpoint).bucket("b")
    group = bucket.objects(obj_names=["gone", "a"])
    dataset = AISIterDataset(
        group, config=ClientConfig(guarded.endpoint, token=TOKEN), on_error="skip", show_progress=True
    )
    assert list(dataset) == [("a", b"1")]
    assert "gone" in caplog.text
    out, err = capfd.readouterr()
    assert TOKEN not in caplog.text + out + err


def test_what_is_kept_has_no_token(guarded, tmp_path):
    """Plans, states, counts and manifests say nothing of it, as text, as files, and in their pickles but one."""
    config = ClientConfig(guarded.endpoint, token=TOKEN)
    dataset = AISIterDataset("ais://b/", config=config, shuffle=True)
    mapped = AISMapDataset("ais://b/", config=config)
    sampler = AISSampler(mapped, batch_size=1)
    manifest = Manifest.of("ais://b/", config=config)
    manifest.save(str(tmp_path / "manifest.npz"))
    states = [dataset.state_dict(), sampler.state_dict(), dataset.stats(), mapped.stats()]
    plans = [dataset.plan(), sampler.plan()]
    assert TOKEN not in shown(manifest, *states, *plans, *plans[0], json.dumps(states[:2]))
    assert TOKEN.encode() not in (tmp_path / "manifest.npz").read_bytes()
    assert TOKEN.encode() not in pickle.dumps(states)


def test_pickles(guarded, tmp_path):
    """A pickle has the token where a spawned worker needs it from there; with a token file it has the path only."""
    (tmp_path / "token").write_text(TOKEN)
    by_file = ClientConfig(guarded.endpoint, token_file=str(tmp_path / "token"))
    for config, expected in ((ClientConfig(guarded.endpoint, token=TOKEN), True), (by_file, False)):
        pipe = IterableWrapper(["ais://b/"]).ais_list_files(config).ais_load_files(config)
        things = [config, pipe, AISIterDataset("ais://b/", config=config), AISMapDataset("ais://b/", config=config)]
        things += [AISShardReader("ais://b/", config=config), Manifest.of("ais://b/", config=config)]
        for thing in things:
            assert len(list(things[2])) == 1
            assert (TOKEN.encode() in pickle.dumps(thing)) == expected, thing
            assert TOKEN not in shown(thing)


class Dying(AISIterDataset):
    """Ends its worker in the middle, with all that a crash report has."""

    def __iter__(self):
        for sample in super().__iter__():
            faulthandler.dump_traceback()
            os._exit(3)
            yield sample


class Failing:
    """A user's code that fails in the middle; torch sends its traceback as text."""

    def __init__(self, config):
        self.config = config

    def __call__(self, name):
        local = self.config
        raise ValueError(f"{name} {local}")


@pytest.mark.parametrize("workers", [0, 1])
def test_tracebacks_do_not_show_a_token(guarded, workers):
    """Neither that of a user's error inside a worker, with everything on its way, nor that of a worker that dies."""
    config = ClientConfig(guarded.endpoint, token=TOKEN)
    dataset = AISIterDataset("ais://b/", config=config, name_filter=Failing(config))
    pipe = IterableWrapper(["ais://b/"]).ais_list_files(config, name_filter=Failing(config)).ais_load_files(config)
    for thing in (dataset, pipe):
        with pytest.raises(ValueError, match="a ClientConfig") as caught:
            list(DataLoader(thing, batch_size=None, num_workers=workers))
        assert TOKEN not in "".join(traceback.format_exception(caught.value)) + shown(caught.value, vars(caught.value))


def test_a_worker_that_dies(guarded, capfd):
    """What it leaves behind on the standard error, and what the loader says of it."""
    config = ClientConfig(guarded.endpoint, token=TOKEN)
    with pytest.raises(RuntimeError, match="exited unexpectedly") as caught:
        list(DataLoader(Dying("ais://b/", config=config), batch_size=None, num_workers=1))
    printed = "".join(capfd.readouterr())
    assert "most recent call first" in printed
    assert TOKEN not in printed + "".join(traceback.format_exception(caught.value))


def test_writers_do_not_show_a_token(guarded):
    """Nor what is written."""
    config = ClientConfig(guarded.endpoint, token=TOKEN)
    with ShardWriter("ais://b/shards/%d.tar", config=config) as writer:
        writer.write({"__key__": "a", "txt": b"text"})
        assert TOKEN not in shown(writer, vars(writer))
    assert TOKEN.encode() not in guarded.get("b", "shards/0.tar")


def test_certificates_do_not_show(tmp_path):
    """What stands in the files of a client's certificate is in no repr, and no pickle carries it."""
    file = tmp_path / "client.pem"
    file.write_text("PR1VATE-KEY-of-a-test")
    config = ClientConfig("https://localhost:1", client_cert=str(file), token=TOKEN)
    assert "PR1VATE" not in shown(config)
    assert b"PR1VATE" not in pickle.dumps(config)
    assert TOKEN not in shown(config)
