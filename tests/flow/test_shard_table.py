"""Samples out of indexes: the same as out of the shards themselves."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aisdatapipes.flow.shardtable import Field, TableBuilder
from aisdatapipes.model.errors import ConfigError, CorruptShard
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.samples import samples
from aisdatapipes.wire.shardindex import KEPT, ShardIndex, decoded_index, encoded_index
from aisdatapipes.wire.tar import END, entry, members
from aisdatapipes.wire.tar_places import PlaceParser

FILES = {
    "d/a.JPG": b"J" * 700, "d/a.cls": b"1", "README": b"no sample", "d/b.jpg": b"", "d/._b.jpg": b"mac", "d/b.seg.png": b"P",
    "c.txt": b"C",
}  # fmt: skip


def tar(files):
    return b"".join(entry(name, data) for name, data in files) + END


def shard(name, archive):
    return AISURL.make(f"ais://b/{name}", "ais", "b", name, size=len(archive))


def indexed(archive, checksum="ab"):
    places = PlaceParser("").places(archive)
    return ShardIndex.of(((name.encode(), offset, size) for name, offset, size in places), checksum, len(archive))


def table(*archives):
    builder = TableBuilder()
    for number, archive in enumerate(archives):
        builder.add(shard(f"{number}.tar", archive), indexed(archive, f"{number:x}"))
    return builder.table()


def test_samples_are_those_of_the_archive():
    """Key, extensions, order and content of every sample, read by place or read as a stream."""
    archives = [tar(FILES.items()), tar([]), tar([("x.a", b"1"), ("y.a", b"2")])]
    made = table(*archives)
    by_place = [
        (one.key, {field.extension: archives[one.shard][field.start :][: field.size] for field in one.fields})
        for one in made
    ]
    assert [one for archive in archives for one in samples(members([archive], "s"), "s")] == by_place
    assert ([5, 3, 0, 2], [range(3), range(3, 3), range(3, 5)]) == (
        [len(made), *(len(made.of_shard(number)) for number in range(3))],
        [made.of_shard(number) for number in range(3)],
    )


# Of what decides where a name is divided, and what upper case, UTF-8 and bytes that are none may change about it.
NAMES = st.lists(st.text(st.sampled_from("./aAÉ\udcff"), max_size=8), max_size=6)


@settings(max_examples=500, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=3))
@example([["./a.x", "././a.y", ".//a.x", "a.x/b", "a.x/.b", "./", "", ".", "a.", "a.b."]])
@example([["a.x", "b.x", "a.y"], ["a.É", "a.é"]])
def test_samples_are_those_of_any_names(shards):
    """By columns the samples, and what is said where there are none, are those that a loop over the names finds."""
    builder, want, errors = TableBuilder(), [], []
    for number, names in enumerate(shards):
        url = shard(f"{number}.tar", tar([]))
        places = [(name, (number, 512 * at), 512 * at) for at, name in enumerate(names)]
        entries = ((name.encode("utf-8", "surrogateescape"), at, 7) for name, _, at in places)
        index = ShardIndex.of(entries, "", 512 * len(names) + 1024)
        for made in (lambda: want.extend(samples(places, url)), lambda: builder.add(url, index)):  # noqa: B023
            try:
                made()
            except CorruptShard as error:
                errors.append(str(error))
        if errors:
            break
    assert errors == errors[:1] * 2  # none, or the same from both
    if not errors:
        found = [
            (one.key, {each.extension: (one.shard, each.start - 512) for each in one.fields}) for one in builder.table()
        ]
        assert want == found


def test_a_sample_is_one_run():
    """From its first field to its last one, with what is between them."""
    made = table(tar(FILES.items()))
    assert (512, 2049) == made[0].span
    assert Field("seg.png", 5632, 1) == made[1].fields[1]


def test_positions_like_those_of_a_list():
    """Negative ones count from the end; beyond it there is nothing."""
    made = table(tar(FILES.items()))
    assert ["c", "d/a"] == [made[-1].key, made[-3].key]
    assert ["d/b", "c"] == [one.key for one in made[1:]]
    with pytest.raises(IndexError):
        made[3]


def test_extensions_are_known_from_their_shard_on():
    """Those of a shard, and of the shards before it."""
    made = table(tar([("a.x", b"")]), tar([]), tar([("b.y", b""), ("b.x", b"")]))
    assert [("x",), ("x",), ("x", "y")] == [made.extensions_of(number) for number in range(3)]


def test_sizes_of_samples():
    """Of all their fields, or of some."""
    made = table(tar(FILES.items()), tar([]))
    assert ([701, 1, 1], [1, 0, 0]) == (made.sample_sizes().tolist(), made.sample_sizes(["cls", "x"]).tolist())
    assert [] == table().sample_sizes().tolist()


def test_lookup_by_key():
    """A key leads to its samples, of which each shard may have one."""
    made = table(tar(FILES.items()), tar([("z.txt", b""), ("c.txt", b"")]))
    assert ([2, 4], [0], []) == tuple(made.positions_of(key) for key in ("c", "d/a", "d"))


BROKEN = {
    "a key that comes back": ([("a.x", b""), ("b.x", b""), ("a.y", b"")], "sample 'a' had ended"),
    "a member twice": ([("a.x", b"1"), ("a.x", b"2")], "sample 'a' has a second member"),
    "upper and lower case": ([("a.x", b"1"), ("a.X", b"2")], "sample 'a' has a second member"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_members_that_make_no_samples(case):
    """The error is that of the stream: it names shard, member and key."""
    files, words = BROKEN[case]
    archive = tar(files)
    with pytest.raises(CorruptShard, match=words) as caught:
        table(archive)
    with pytest.raises(CorruptShard) as expected:
        list(samples(members([archive], "ais://b/0.tar"), "ais://b/0.tar"))
    assert (str(expected.value), "ais://b/0.tar") == (str(caught.value), caught.value.url)


def test_a_shard_that_is_too_large_for_the_table():
    """It says so, and what to do."""
    with pytest.raises(ConfigError, match="index='off'"):
        TableBuilder().add(shard("a.tar", b""), ShardIndex.of([], "", 1 << 42))


def test_a_table_pickles():
    """A copy has the same samples and the same fingerprint."""
    made = table(tar(FILES.items()))
    copy = pickle.loads(pickle.dumps(made))
    assert (list(made), made.fingerprint, made.shards[0].size) == (list(copy), copy.fingerprint, copy.shards[0].size)


def test_a_fingerprint_is_of_everything():
    """Another content, another key or another place of the same bytes is another table."""
    one, two = tar([("a.x", b"1"), ("b.x", b"2")]), tar([("a.x", b"1"), ("c.x", b"2")])
    made = [table(one), table(two), table(one, one), table(one + bytes(512))]
    assert len(made) == len({each.fingerprint for each in made})
    assert table(one).fingerprint == table(one).fingerprint


def test_a_table_is_small():
    """A million samples in less than 60 MB, and no more while it is made."""
    index = ShardIndex.of(((b"%012d.jpg" % i, 1024 * i, 512) for i in range(1000)), "ab", 1 << 20)
    data = encoded_index(index)
    tracemalloc.start()
    builder = TableBuilder()
    for number in range(100):
        builder.add(shard(f"{number}.tar", b""), decoded_index(data, KEPT))
    made = builder.table()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (100_000, True) == (len(made), peak < 60 * 100_000)
