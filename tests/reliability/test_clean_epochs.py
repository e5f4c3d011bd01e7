"""A hundred epochs in which nothing goes wrong: no error, no retry, no record of a warning."""

from __future__ import annotations

import logging

import pytest

from aisdatapipes import ClientConfig
from aisdatapipes.wire.tar import END, entry
from tests.reliability.epochs import KINDS, filler

EPOCHS = 100


@pytest.fixture
def content(bucket):
    """What comes out of the bucket, by the kind of source: objects, samples of shards."""
    objects = bucket.fill(
        {f"obj/{i:02}": filler(i, size) for i, size in enumerate([0, 700, 9000, 40_000, 100_000] * 4)}
    )
    shards = {f"{shard}/{i}": filler(100 * shard + i, 3000) for shard in range(3) for i in range(8)}
    for shard in range(3):
        members = (entry(f"{key}.{ext}", part) for key, data in shards.items() if key.startswith(f"{shard}/")
                   for ext, part in (("cls", data[:1]), ("jpg", data[1:])))  # fmt: skip
        bucket.put(f"tar/{shard}.tar", b"".join(members) + END)
    return {"obj": objects, "tar": shards}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_clean_epochs(bucket, content, kind, caplog):
    """No false alarms."""
    config = ClientConfig(bucket.endpoint)
    expected = content["tar" if kind in ("streamed", "indexed") else "obj"]
    with caplog.at_level(logging.WARNING):
        for _ in range(EPOCHS):
            assert dict(KINDS[kind](bucket.url, config)) == expected
    assert [record.getMessage() for record in caplog.records] == []
