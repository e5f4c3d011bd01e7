"""How to reach a cluster and how hard to try: frozen values, checked when they are made."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from aisdatapipes.model.errors import ConfigError

_TOKEN = re.compile(r"[!-~]+")

Strategy = Literal["auto", "get", "batch", "ranges"]

MIB = 1 << 20
A_LONG_TIME = 3600.0  # seconds; what "no timeout" means here: nothing may hang for ever


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _check(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{what}, not {got!r}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one object is tried.

    Args:
        attempts: Tries of one object, the first one included.
        first_delay: Seconds before the second try at most; each further limit is twice the one before.
            The delay is drawn evenly between 0 and that limit ("full jitter"), so that workers that
            failed together do not come back together.
        max_delay: Seconds that a single delay can reach; a server's ``Retry-After`` is cut to it too.
        deadline: Seconds for one object over all tries. The default covers a target that is restarted:
            a stock cluster takes 24 s to notice.
    """

    attempts: int = 20
    first_delay: float = 0.1
    max_delay: float = 10.0
    deadline: float = 120.0

    def __post_init__(self) -> None:
        whole = isinstance(self.attempts, int)
        _check(whole and self.attempts >= 1, "RetryPolicy.attempts must be 1 or more", self.attempts)
        for name in ("first_delay", "max_delay"):
            value = getattr(self, name)
            _check(_is_number(value) and value >= 0, f"RetryPolicy.{name} must be 0 or more seconds", value)
        _check(
            _is_number(self.deadline) and self.deadline > 0,
            "RetryPolicy.deadline must be more than 0 seconds",
            self.deadline,
        )


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """How objects are fetched.

    Args:
        strategy: ``"get"`` one GET an object, ``"batch"`` many objects in one request (get-batch), ``"ranges"``
            several parts of one object at a time. ``"auto"`` chooses by size, where the listing told it: up to
            16 KiB get-batch, if the cluster has it, above 8 MiB parts, else GET.
        width: Requests in flight; a get-batch counts as several.
        batch_objects: Objects in one get-batch request, at most.
        range_bytes: Bytes of one part where an object is read in parts.
        window_bytes: Bytes fetched or being fetched that the consumer has not taken yet. One object larger
            than this is still read, alone.
        verify: Compare content with the checksum that the cluster sends.
    """

    strategy: Strategy = "auto"
    width: int = 64
    batch_objects: int = 512
    range_bytes: int = 4 * MIB
    window_bytes: int = 64 * MIB
    verify: bool = True

    def __post_init__(self) -> None:
        choices = get_args(Strategy)
        _check(self.strategy in choices, f"FetchPlan.strategy must be one of {choices}", self.strategy)
        for name in ("width", "batch_objects", "range_bytes", "window_bytes"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value >= 1, f"FetchPlan.{name} must be 1 or more", value)
        _check(isinstance(self.verify, bool), "FetchPlan.verify must be True or False", self.verify)

    @classmethod
    def of(cls, fetch: FetchPlan | None) -> FetchPlan:
        """The plan itself, or the one that is used where none is given."""
        if fetch is None:
            return cls()
        _check(isinstance(fetch, FetchPlan), "fetch must be a FetchPlan, such as FetchPlan('get')", fetch)
        return fetch


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where a cluster is and what it takes to talk to it.

    Args:
        endpoint: Such as ``http://localhost:8080``; without a scheme ``http://`` is meant.
        token: Bearer token; never part of a ``repr`` or a message. It is part of a pickle: a spawned worker needs it.
        token_file: File with the token, in place of ``token``: plain text, or JSON with the key ``token`` as AIStore's
            command line writes it. Each request takes what is in it then, so a token can be replaced while an epoch
            runs; a pickle has its path only.
        ca_file: PEM file of the authority that signed the cluster's certificates.
        client_cert: PEM file, or (certificate, key), that the cluster asks of its clients.
        verify: False accepts any certificate.
        connect_timeout: Seconds to establish one connection.
        read_timeout: Seconds without a byte before a try is given up.
        retry: How often and how long one object is tried.
    """

    endpoint: str
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    client_cert: str | tuple[str, str] | None = field(default=None, repr=False)
    verify: bool = True
    connect_timeout: float = 3.0  # the SDK's default
    read_timeout: float = 20.0  # the SDK's default
    retry: RetryPolicy = RetryPolicy()
    token_file: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", endpoint_url(self.endpoint))
        for name in ("connect_timeout", "read_timeout"):
            value = getattr(self, name)
            _check(_is_number(value) and value > 0, f"ClientConfig.{name} must be more than 0 seconds", value)
            object.__setattr__(self, name, min(value, A_LONG_TIME))  # also of infinity
        _check(isinstance(self.verify, bool), "ClientConfig.verify must be True or False", self.verify)
        _check(isinstance(self.retry, RetryPolicy), "ClientConfig.retry must be a RetryPolicy", self.retry)
        self._check_token()
        if self.ca_file is not None and not os.path.exists(self.ca_file):  # noqa: PTH110 - text, not Path
            raise ConfigError(f"ClientConfig.ca_file does not exist: {self.ca_file}")

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return bool(self.token or self.token_file)

    def _check_token(self) -> None:
        if self.token_file is not None:
            _check(isinstance(self.token_file, str), "ClientConfig.token_file must be a path as text", self.token_file)
            if self.token:
                raise ConfigError("ClientConfig takes token= or token_file=, not both")
        if self.token and not is_token(self.token):
            # A line break in it would be a header of its own. It is not shown: most of it may be right.
            raise ConfigError("ClientConfig.token must be one word of printable ASCII; this one has other characters")

    @classmethod
    def of(cls, where: str | ClientConfig | None) -> ClientConfig:
        """The config itself, or one made of an endpoint and the environment variables that the SDK reads."""
        if isinstance(where, ClientConfig):
            return where
        if where is not None and not isinstance(where, str):
            raise ConfigError(f"an endpoint is a text such as http://localhost:8080, or a ClientConfig, not {where!r}")
        return config_from_environment(where)

    def at(self, endpoint: str) -> ClientConfig:
        """The same, for another endpoint; the token stays behind unless the endpoint is the same."""
        endpoint = endpoint_url(endpoint)
        if endpoint == self.endpoint:
            return self
        return dataclasses.replace(self, endpoint=endpoint, token=None, token_file=None)


def is_token(text: object) -> bool:
    """Whether a text can be sent as a bearer token (RFC 6750, and what others make of it)."""
    return isinstance(text, str) and bool(_TOKEN.fullmatch(text))


def config_from_environment(endpoint: str | None = None) -> ClientConfig:
    """A `ClientConfig` from ``AIS_*`` variables: the only place that reads the environment.

    The variables and their meaning are those of the SDK: ``AIS_ENDPOINT`` (used where no endpoint is given),
    ``AIS_AUTHN_TOKEN``, or else ``AIS_AUTHN_TOKEN_FILE`` (of AIStore's command line), ``AIS_CLIENT_CA``, ``AIS_CRT``
    with ``AIS_CRT_KEY``, ``AIS_SKIP_VERIFY_CRT``,
    ``AIS_CONNECT_TIMEOUT``, ``AIS_READ_TIMEOUT`` (seconds; 0 means "very long", as there).
    """
    env = os.environ
    endpoint = endpoint or env.get("AIS_ENDPOINT")
    if not endpoint:
        raise ConfigError("no endpoint: pass url='http://host:port', or set AIS_ENDPOINT")
    token = env.get("AIS_AUTHN_TOKEN") or None
    cert, key = env.get("AIS_CRT"), env.get("AIS_CRT_KEY")
    skip = env.get("AIS_SKIP_VERIFY_CRT", env.get("AIS_SKIP_VERIFY", ""))
    return ClientConfig(
        endpoint,
        token=token,
        token_file=None if token else env.get("AIS_AUTHN_TOKEN_FILE") or None,
        ca_file=env.get("AIS_CLIENT_CA") or None,
        client_cert=(cert, key) if cert and key else None,
        verify=skip.strip().lower() not in ("1", "t", "true", "y", "yes", "on"),
        connect_timeout=_seconds(env.get("AIS_CONNECT_TIMEOUT"), 3.0),
        read_timeout=_seconds(env.get("AIS_READ_TIMEOUT"), 20.0),
    )


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``aisdatapipes`` under ``XDG_CACHE_HOME``, or ``~/.cache``."""
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # The specification ignores relative paths.
    return (given if given.is_absolute() else Path.home() / ".cache") / "aisdatapipes"


def _seconds(text: str | None, default: float) -> float:
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        raise ConfigError(f"a timeout in the environment is no number of seconds: {text!r}") from None
    return seconds if seconds > 0 else A_LONG_TIME


def endpoint_url(text: str) -> str:
    """``http://host:port`` in one canonical form.

    >>> endpoint_url("localhost:8080"), endpoint_url("https://ais.example:443/v1/")
    ('http://localhost:8080', 'https://ais.example:443')
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"an endpoint is a text such as http://localhost:8080, not {text!r}")
    full = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"not an endpoint: {text!r} ({error}); expected http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"not an endpoint: {text!r}; expected http://host:port or https://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("an endpoint has no user, password, query or fragment; pass the token as token=")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = re.sub(r"/v1$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"
