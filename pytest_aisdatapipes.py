"""The pytest plugin: ``ais_cluster`` and ``ais_bucket``, for tests of data loading without a cluster.

It stands beside the package and not in it, because pytest imports it in every run of every project where it is
installed: ``import aisdatapipes`` loads torch, which takes seconds. Here the fixtures do, when a test asks for one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aisdatapipes.devserver import DevCluster
    from aisdatapipes.testing import AISBucket, RunningCluster

_FROM_ENVIRONMENT = "env"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ais-endpoint``, and ``ais_endpoint`` in the ini-file."""
    text = "cluster that ais_cluster and ais_bucket use: an endpoint, or 'env' for $AIS_ENDPOINT; default: embedded"
    parser.getgroup("aisdatapipes").addoption("--ais-endpoint", metavar="URL", help=text)
    parser.addini("ais_endpoint", text, default="")


@pytest.fixture(scope="session")
def ais_cluster(request: pytest.FixtureRequest) -> Iterator[DevCluster | RunningCluster]:
    """A cluster with an ``endpoint``: an embedded `DevCluster`, or the one that ``--ais-endpoint`` names."""
    from aisdatapipes.testing import RunningCluster  # noqa: PLC0415 - see above

    endpoint = request.config.getoption("--ais-endpoint") or request.config.getini("ais_endpoint")
    if endpoint == _FROM_ENVIRONMENT:
        endpoint = os.environ.get("AIS_ENDPOINT")
        if not endpoint:
            pytest.fail("ais_endpoint is 'env', but AIS_ENDPOINT is not set: set it, or leave the option out")
    if endpoint:
        yield RunningCluster(endpoint)
        return
    from aisdatapipes.devserver import DevCluster  # noqa: PLC0415 - needs aiohttp

    with DevCluster() as cluster:
        yield cluster


@pytest.fixture
def ais_bucket(ais_cluster: DevCluster | RunningCluster, request: pytest.FixtureRequest) -> Iterator[AISBucket]:
    """A new, empty `AISBucket`, destroyed after the test."""
    from aisdatapipes.testing import AISBucket  # noqa: PLC0415 - see above

    with AISBucket.new(ais_cluster.endpoint, request.node.name) as bucket:
        yield bucket
