"""Configs: one form for every endpoint, the SDK's environment, and values that are checked when they are made."""

from __future__ import annotations

import pickle

import pytest

from aisdatapipes.model.config import A_LONG_TIME, ClientConfig, FetchPlan, RetryPolicy, endpoint_url
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.world import World

ENDPOINTS = [
    ("localhost:8080", "http://localhost:8080"),
    ("http://h:1", "http://h:1"),
    ("http://h:1/", "http://h:1"),
    ("http://h:1/v1", "http://h:1"),
    ("http://h:1/v1/", "http://h:1"),
    ("https://ais.example", "https://ais.example"),
    ("HTTPS://AIS.Example:443/pre/", "https://ais.example:443/pre"),
    (" h:1 ", "http://h:1"),
    (" http://h:1\n", "http://h:1"),
    ("http://[::1]:8080", "http://[::1]:8080"),
    ("h", "http://h"),
]


@pytest.mark.parametrize(("text", "url"), ENDPOINTS)
def test_endpoints(text, url):
    """However an endpoint is written, there is one form of it, and that form is its own."""
    assert (endpoint_url(text), endpoint_url(url)) == (url, url)


@pytest.mark.parametrize(
    "text",
    ["", "  ", None, 8080, "ftp://h", "http://", "://h", "h:port", "h:99999", "http://[::1", "http://u:p@h",
     "http://h?x=1", "http://h#x", "ais://bucket"],
)  # fmt: skip
def test_bad_endpoints(text):
    """What is no endpoint is a `ConfigError` that shows one."""
    with pytest.raises(ConfigError, match=r"http|token="):
        endpoint_url(text)


def test_a_password_in_an_endpoint_is_not_repeated():
    """The message about a password in an endpoint does not show it."""
    with pytest.raises(ConfigError) as caught:
        endpoint_url("http://user:hunter2@h")
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def env(monkeypatch):
    """An environment without any of the variables."""
    for name in ("ENDPOINT", "AUTHN_TOKEN", "CLIENT_CA", "CRT", "CRT_KEY", "SKIP_VERIFY_CRT", "SKIP_VERIFY",
                 "CONNECT_TIMEOUT", "READ_TIMEOUT"):  # fmt: skip
        monkeypatch.delenv(f"AIS_{name}", raising=False)
    return monkeypatch


def test_environment(env, tmp_path):
    """The variables of the SDK mean here what they mean there."""
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    for name, value in {
        "ENDPOINT": "h:1", "AUTHN_TOKEN": "t", "CLIENT_CA": str(authority), "CRT": "c", "CRT_KEY": "k",
        "SKIP_VERIFY_CRT": "True", "CONNECT_TIMEOUT": "1.5", "READ_TIMEOUT": "0",
    }.items():  # fmt: skip
        env.setenv(f"AIS_{name}", value)
    assert ClientConfig.of(None) == ClientConfig(
        "http://h:1", token="t", ca_file=str(authority), client_cert=("c", "k"), verify=False,
        connect_timeout=1.5, read_timeout=A_LONG_TIME,
    )  # fmt: skip


def test_an_endpoint_wins_over_the_environment(env):
    """An endpoint that is given counts; the rest still comes from the environment."""
    env.setenv("AIS_ENDPOINT", "h:1")
    env.setenv("AIS_AUTHN_TOKEN", "t")
    assert ClientConfig.of("other:2") == ClientConfig("http://other:2", token="t")


def test_an_empty_environment(env):
    """Without any variable the defaults hold, and without an endpoint the message says what to do."""
    assert ClientConfig.of("h:1") == ClientConfig("h:1")
    with pytest.raises(ConfigError, match="AIS_ENDPOINT"):
        ClientConfig.of(None)


@pytest.mark.parametrize(("name", "value"), [("CONNECT_TIMEOUT", "soon"), ("CLIENT_CA", "/no/such/file")])
def test_a_bad_environment(env, name, value):
    """A variable that makes no sense is a `ConfigError` that shows its value."""
    env.setenv(f"AIS_{name}", value)
    with pytest.raises(ConfigError, match=value):
        ClientConfig.of("h:1")


def test_a_config_is_used_as_it_is(env):
    """A config that is given is not mixed with the environment."""
    env.setenv("AIS_AUTHN_TOKEN", "t")
    config = ClientConfig("h:1")
    assert ClientConfig.of(config) is config
    with pytest.raises(ConfigError):
        ClientConfig.of(3)


def test_secrets_are_not_shown():
    """Neither token nor certificate is part of a repr, in whatever it is wrapped."""
    config = ClientConfig("h:1", token="s3cret", client_cert=("cert.pem", "key.pem"))
    assert [word for word in ("s3cret", "cert.pem", "key.pem") if word in repr([config])] == []


def test_a_token_stays_at_its_endpoint():
    """For another endpoint the config is the same without the token."""
    config = ClientConfig("h:1", token="t", connect_timeout=1.0)
    assert config.at("http://H:1/") is config
    assert config.at("h:2") == ClientConfig("h:2", connect_timeout=1.0)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (RetryPolicy, {"attempts": 0}),
        (RetryPolicy, {"first_delay": -1}),
        (RetryPolicy, {"max_delay": -0.1}),
        (RetryPolicy, {"deadline": 0}),
        (RetryPolicy, {"deadline": float("nan")}),
        (RetryPolicy, {"attempts": "3"}),
        (FetchPlan, {"strategy": "fast"}),
        (FetchPlan, {"width": 0}),
        (FetchPlan, {"width": 1.5}),
        (FetchPlan, {"batch_objects": 0}),
        (FetchPlan, {"range_bytes": 0}),
        (FetchPlan, {"window_bytes": -1}),
        (FetchPlan, {"window_bytes": None}),
        (ClientConfig, {"endpoint": "h", "connect_timeout": 0}),
        (ClientConfig, {"endpoint": "h", "read_timeout": -1}),
        (ClientConfig, {"endpoint": "h", "read_timeout": None}),
        (ClientConfig, {"endpoint": "h", "retry": 3}),
        (ClientConfig, {"endpoint": "h", "ca_file": "/no/such/file"}),
        (World, {"rank": 1}),
        (World, {"rank": -1, "world_size": 2}),
        (World, {"world_size": 0}),
        (World, {"worker": 2, "num_workers": 2}),
        (World, {"num_workers": 0}),
    ],
)
def test_values_are_checked(kind, arguments):
    """A value that cannot work is a `ConfigError` that names the argument."""
    with pytest.raises(ConfigError) as caught:
        kind(**arguments)
    assert next(name for name in reversed(arguments) if name != "endpoint") in str(caught.value)


@pytest.mark.parametrize("value", [RetryPolicy(), FetchPlan(), ClientConfig("h", token="t"), World(1, 2, 3, 4)])
def test_values_travel(value):
    """Pickled, a value is equal and hashes equal: it is a key of the pool."""
    copy = pickle.loads(pickle.dumps(value))
    assert (copy, hash(copy)) == (value, hash(value))
