"""Objects that a real cluster stores in chunks, as after a multipart upload: they are read as all others are.

But for one thing: the job with which AIStore 5.0 indexes the shards of a bucket would make them unreadable.
"""

from __future__ import annotations

import numpy as np
import pytest

from aisdatapipes import AISIterDataset, AISShardMapDataset, AISShardReader, FetchPlan, ShardWriter, StoreError
from aisdatapipes.wire.tar import END, entry

pytestmark = pytest.mark.real

PART = 1 << 20
OBJECTS = {"o/large": 3 * PART + 7, "o/small": 1000, "o/whole": 2 * PART}


@pytest.fixture
def bucket(request):
    """A bucket of a real cluster."""
    server = request.getfixturevalue("real_server")
    sdk = server.client().bucket(f"chunked-{np.random.default_rng().bytes(4).hex()}").create()
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
    members = ((f"{key}.{one}", data) for key, fields in some.items() for one, data in fields.items())
    return b"".join(entry(*member) for member in members) + END


@pytest.mark.parametrize("strategy", ["get", "batch", "ranges", "auto"])
def test_objects(bucket, config, strategy):
    """Whatever the order in which their parts came."""
    rng = np.random.default_rng(0)
    expected = {name: rng.bytes(size) for name, size in OBJECTS.items()}
    for backwards, (name, data) in zip((False, True, True), expected.items(), strict=True):
        in_chunks(bucket, name, data, backwards=backwards)
    found = AISIterDataset(f"ais://{bucket.name}/o/", config=config, fetch=FetchPlan(strategy, range_bytes=PART // 2))
    assert {name: bytes(data) for name, data in found} == expected


@pytest.mark.parametrize("options", [{}, {"fields": ("cls",)}, {"shuffle": True}], ids=str)
@pytest.mark.parametrize("index", ["off", "client"])
def test_shards(bucket, config, index, options):
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
