"""What is taken from the objects of the AIStore SDK that users hand in: where, what, and how to talk to it.

Only attributes are read, never a request sent; SDK 1.24 to 2.0.0 have them all. The values made here are frozen and
picklable, so nothing of the SDK's sessions and locks travels into a graph of pipes or a worker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aistore.sdk import Bucket, Client
from aistore.sdk.dataset.data_shard import DataShard
from aistore.sdk.multiobj.object_group import ObjectGroup
from aistore.sdk.obj.object import Object
from aistore.sdk.request_client import RequestClient

from aisdatapipes.model.config import A_LONG_TIME, ClientConfig, config_from_environment
from aisdatapipes.model.errors import ConfigError
from aisdatapipes.model.url import AISURL, bucket_url, checked_bucket, checked_provider

_EXPECTED = "expected a Bucket, ObjectGroup, Object or DataShard of the AIStore SDK, or a URL"


@dataclass(frozen=True, slots=True)
class Source:
    """A bucket, or a part of one.

    Args:
        config: How to reach its cluster.
        bucket: The bucket's URL.
        prefixes: Names that begin with one of these, prefix by prefix.
        names: Exactly these names (with any of the prefixes), in this order; None for all that is listed.
        etl_name: ETL that the cluster applies to each object.
    """

    config: ClientConfig
    bucket: AISURL
    prefixes: tuple[str, ...] = ("",)
    names: tuple[str, ...] | None = field(default=None, repr=False)
    etl_name: str | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two sources the same bucket: cluster, provider, namespace, name."""
        url = self.bucket
        return (self.config.endpoint, url.provider, url.namespace, url.bucket)

    def with_prefixes(self, prefixes: Iterable[str] | None) -> Source:
        """The same source, only names that begin with one of ``prefixes``; None for all."""
        return self if prefixes is None else dataclasses.replace(self, prefixes=tuple(prefixes))


Where: TypeAlias = str | ClientConfig | Client  # how to reach a cluster


def config_of(where: Where | RequestClient | None) -> ClientConfig:
    """How to reach a cluster: of an endpoint, a config, or a client of the SDK."""
    if isinstance(where, Client):
        where = where._request_client  # noqa: SLF001 - the SDK offers no public way
    if isinstance(where, RequestClient):
        return _config_of_client(where)
    return ClientConfig.of(where)


def source_of(thing: Any, config: ClientConfig | None = None) -> Source:
    """What ``thing`` stands for; raises `ConfigError` for what is no source at all."""
    if isinstance(thing, Source):
        return thing if config is None else dataclasses.replace(thing, config=config)
    if isinstance(thing, Bucket):
        return Source(config or config_of(thing.client), _bucket(thing))
    if isinstance(thing, ObjectGroup):
        names = tuple(thing.list_names())
        return Source(config or config_of(thing.client), _bucket(thing.bck), names=names)
    if isinstance(thing, DataShard):
        found = Source(config or config_of(thing.client), _bucket(thing.bucket), (thing.prefix or "",))
        return dataclasses.replace(found, etl_name=thing.etl_name or None)
    if isinstance(thing, Object):
        return _source_of_object(thing, config)
    if isinstance(thing, str):
        url = AISURL.parse(thing)
        where = config or config_from_environment(url.endpoint)
        return Source(where, _bare(url), (url.name,), etl_name=url.etl_name)
    raise ConfigError(f"{thing!r} is no source: {_EXPECTED}")


def _source_of_object(thing: Object, config: ClientConfig | None) -> Source:
    namespace = str(thing.query_params.get("namespace", ""))
    bucket = _bucket_of(thing.bucket_name, thing.bucket_provider, namespace)
    return Source(config or config_of(thing._client), bucket, names=(thing.name,))  # noqa: SLF001 - see config_of


def _bucket(bucket: Bucket) -> AISURL:
    namespace = bucket.namespace.get_path() if bucket.namespace else ""
    return _bucket_of(bucket.name, bucket.provider, namespace)


def _bucket_of(name: str, provider: Any, namespace: str) -> AISURL:
    provider = checked_provider(getattr(provider, "value", provider), name)
    namespace = "" if namespace == "@#" else namespace
    text = bucket_url(provider, checked_bucket(name, f"{provider}://{name}"), namespace)
    return AISURL.make(text, provider, name, "", namespace=namespace)


def _bare(url: AISURL) -> AISURL:
    return AISURL.make(url.bucket_url, url.provider, url.bucket, "", namespace=url.namespace)


def _config_of_client(client: RequestClient) -> ClientConfig:
    session = client.session_manager
    timeout = client.timeout
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    surroundings = config_from_environment(client.base_url)  # the SDK, too, asks it for what it was not given
    return dataclasses.replace(
        surroundings,
        token=client.token or None,
        token_file=None if client.token else surroundings.token_file,
        ca_file=session.ca_cert or surroundings.ca_file,
        client_cert=session.client_cert or surroundings.client_cert,
        verify=not session.skip_verify and surroundings.verify,
        connect_timeout=connect or A_LONG_TIME,
        read_timeout=read or A_LONG_TIME,
    )
