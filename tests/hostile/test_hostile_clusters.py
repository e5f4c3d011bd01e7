"""Whatever a cluster answers, reading ends: with data, or with an error of ours. Nothing else happens.

A seed is a whole cluster (`tests.hostile.poison`); each way of reading meets some of them. ``HOSTILE_SEEDS=500`` has
each meet more.
"""

from __future__ import annotations

import logging
import os
import resource
import warnings

import pytest

from aisdatapipes import AISPipeError
from aisdatapipes.store import pool, threads
from tests.hostile import honest
from tests.hostile.poison import Poison
from tests.hostile.readers import MOST, READERS, config_of, read
from tests.hostile.server import HostileServer

SEEDS = int(os.environ.get("HOSTILE_SEEDS", "16"))
# Which questions are answered wrongly, and how often.
PLANS = [((), 0.3), (("map",), 0.9), (("list",), 0.5), (("get", "range", "batch", "index", "head"), 0.6)]
MEMORY = 64 << 20  # bytes that the peak of this process may grow by: all answers here are small


def clusters(name: str):
    """Endpoints of clusters that are hostile each in its own way, one at a time."""
    first = list(READERS).index(name) * 1_000_003
    for seed in range(first, first + SEEDS):
        kinds, share = PLANS[seed % len(PLANS)]
        poison = Poison(seed, share, kinds)
        with HostileServer(lambda asked: poison.answer(asked, server.url)) as server:  # noqa: B023
            yield seed, server.url
            pool.close_all()


@pytest.mark.parametrize("name", READERS)
def test_reading_ends_with_data_or_an_error_of_ours(name, caplog, capfd):
    """No crash, no hang, no foreign exception, no exception that is only printed, and no memory that grows."""
    caplog.set_level(logging.DEBUG, "aisdatapipes")
    ended, words = 0, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for seed, endpoint in clusters(name):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is odd and readable
                ended += len(read(name, config_of(endpoint))) < MOST
        except AISPipeError as error:
            ended += 1
            words.append(f"{error} (seed {seed})")
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    printed = "".join(capfd.readouterr())
    words += [record.getMessage() for record in caplog.records]
    assert (ended, grown < MEMORY, "Traceback" in printed) == (SEEDS, True, False), printed
    assert [text for text in words if "defect" in text or not text.isprintable()] == []


@pytest.mark.parametrize("name", ["get", "ranges", "batch", "shards", "pipes"])
def test_without_pycurl(name, monkeypatch, caplog):
    """The transport of urllib3 holds the same."""
    monkeypatch.setattr(pool, "new_transport", threads.ThreadTransport)
    caplog.set_level(logging.CRITICAL, "urllib3")  # its records keep frames, and so connections
    words = []
    for seed, endpoint in clusters(name):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(name, config_of(endpoint))
        except AISPipeError as error:
            words.append(f"{error} (seed {seed})")
    words += [record.getMessage() for record in caplog.records]
    assert [text for text in words if "defect" in text] == []


@pytest.mark.parametrize("name", READERS)
def test_an_honest_cluster_is_read(name):
    """The control: answers that are not spoiled give everything."""
    with HostileServer(lambda asked: honest.answer(asked, server.url)) as server:
        found = read(name, config_of(server.url))
        pool.close_all()
    assert found
    assert len(found) in (1, 2, 6, 9, 40, 41)
