"""Resume of streamed shards: inside a shard, by range, without a sample lost, repeated, or fetched again."""

from __future__ import annotations

import itertools
import json

import pytest
from samples import numbered
from torch.utils.data import DataLoader

from aisdatapipes import AISShardReader, CorruptShard, FetchPlan, NotResumable, World
from aisdatapipes.wire.tar import END
from tests.wire import nasty, tars

FIELDS = ("jpg", "cls")
SHARDS = {f"{number}.tar": numbered(6 * number, 6) for number in range(3)}
# Plain tars have places to go on at; in what is compressed, and in zips, samples are counted only.
PLACES = {what: case for what, case in nasty.readable().items() if len(case.samples) > 1}
WITHOUT_PLACES = {what: case for what, case in nasty.compressed().items() if not case.told}


@pytest.fixture
def shards(bucket):
    bucket.fill(SHARDS)
    return bucket


def made(bucket, **options):
    return AISShardReader(bucket.url, config=bucket.server.config, index="off", **{"fields": FIELDS, **options})


def after(bucket, cut, **options):
    """The state behind so many samples, as a file would have kept it."""
    data = made(bucket, **options)
    passing = iter(data)
    list(itertools.islice(passing, cut))
    state = json.loads(json.dumps(data.state_dict()))
    passing.close()
    return state


def gone_on(bucket, state, **options):
    data = made(bucket, **options)
    data.load_state_dict(state)
    return data


def test_only_what_is_left_is_fetched(shards):
    """At every cut the bytes that come are those behind the sample, and what was consumed does not come again."""
    whole = list(made(shards))
    sizes = [len(data) for data in SHARDS.values()]
    for cut in range(1, len(whole)):
        state = after(shards, cut)
        later = gone_on(shards, state)
        assert whole[cut:] == list(later)
        left = sum(sizes[state["position"] :]) - state.get("offset", 0)
        assert (left, True) == (later.stats()["bytes"], len(json.dumps(state)) < 200)
        assert 2048 * (cut % 6 or 6) == state.get("offset", 0)


def test_states_within_resumed_shards(shards):
    """Saved, loaded, saved again inside the same shard: places count from its beginning."""
    whole = list(made(shards, shuffle=True))
    found, state = [], after(shards, 0, shuffle=True)
    while len(found) < len(whole):
        data = gone_on(shards, state, shuffle=True)
        passing = iter(data)
        found += itertools.islice(passing, 4)
        state = data.state_dict()
        passing.close()
    assert whole == found


@pytest.mark.parametrize("what", [*PLACES, *WITHOUT_PLACES])
def test_every_kind_of_shard(embedded_bucket, what):
    """Whatever the shard, at every cut: the same samples; where it has no places it is read again and passed over."""
    case = {**PLACES, **WITHOUT_PLACES}[what]
    embedded_bucket.fill({"0.tar": numbered(0, 1), f"1{case.name[1:]}": case.archive, "2.tar": numbered(1, 1)})
    whole = list(made(embedded_bucket))
    assert len(case.samples) + 2 == len(whole)
    for cut in range(len(whole) + 1):
        state = after(embedded_bucket, cut)
        assert whole[cut:] == list(gone_on(embedded_bucket, state))
        if 1 < cut <= len(case.samples) and "hard link" not in what:
            assert (what in PLACES) is ("offset" in state)


def test_links_across_the_place(embedded_bucket):
    """A hard link to what was read before the state: the shard is read from its beginning once more."""
    link, last = tars.block(b"d.jpg", 0, b"1", b"a.jpg"), ("e", {"jpg": b"E"})
    embedded_bucket.put("0.tar", nasty.packed(nasty.A, nasty.B, nasty.C) + link + nasty.packed(last) + END)
    whole = list(made(embedded_bucket))
    assert ["a", "b", "c", "d", "e"] == [key for key, _ in whole]
    offsets = []
    for cut in range(1, 5):
        state = after(embedded_bucket, cut)
        offsets.append("offset" in state)
        data = gone_on(embedded_bucket, state)
        assert whole[cut:] == list(data)
    assert [True, True, True, False] == offsets


def test_without_fields(shards):
    """The extensions that a shard has are known from the cluster's listing, so a part of it is enough."""
    whole = list(made(shards, fields=None))
    for cut in (1, 5, 7):
        later = gone_on(shards, after(shards, cut, fields=None), fields=None)
        assert whole[cut:] == list(later)
    assert later.stats()["bytes"] == sum(map(len, SHARDS.values())) - len(SHARDS["0.tar"]) - 2048


def test_a_broken_shard_behind_the_place(embedded_bucket):
    """The error that comes is that of a whole pass, with its offset in the shard."""
    whole = SHARDS["0.tar"]
    embedded_bucket.put("0.tar", whole[: 2048 * 4 + 100])
    state = after(embedded_bucket, 2)
    later = iter(gone_on(embedded_bucket, state))
    assert "0002" == next(later)[0]
    with pytest.raises(CorruptShard, match=r"header at offset 8192: truncated: 100 of the header's 512"):
        next(later)


