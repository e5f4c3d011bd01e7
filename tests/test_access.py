"""Clusters that want tokens: who is let in gets the data, and who is not gets `Denied`, which says what to do."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from aistore.sdk import Client
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISFileLister,
    AISIterDataset,
    AISMapDataset,
    AISShardReader,
    ClientConfig,
    ConfigError,
    Denied,
    FetchPlan,
    Manifest,
    RetryPolicy,
    ShardWriter,
)
from aisdatapipes.devserver import DevCluster
from tests.cluster import LocalCluster, aisnode

OBJECTS = {f"o{number:03}": f"{number}".encode() * 9 for number in range(60)}
# Bits of AIStore's api/apc/access.go: GET, HEAD of objects and buckets, lists of objects and buckets.
READ_ONLY = sum(1 << bit for bit in (0, 1, 8, 9, 12))
SHORT = RetryPolicy(attempts=3, first_delay=0.05, deadline=20)


@dataclass
class Guarded:
    """A cluster that wants tokens, and the token of each kind of user."""

    endpoint: str
    tokens: dict[str, str | None] = field(default_factory=dict)

    def config(self, user: str, **options) -> ClientConfig:
        return ClientConfig(self.endpoint, token=self.tokens[user], retry=SHORT, **options)


@pytest.fixture(
    scope="module", params=[pytest.param(leg, marks=getattr(pytest.mark, leg)) for leg in ("embedded", "real")]
)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    if request.param == "embedded":
        with DevCluster(targets=2, token={"T0KEN-rw": "rw", "T0KEN-ro": "ro"}) as cluster:
            tokens = {"admin": "T0KEN-rw", "reader": "T0KEN-ro", "expired": "T0KEN-of-old", "none": None}
            yield _filled(Guarded(cluster.endpoint, tokens))
    elif aisnode() is None:
        pytest.skip("no aisnode on PATH to start a cluster of this kind with")
    else:
        with LocalCluster(targets=2, authn_secret="secret") as real:
            bucket = {"name": "b", "provider": "ais", "namespace": {"uuid": real.uuid, "name": ""}}
            tokens = {
                "admin": real.token,
                "reader": real.token_for(clusters=[{"id": real.uuid, "perm": str(READ_ONLY)}]),
                "reader of the bucket": real.token_for(buckets=[{"bck": bucket, "perm": str(READ_ONLY)}]),
                "expired": real.token_for(admin=True, valid_s=-60),
                "nobody": real.token_for(),
                "none": None,
            }
            yield _filled(Guarded(real.endpoint, tokens))


def _filled(guarded: Guarded) -> Guarded:
    bucket = Client(guarded.endpoint, token=guarded.tokens["admin"]).bucket("b").create()
    for name, data in OBJECTS.items():
        bucket.object(name).get_writer().put_content(data)
    with ShardWriter("ais://b/shards/%d.tar", config=guarded.config("admin")) as writer:
        writer.write({"__key__": "a", "txt": b"text"})
    return guarded


def has(guarded: Guarded, user: str) -> str:
    if user not in guarded.tokens:
        pytest.skip("the embedded cluster has no such user")
    return user


@pytest.mark.parametrize("strategy", ["get", "batch", "ranges"])
@pytest.mark.parametrize("user", ["admin", "reader", "reader of the bucket"])
def test_who_may_read_reads(guarded, user, strategy):
    """By every strategy, also where the token does not allow a look at the cluster map, as those of readers."""
    config = guarded.config(has(guarded, user))
    fetch = FetchPlan(strategy=strategy, range_bytes=4)
    found = AISIterDataset("ais://b/", {"ais://b/": "o"}, config=config, fetch=fetch)
    assert dict(found) == OBJECTS
    assert [stream.read() for _, stream in AISFileLister("ais://b/o00", config).ais_load_files(config)] == list(
        OBJECTS.values()
    )[:10]
    assert AISMapDataset("ais://b/o001", config=config)[0] == ("o001", OBJECTS["o001"])
    for index in ("auto", "client"):
        reader = AISShardReader("ais://b/", {"ais://b/": "shards/"}, config=config, index=index)
        assert [(key, dict(sample)) for key, sample in reader] == [("a", {"txt": b"text"})]


@pytest.mark.parametrize("user", ["reader", "reader of the bucket"])
def test_who_may_only_read_does_not_write(guarded, user):
    """`Denied`, once, with the cluster's words."""
    config = guarded.config(has(guarded, user))
    with (
        pytest.raises(Denied, match=r"permission.* ask for a role that does") as caught,
        ShardWriter("ais://b/w%d.tar", config=config) as writer,
    ):
        writer.write({"__key__": "a", "txt": b"text"})
    assert (caught.value.status, caught.value.attempts) == (403, 1)


