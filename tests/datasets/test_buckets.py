"""Buckets of a real cluster that store objects in another way: all of it is read, or the error says why not.

Objects in chunks, as after a multipart upload, are read as all others are. But the job with which AIStore 5.0 indexes the
shards of a bucket would make them unreadable.
"""

from __future__ import annotations

import numpy as np
import pytest

from aisdatapipes import (
    AISIterDataset,
    AISShardMapDataset,
    AISShardReader,
    CorruptBody,
    FetchPlan,
    ShardWriter,
    StoreError,
)
from aisdatapipes.wire.tar import END
from tests.wire.nasty import packed

pytestmark = pytest.mark.real

PART = 1 << 20
OBJECTS = {"o/large": 3 * PART + 7, "o/small": 1000, "o/whole": 2 * PART}


@pytest.fixture
def bucket(request):
    """A bucket of a real cluster."""
    server = request.getfixturevalue("real_server")
    sdk = server.client().bucket(f"special-{np.random.default_rng().bytes(4).hex()}").create()
    yield sdk
    sdk.delete(missing_ok=True)


@pytest.fixture
def config(request):
    return request.getfixturevalue("real_server").config


def in_chunks(bucket, name, data, *, backwards=False):
    """The object, uploaded in parts; ``backwards`` its checksum is of another kind."""
    upload = bucket.object(name).multipart_upload().create()
    starts = list(enumerate(range(0, len(data), PART), 1))
    for number, start in reversed(starts) if backwards else starts:
        upload.add_part(number).put_content(data[start : start + PART])
    upload.complete()
    return data


def samples(shard):
    rng = np.random.default_rng(shard)
    return {f"{shard}/{i}": {"cls": b"%d" % i, "jpg": rng.bytes(300_000)} for i in range(8)}


def tar_of(some):
    return packed(*some.items()) + END


@pytest.mark.parametrize("strategy", ["get", "batch", "ranges", "auto"])
def test_objects_in_chunks(bucket, config, strategy):
    """Whatever the order in which their parts came."""
    rng = np.random.default_rng(0)
    expected = {name: rng.bytes(size) for name, size in OBJECTS.items()}
    for backwards, (name, data) in zip((False, True, True), expected.items(), strict=True):
        in_chunks(bucket, name, data, backwards=backwards)
    found = AISIterDataset(f"ais://{bucket.name}/o/", config=config, fetch=FetchPlan(strategy, range_bytes=PART // 2))
    assert {name: bytes(data) for name, data in found} == expected


@pytest.mark.parametrize("options", [{}, {"fields": ("cls",)}, {"shuffle": True}], ids=str)
@pytest.mark.parametrize("index", ["off", "client"])
def test_shards_in_chunks(bucket, config, index, options):
    """Streamed and by places."""
    for number in range(2):
        in_chunks(bucket, f"{number}.tar", tar_of(samples(number)), backwards=bool(number))
    expected = {**samples(0), **samples(1)}
    if "fields" in options:
        expected = {key: {"cls": sample["cls"]} for key, sample in expected.items()}
    found = AISShardReader(f"ais://{bucket.name}/", config=config, index=index, **options)
    assert {key: dict(sample) for key, sample in found} == expected


def test_the_cluster_is_not_asked_for_an_index(bucket, config, caplog):
    """Of a bucket that has such a shard: the error names it, says what to do, and the shard is as it was."""
    shard = in_chunks(bucket, "sub/1.tar", tar_of(samples(1)))
    bucket.object("0.tar").get_writer().put_content(tar_of(samples(0)))
    url = f"ais://{bucket.name}/"
    for made in (AISShardReader, AISShardMapDataset):
        with pytest.raises(StoreError, match=r"sub/1\.tar: it is stored in chunks .*use index='client'") as caught:
            len(made(f"{url}0", config=config, index="server"))
        assert caught.value.url == f"{url}sub/1.tar"
    with ShardWriter(f"{url}new-%d.tar", config=config) as writer:
        writer.write({"__key__": "a", "cls": 1})
    assert "the shards are stored, but have no index" in caplog.text
    assert bucket.object("sub/1.tar").get_reader().read_all() == shard


# ---- other properties


def with_properties(bucket, **changes):
    """The bucket, with other properties."""
    control = {"action": "set-bprops", "value": changes}
    assert bucket.client.request("PATCH", path=f"buckets/{bucket.name}", params=bucket.qparam, json=control).ok
    return bucket


def filled(bucket):
    """What is in it afterwards."""
    rng = np.random.default_rng(0)
    expected = {name: rng.bytes(size) for name, size in OBJECTS.items()}
    for name, data in [*expected.items(), ("s/0.tar", tar_of(samples(0)))]:
        bucket.object(name).get_writer().put_content(data)
    return expected


PROPERTIES = {
    "no checksums": {"checksum": {"type": "none"}},
    "md5": {"checksum": {"type": "md5"}},
    "no versions": {"versioning": {"enabled": False}},
    "mirrored": {"mirror": {"enabled": True, "copies": 2}},
    "checked when read": {"checksum": {"validate_warm_get": True}},
}


@pytest.mark.parametrize("what", PROPERTIES)
def test_properties_that_change_nothing(bucket, config, what):
    """Objects whole, in batches and in parts, shards in a stream and by each kind of index."""
    expected = filled(with_properties(bucket, **PROPERTIES[what]))
    for strategy in ("get", "batch", "ranges"):
        plan = FetchPlan(strategy, range_bytes=PART // 2)
        found = AISIterDataset(f"ais://{bucket.name}/o/", config=config, fetch=plan)
        assert {name: bytes(data) for name, data in found} == expected
    for index in ("off", "client", "server"):
        found = AISShardReader(f"ais://{bucket.name}/s/", config=config, index=index)
        assert {key: dict(sample) for key, sample in found} == samples(0)


def test_checksums_of_ranges(bucket, config):
    """They say nothing about the whole: objects are read by one request each, and what is read in parts says why not."""
    expected = filled(with_properties(bucket, checksum={"enable_read_range": True}))
    for strategy in ("get", "batch"):
        found = AISIterDataset(f"ais://{bucket.name}/o/", config=config, fetch=FetchPlan(strategy))
        assert {name: bytes(data) for name, data in found} == expected
    parts = AISIterDataset(f"ais://{bucket.name}/o/", config=config, fetch=FetchPlan("ranges", range_bytes=PART))
    plan = FetchPlan(range_bytes=PART)
    readers = [
        AISShardReader(f"ais://{bucket.name}/s/", config=config, index=one, fetch=plan) for one in ("off", "client")
    ]
    for dataset in (parts, *readers):
        with pytest.raises(CorruptBody, match=r"special-.*checksum of each range.*checksum\.enable_read_range"):
            list(dataset)