def test_skipped_shards(embedded_bucket):
    """What on_error left out of a shard is not looked for again."""
    embedded_bucket.fill({**SHARDS, "1.tar": SHARDS["1.tar"][:5000]})
    whole = [key for key, _ in made(embedded_bucket, on_error="skip")]
    assert 6 + 2 + 6 == len(whole)
    for cut in range(len(whole)):
        later = gone_on(embedded_bucket, after(embedded_bucket, cut, on_error="skip"), on_error="skip")
        assert whole[cut:] == [key for key, _ in later]


def test_a_shard_in_many_parts(embedded_bucket):
    """Parts begin at the place, and the last one at its end, wherever parts begin otherwise."""
    options = {"fetch": FetchPlan(range_bytes=1000)}
    embedded_bucket.fill(SHARDS)
    whole = list(made(embedded_bucket, **options))
    for cut in (1, 3, 5, 6, 11, 17):
        assert whole[cut:] == list(gone_on(embedded_bucket, after(embedded_bucket, cut, **options), **options))


def test_a_place_behind_the_end(embedded_bucket):
    """A shard that became smaller than its place is another one, and a state that was made up is passed over."""
    embedded_bucket.fill(SHARDS)
    whole = list(made(embedded_bucket))
    state = after(embedded_bucket, 2) | {"offset": 1 << 40}
    assert whole[2:] == list(gone_on(embedded_bucket, state))


# ---- ranks and workers


def test_ranks(shards):
    """Each of several ranks stands in a shard of its own: its state is its own, and goes on there and nowhere else."""
    ranks = [{"world": World(rank, 2), "even": "none"} for rank in range(2)]
    whole = [list(made(shards, **rank)) for rank in ranks]
    for cut in range(1, 6):
        for rank, expected in zip(ranks, whole, strict=True):
            assert expected[cut:] == list(gone_on(shards, after(shards, cut, **rank), **rank))
    state = after(shards, 2, **ranks[0])
    with pytest.raises(NotResumable, match="rank 0 of 2, batch_size 1; it cannot go on as"):
        gone_on(shards, state, **ranks[1])
    with pytest.raises(NotResumable, match="it cannot go on as"):
        gone_on(shards, state)


def test_a_state_of_one_rank_on_two(shards):
    """One rank has one shard in flight: its state is the job's, and the others begin behind that shard."""
    whole = [key for key, _ in made(shards)]
    state, found = after(shards, 8), []
    for rank in range(2):
        found += [key for key, _ in gone_on(shards, state, world=World(rank, 2), even="none")]
    assert sorted(whole[8:]) == sorted(found)


def test_a_loops_state_is_not_for_workers(shards):
    """A rank that looped without workers cannot go on with workers: that is an error, not another epoch."""
    rank = {"world": World(0, 2), "even": "none"}
    data = gone_on(shards, after(shards, 3, **rank), **rank)
    with pytest.raises(NotResumable, match="num_workers=0"):
        list(DataLoader(data, batch_size=None, num_workers=1))
    data = gone_on(shards, after(shards, 3, **rank), **rank)
    data.set_epoch(0)  # the loaded one keeps its place
    assert list(made(shards, **rank))[3:] == list(data)
    data = gone_on(shards, after(shards, 3, **rank), **rank)
    data.set_epoch(1)
    assert 1 == data.state_dict(epoch=1)["epoch"]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader(shards, workers):
    """The loader's state has the place of each of its workers."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader():
        return StatefulDataLoader(made(shards, shuffle=True), batch_size=None, num_workers=workers)

    whole = [key for key, _ in loader()]
    assert 18 == len(whole)
    for cut in (1, 4, 7, 13, 17):
        one = loader()
        passing = iter(one)
        assert whole[:cut] == [key for key, _ in itertools.islice(passing, cut)]
        state = one.state_dict()
        del passing
        again = loader()
        again.load_state_dict(state)
        assert whole[cut:] == [key for key, _ in again]


# ---- what has no ranges


@pytest.mark.parametrize("kind", ["tar", "gz", "zip"])
def test_what_an_etl_answers(embedded_bucket, embedded_server, kind):
    """It has no size and no ranges: it is read from its beginning, and samples are passed over."""
    case = {"tar": PLACES["ustar"], "gz": WITHOUT_PLACES["gzip"], "zip": WITHOUT_PLACES["zip"]}[kind]
    embedded_bucket.fill({"a.bin": b"", "b.bin": b""})
    embedded_server.embedded.etl(f"packs-{kind}", lambda data: case.archive)
    whole = list(made(embedded_bucket, etl_name=f"packs-{kind}"))
    assert 2 * len(case.samples) == len(whole)
    for cut in (1, 2, 4):
        options = {"etl_name": f"packs-{kind}"}
        state = after(embedded_bucket, cut, **options)
        assert whole[cut:] == list(gone_on(embedded_bucket, state, **options))


def test_a_key_that_comes_back_across_the_place(embedded_bucket):
    """What stands before the place is not looked at again, so this is seen by a whole pass only."""
    embedded_bucket.put("0.tar", nasty.packed(nasty.A, nasty.B, nasty.C, nasty.A) + END)
    assert ["c", "a"] == [key for key, _ in gone_on(embedded_bucket, after(embedded_bucket, 2))]
    with pytest.raises(CorruptShard, match="sample 'a' had ended"):
        list(made(embedded_bucket))
