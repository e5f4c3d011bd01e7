"""Tokens and certificates reach the cluster and nobody else."""

from __future__ import annotations

import logging
import pickle

import pytest
from aistore.sdk import Client
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import AISIterDataset, AISMapDataset, ClientConfig, Denied, ObjectNotFound, WorkerRequestClient
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


def test_certificates_do_not_show(tmp_path):
    """What stands in the files of a client's certificate is in no repr, and no pickle carries it."""
    file = tmp_path / "client.pem"
    file.write_text("PR1VATE-KEY-of-a-test")
    config = ClientConfig("https://localhost:1", client_cert=str(file), token=TOKEN)
    assert "PR1VATE" not in shown(config)
    assert b"PR1VATE" not in pickle.dumps(config)
    assert TOKEN not in shown(config)
