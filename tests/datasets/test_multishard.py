"""Shards side by side: in step, each tuple once over ranks and workers, counted and resumed by the cluster's indexes."""

from __future__ import annotations

import itertools

import pytest
from torch.utils.data import DataLoader

from aisdatapipes import AISMultiShardStream, ConfigError, World
from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexjob import indexed_by_server
from aisdatapipes.model.url import AISURL
from aisdatapipes.testing import check_dataset, check_order, check_resume
from aisdatapipes.wire.tar import END, entry
from aisdatapipes.wire.tar_header import BLOCK

LEFT, RIGHT = (3, 5, 4), (7, 1, 6)  # members of each shard: 12 tuples, and two members too many
TUPLES = [(b"left%d" % i, b"right%d" % i) for i in range(12)]


@pytest.fixture
def shards(bucket):
    return filled(bucket)


@pytest.fixture
def indexed(shards):
    return let_index(shards)


def filled(bucket):
    for name, counts in (("left", LEFT), ("right", RIGHT)):
        number = itertools.count()
        for shard, count in enumerate(counts):
            members = (entry(f"{i}", b"%s%d" % (name.encode(), i)) for i in itertools.islice(number, count))
            bucket.put(f"{name}/{shard}.tar", b"".join(members) + END)
    return bucket


def let_index(bucket):
    cluster = Clusters(bucket.server.config)
    url = AISURL.parse(f"{bucket.url}left/0.tar")
    indexed_by_server(cluster.of(url), url)
    return bucket


def stream(bucket, *sources, **options):
    named = [f"{bucket.url}{source}/" for source in sources or ("left", "right")]
    return AISMultiShardStream(named, config=bucket.server.config, **options)


def read(dataset):
    """Without asking for its length, as ``list`` does."""
    return [*iter(dataset)]


def test_in_step(shards, caplog):
    """The i-th members come together, whatever the shards; the source that ends first is named."""
    assert TUPLES == read(stream(shards))
    assert "left/ ended after 12 members" in caplog.text


def test_laws(shards):
    """Ranks and workers share the tuples, which go on at any cut and on any world."""
    check_order(lambda world: stream(shards, world=world))
    check_resume(lambda world: stream(shards, world=world, batch_size=2), batch_size=2, ranks=(2,), cuts=[0, 1, 7, 11])


def test_laws_with_indexes(indexed):
    """The same where shards before the position are passed over."""
    check_order(lambda world: stream(indexed, world=world))
    check_resume(lambda world: stream(indexed, world=world), ranks=(2, 3))


def test_a_dataset_like_others(embedded_bucket):
    """Epochs, copies by pickle, fork and spawn, loaders, and loops that break off."""
    check_dataset(stream(let_index(filled(embedded_bucket))))


def test_length_and_plan(indexed):
    """Each rank knows how many tuples it gets, and who reads which; batches come out like that."""
    ranks = [stream(indexed, world=World(rank, 2), batch_size=5) for rank in range(2)]
    assert [7, 5] == [len(rank) for rank in ranks] == [len(read(rank)) for rank in ranks]
    whole = stream(indexed, batch_size=5)
    plan = whole.plan()
    loaded = list(DataLoader(whole, batch_size=5, num_workers=2, collate_fn=list))
    assert loaded == [[TUPLES[number] for number in row.items] for row in plan]
    assert 3 == len(DataLoader(whole, batch_size=5))


def test_nobody_has_counted(shards):
    """Without an index of every shard there is no length; that is said, and reading goes on all the same."""
    with pytest.raises(TypeError, match="no index of every shard"):
        len(stream(shards))
    with pytest.raises(ConfigError, match="nobody has counted"):
        stream(shards).plan()
    assert TUPLES == list(stream(shards))


def test_shards_before_the_position_are_not_read(embedded_bucket):
    """With indexes a resumed stream reads the shard that it stands in, and those behind it."""
    state = stream(let_index(filled(embedded_bucket))).state_dict(batches=9)
    later = resumed(embedded_bucket, state)
    assert TUPLES[9:] == read(later)
    member = 2 * BLOCK
    assert member * LEFT[2] + len(END) + member * RIGHT[2] + len(END) == later.stats()["bytes"]


def resumed(bucket, state):
    dataset = stream(bucket)
    dataset.load_state_dict(state)
    return dataset


def test_an_etl_is_not_counted(embedded_bucket):
    """The index is of the shard, and not of what an ETL makes of it."""
    from aistore.sdk.dataset.data_shard import DataShard

    bucket = let_index(filled(embedded_bucket))
    bucket.server.embedded.etl("same", lambda data: data)
    source = DataShard(bucket.endpoint, bucket.name, prefix="left/", etl_name="same")
    with pytest.raises(TypeError, match="no index of every shard"):
        len(AISMultiShardStream([source]))
    assert 12 == len(read(AISMultiShardStream([source])))
