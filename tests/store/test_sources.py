"""What is taken from the SDK's objects."""

from __future__ import annotations

import pickle

import pytest
from aistore.sdk import Client
from aistore.sdk.dataset.data_shard import DataShard
from aistore.sdk.namespace import Namespace

from aisdatapipes.model.config import A_LONG_TIME, ClientConfig
from aisdatapipes.model.errors import ConfigError, InvalidURL
from aisdatapipes.store.source import config_of, source_of

ENDPOINT = "http://h:8080"


@pytest.fixture(autouse=True)
def env(monkeypatch):
    for name in ("ENDPOINT", "AUTHN_TOKEN", "CLIENT_CA", "CRT", "CRT_KEY", "SKIP_VERIFY_CRT", "SKIP_VERIFY",
                 "CONNECT_TIMEOUT", "READ_TIMEOUT"):  # fmt: skip
        monkeypatch.delenv(f"AIS_{name}", raising=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"token": "t"}, {"token": "t"}),
        ({"timeout": (1.5, 7)}, {"connect_timeout": 1.5, "read_timeout": 7}),
        ({"timeout": 4}, {"connect_timeout": 4, "read_timeout": 4}),
        ({"timeout": (None, 5)}, {"connect_timeout": A_LONG_TIME, "read_timeout": 5}),
        pytest.param({"skip_verify": True}, {"verify": False}, marks=pytest.mark.filterwarnings("ignore:Skipping SSL")),
        ({"client_cert": ("c.pem", "k.pem")}, {"client_cert": ("c.pem", "k.pem")}),
    ],
)
def test_a_client_is_a_config(options, expected):
    """What a client of the SDK was told is what we do."""
    assert config_of(Client(ENDPOINT, **options)) == ClientConfig(ENDPOINT, **expected)


def test_an_authority_of_a_client(tmp_path):
    """The client's authority is ours."""
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    assert config_of(Client(ENDPOINT, ca_cert=str(authority))).ca_file == str(authority)


def described(source):
    return (str(source.bucket), source.prefixes, source.names, source.etl_name, source.config)


def test_things_of_the_sdk():
    """Each kind of thing stands for its bucket, its names and its ETL."""
    client, config = Client(ENDPOINT, token="t"), ClientConfig(ENDPOINT, token="t")
    bucket = client.bucket("b")
    assert described(source_of(bucket)) == ("ais://b", ("",), None, None, config)
    assert described(source_of(client.bucket("b", provider="aws"))) == ("aws://b", ("",), None, None, config)
    named = client.bucket("b", namespace=Namespace(uuid="u", name="n"))
    assert described(source_of(named)) == ("ais://@u#n/b", ("",), None, None, config)
    assert described(source_of(named.object("o"))) == ("ais://@u#n/b", ("",), ("o",), None, config)
    group = bucket.objects(obj_names=["x", "y"])
    assert described(source_of(group)) == ("ais://b", ("",), ("x", "y"), None, config)
    assert described(source_of(bucket.object("a/o"))) == ("ais://b", ("",), ("a/o",), None, config)
    shard = DataShard(ENDPOINT, "b", prefix="train/", etl_name="e")
    assert described(source_of(shard)) == ("ais://b", ("train/",), None, "e", ClientConfig(ENDPOINT))


def test_urls():
    """A URL stands for the names that begin with it; its own endpoint wins where none is given."""
    config = ClientConfig(ENDPOINT)
    assert described(source_of("ais://b/pre", config)) == ("ais://b", ("pre",), None, None, config)
    text = f"{ENDPOINT}/v1/objects/b/pre?provider=aws&etl_name=e"
    assert described(source_of(text)) == ("aws://b", ("pre",), None, "e", config)


def test_sources_travel():
    """A source has nothing of the SDK's sessions: it is pickled, and shows no token."""
    source = source_of(Client(ENDPOINT, token="s3cret").bucket("b"))
    assert (pickle.loads(pickle.dumps(source)) == source, "s3cret" in repr(source)) == (True, False)


def test_what_is_no_source():
    """Anything else is an error that lists what is one."""
    for thing in (3, None, ["ais://b"]):
        with pytest.raises(ConfigError, match="expected a Bucket"):
            source_of(thing)
    with pytest.raises(InvalidURL):
        source_of("b")
    with pytest.raises(ConfigError, match="AIS_ENDPOINT"):
        source_of("ais://b")