@pytest.mark.parametrize(("user", "status", "says"), [
    ("expired", 401, "pass a valid token"), ("none", 401, "token required; pass a valid token"), ("nobody", 403, "ask for a role"),
])  # fmt: skip
def test_who_may_not_read_is_told_what_to_do(guarded, user, status, says):
    """`Denied` at the first try, whatever is read; nothing is tried again."""
    config = guarded.config(has(guarded, user))
    for things in (
        AISIterDataset("ais://b/", config=config),
        AISIterDataset("ais://b/o001", config=config, fetch=FetchPlan(strategy="get")),
        AISFileLister("ais://b/", config),
        IterableWrapper(["ais://b/o001"]).ais_load_files(config),
        AISShardReader("ais://b/", {"ais://b/": "shards/"}, config=config),
    ):
        with pytest.raises(Denied, match=says) as caught:
            list(things)
        assert (caught.value.status, caught.value.attempts) == (status, 1)


@pytest.mark.parametrize("user", ["expired", "none", "nobody"])
@pytest.mark.parametrize("call", [AISMapDataset, Manifest.of])
def test_what_lists_at_once_is_denied_at_once(guarded, user, call):
    """Constructors that list."""
    with pytest.raises(Denied):
        call("ais://b/", config=guarded.config(has(guarded, user)))


# ---- a token that is replaced


@pytest.fixture
def kept(tmp_path):
    """Writes the token file, as others do: the new one takes the place of the old one."""
    path = tmp_path / "token"

    def write(text: str) -> str:
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)
        return str(path)

    return write


FORMS = {"text": "{}", "a line": "{}\n", "of the command line": '{{"token": "{}"}}'}


@pytest.mark.parametrize("form", FORMS)
def test_a_token_from_a_file(guarded, kept, form):
    """As text or as AIStore's own command line keeps it."""
    path = kept(FORMS[form].format(guarded.tokens["admin"]))
    config = ClientConfig(guarded.endpoint, token_file=path, retry=SHORT)
    assert dict(AISIterDataset("ais://b/", {"ais://b/": "o"}, config=config)) == OBJECTS


def test_a_token_is_replaced_while_an_epoch_runs(guarded, kept):
    """Requests take what is in the file then: an epoch goes on with the new token, and fails with one that is bad."""
    config = ClientConfig(guarded.endpoint, token_file=kept(guarded.tokens["admin"]), retry=SHORT)
    fetch = FetchPlan(strategy="get", width=1)
    samples = iter(AISIterDataset("ais://b/", {"ais://b/": "o"}, config=config, fetch=fetch))
    found = [next(samples) for _ in range(20)]
    kept(guarded.tokens["reader"])
    found += list(samples)
    assert dict(found) == OBJECTS
    kept(guarded.tokens["expired"])
    with pytest.raises(Denied):
        list(AISIterDataset("ais://b/", config=config))
    kept(guarded.tokens["admin"])
    assert len(list(AISIterDataset("ais://b/", {"ais://b/": "o"}, config=config))) == len(OBJECTS)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_take_the_token_from_the_file(guarded, kept, start, request):
    """Also those that get the dataset by pickle, in which the token is not."""
    if start == "spawn" and "real" in request.node.name:
        pytest.skip("a new interpreter takes seconds, and knows nothing of the cluster's kind")
    config = ClientConfig(guarded.endpoint, token_file=kept(guarded.tokens["reader"]), retry=SHORT)
    dataset = AISIterDataset("ais://b/", {"ais://b/": "o"}, config=config)
    assert guarded.tokens["reader"].encode() not in pickle.dumps(dataset)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context=multiprocessing.get_context(start)
    )
    assert dict(loader) == OBJECTS


@pytest.mark.parametrize("text", ["", "two words", "{", "{}", '{"token": 3}', "a\nb", "é", "\0"])
def test_files_without_a_token(kept, text):
    """An error that names the file and shows nothing of it."""
    config = ClientConfig("http://127.0.0.1:1", token_file=kept(text))
    with pytest.raises(Denied, match="has no token in it") as caught:
        list(AISIterDataset("ais://b/o", config=config))
    assert not text.strip() or text not in str(caught.value).replace(config.token_file, "")


def test_no_such_file(tmp_path):
    """It is named."""
    with pytest.raises(Denied, match=r"cannot read the token file .*gone"):
        list(AISIterDataset("ais://b/o", config=ClientConfig("http://127.0.0.1:1", token_file=str(tmp_path / "gone"))))


def test_tokens_that_cannot_be(monkeypatch):
    """Two of them, and one that would be a header of its own; the message does not show it."""
    with pytest.raises(ConfigError, match="not both"):
        ClientConfig("http://h:1", token="a", token_file="b")
    for token in ("a\r\nX-Evil: 1", "a b", "é", "a\0"):
        with pytest.raises(ConfigError, match="one word") as caught:
            ClientConfig("http://h:1", token=token)
        assert token not in str(caught.value)
    monkeypatch.setenv("AIS_AUTHN_TOKEN_FILE", "/file")
    assert ClientConfig.of("http://h:1").token_file == "/file"
    monkeypatch.setenv("AIS_AUTHN_TOKEN", "t")
    assert (ClientConfig.of("http://h:1").token_file, ClientConfig.of("http://h:1").token) == (None, "t")
    assert json.dumps(ClientConfig.of("http://h:1").at("http://other:1").token) == "null"
