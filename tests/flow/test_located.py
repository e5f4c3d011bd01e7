"""Samples by their places, on both clusters: the same as by streaming the shards, whatever the order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.located import located_samples
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.recipes import Chosen
from aisdatapipes.flow.resolve import resolve
from aisdatapipes.flow.runs import JOINED_OVER
from aisdatapipes.flow.samples import Shard, samples
from aisdatapipes.flow.selection import Selections
from aisdatapipes.flow.tolerance import Tolerance
from aisdatapipes.model.config import ClientConfig, FetchPlan, RetryPolicy
from aisdatapipes.model.errors import CorruptBody, CorruptShard, ObjectNotFound
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.samples import Fields
from aisdatapipes.wire.tar import END, entry
from tests.wire import tars

RETRY = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.02, deadline=20)
BYTES = random.Random(0).randbytes
LINK = tars.block(b"1/link.jpg", 0, b"1", b"1/a.jpg")
FILES = [
    [("0/a.jpg", BYTES(700)), ("0/a.cls", b"1"), ("0/b.jpg", b""), ("0/b.cls", b"22"), ("0/c.jpg", BYTES(300_000))],
    [("1/a.jpg", BYTES(5)), ("1/b.PNG", BYTES(513)), ("1/b.seg.png", b"S"), ("1/b.cls", b"")],
    [],
    [(f"3/{i:04}.{ext}", BYTES(i)) for i in range(300) for ext in ("jpg", "cls")],
]  # fmt: skip
ARCHIVES = [b"".join(entry(name, data) for name, data in files) + END for files in FILES]
ARCHIVES[1] = ARCHIVES[1][:-1024] + LINK + END
EVERYTHING = Chosen()


@pytest.fixture
def clusters(server):
    return Clusters(ClientConfig(server.endpoint, retry=RETRY))


def table_of(bucket, clusters, tmp_path, archives=ARCHIVES):
    names = [f"{number}.tar" for number in range(len(archives))]
    bucket.fill(dict(zip(names, archives, strict=True)))
    urls = [AISURL.make(f"{bucket.url}{name}", "ais", bucket.name, name, size=len(archive))
            for name, archive in zip(names, archives, strict=True)]  # fmt: skip
    return resolve(urls, "client", clusters, Meter(), IndexCache(tmp_path)).table


@pytest.fixture
def table(bucket, clusters, tmp_path):
    return table_of(bucket, clusters, tmp_path)


def began(
    table, positions, clusters, chosen=EVERYTHING, meter=None, tolerance=None, *,
    together=True, share=0.0, keep=False, **plan,
):  # fmt: skip
    groups = [np.array(positions, np.int64)]
    return located_samples(
        table,
        groups,
        clusters,
        FetchPlan(**plan),
        meter or Meter(),
        chosen,
        tolerance or Tolerance(),
        together=together,
        share=share,
        keep=keep,
    )


def read(*arguments, **options):
    return list(began(*arguments, **options))


def streamed(archives=ARCHIVES, chosen=EVERYTHING):
    shards = (Shard(f"ais://b/{number}.tar", [archive]) for number, archive in enumerate(archives))
    return list(samples(shards, chosen.fields, chosen.missing, Meter()))


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("plan", [{}, {"width": 1}, {"range_bytes": 1 << 10}, {"window_bytes": 1}], ids=str)
def test_samples_are_those_of_the_stream(table, clusters, together, plan):
    """Whole shards in order: keys, contents and order, also of hard links and empty members."""
    fields = Chosen(Fields.parse(("jpg;png", "cls", "seg.png")))
    assert streamed(chosen=fields) == read(table, range(len(table)), clusters, fields, together=together, **plan)


def test_extensions_that_the_shards_before_have(table, clusters):
    """Without fields a sample has those of its shard and of the shards before it, as in a stream that knows them."""
    found = read(table, list(range(len(table))), clusters)
    assert [{"jpg", "cls"}] * 3 + [{"jpg", "cls", "png", "seg.png"}] * 3 == [set(sample) for _, sample in found[:6]]
    assert [sample for _, sample in streamed()][-300:] == [sample for _, sample in found[-300:]]


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_any_order(table, clusters, together):
    """Shuffled, backwards, and one sample many times."""
    every = read(table, list(range(len(table))), clusters)
    shuffled = random.Random(1).sample(range(len(table)), len(table))
    for order in (shuffled, list(range(len(table)))[::-1], [5, 5, 0, 5, 0, 0]):
        assert [every[position] for position in order] == read(table, order, clusters, together=together)
    assert [] == read(table, [], clusters, together=together)


def test_neighbours_are_read_together(table, clusters):
    """One request for what lies close together; of a list also where it comes in another order."""
    shuffled = random.Random(1).sample(list(table.of_shard(3)), 300)
    for positions, together, requests in (
        (table.of_shard(3), True, 1),
        (table.of_shard(3), False, 2),
        (shuffled, True, 1),
    ):
        meter = Meter()
        found = read(table, positions, clusters, meter=meter, together=together)
        assert (300, requests) == (len(found), meter.requests)
    assert 300_000 > JOINED_OVER


def test_only_what_is_wanted_is_read(table, clusters):
    """Of a sample with a large image and a label, the label alone; of an empty field nothing."""
    meter = Meter()
    labels = Chosen(Fields.parse(("cls",)))
    assert [("1/b", {"cls": b""}), ("1/link", {"cls": b""})] == read(table, [4, 5], clusters, labels, meter)
    assert (0, 2, 0) == (meter.requests, meter.objects, meter.bytes)


def test_missing_fields(table, clusters):
    """Filled in, left out and counted, or an error in its turn, as when streaming."""
    names = ("cls", "jpg;png")
    assert [b"", b"1"] == [sample["cls"] for _, sample in read(table, [2, 0], clusters, Chosen(Fields.parse(names)))]
    meter = Meter()
    skipping = Chosen(Fields.parse(names, "skip"))
    assert ["0/a", "1/b"] == [key for key, _ in read(table, [2, 0, 3, 4], clusters, skipping, meter)]
    assert 2 == meter.skipped
    found = began(table, [0, 2], clusters, Chosen(Fields.parse(names, "error")))
    assert "0/a" == next(found)[0]
    with pytest.raises(CorruptShard, match="sample '0/c' has no field 'cls'"):
        next(found)
    with pytest.raises(CorruptShard, match="sample '1/a' has no field 'cls'"):
        read(table, [3], clusters, Chosen(None, "error"))


@pytest.mark.parametrize("other", [
    ARCHIVES[0].replace(b"0/a.cls", b"0/a.xyz"), ARCHIVES[0] + bytes(512), ARCHIVES[2], b"",
], ids=["the same size", "longer", "shorter", "empty"])  # fmt: skip
def test_a_shard_that_was_overwritten(table, bucket, clusters, other):
    """Never a sample of the wrong bytes: an error that names the shard, in its turn, which can be borne."""
    bucket.put("0.tar", other)
    found = began(table, [4, 0, 5], clusters)
    assert "1/b" == next(found)[0]
    with pytest.raises(CorruptBody, match="overwritten since it was indexed; make the dataset anew") as caught:
        next(found)
    assert table.shards[0] == caught.value.url
    meter = Meter()
    borne = read(table, [4, 0, 5], clusters, meter=meter, tolerance=Tolerance("skip"))
    assert (["1/b", "1/link"], 1) == ([key for key, _ in borne], meter.skipped)


def test_a_shard_that_is_gone(table, bucket, clusters):
    """The error names it."""
    bucket.sdk.object("3.tar").delete()
    with pytest.raises(ObjectNotFound, match=r"3\.tar"):
        read(table, [-1 + len(table)], clusters)


def test_broken_off(table, clusters):
    """An early end leaves nothing under way."""
    found = began(table, range(len(table)), clusters, together=False)
    assert "0/a" == next(found)[0]
    found.close()


@pytest.mark.parametrize(("kind", "options"), [
    ("cut", {"after": 100}), ("reset", {}), ("wrong_length", {}), ("status", {"status": 503}), ("refuse_direct", {}),
])  # fmt: skip
def test_faults(embedded_bucket, embedded_server, tmp_path, kind, options):
    """What breaks off or is turned away is read again."""
    clusters = Clusters(ClientConfig(embedded_server.endpoint, retry=RETRY))
    table = table_of(embedded_bucket, clusters, tmp_path)
    fault = embedded_server.embedded.faults.add(kind, times=3, **options)
    try:
        expected = [sample for _, sample in read(table, list(table.of_shard(3))[::-1], clusters, range_bytes=4096)]
        assert [sample["jpg"] for sample in expected[::-1]] == [data for _, data in FILES[3][::2]]
        assert fault.struck
    finally:
        embedded_server.embedded.faults.clear()


# ---- small fields that lie far apart: picked out by the shard's target

FAR = bytes(JOINED_OVER)
LABELS = Chosen(Fields.parse(("cls",)))
FAR_FILES = [
    [file for i in range(40) for file in ((f"{shard}/{i:03}.jpg", FAR), (f"{shard}/{i:03}.cls", BYTES(i)))]
    for shard in range(3)
]
FAR_ARCHIVES = [b"".join(entry(name, data) for name, data in files) + END for files in FAR_FILES]
PICKED = {"share": 1.0, "together": False}


def labelled(shards=FAR_FILES):
    return [(name[:-4], {"cls": data}) for files in shards for name, data in files if name.endswith(".cls")]


@pytest.fixture
def far(bucket, clusters, tmp_path):
    return table_of(bucket, clusters, tmp_path, FAR_ARCHIVES)


@pytest.mark.parametrize("keep", [False, True], ids=["in order", "in any order"])
def test_labels_are_picked(far, clusters, keep):
    """One request for all labels of a shard, and one that tells its version; in any order, and no more often."""
    orders = [range(len(far)), list(range(len(far)))[30:90]]
    if keep:
        orders.append(random.Random(2).sample(range(len(far)), len(far)))
    for order in orders:
        meter = Meter()
        assert [labelled()[position] for position in order] == read(
            far, order, clusters, LABELS, meter, keep=keep, **PICKED
        )
        assert (6, 0) == (meter.requests, meter.skipped)


def test_labels_of_one_shard_after_the_other(far, clusters):
    """Samples that are planned apart from each other share what was picked."""
    groups = [np.arange(at, at + 7) for at in range(0, len(far) - 7, 7)]
    meter = Meter()
    found = located_samples(far, groups, clusters, FetchPlan(), meter, LABELS, share=1.0)
    assert labelled()[: 7 * len(groups)] == list(found)
    assert 6 == meter.requests


def test_labels_that_are_not_picked_in_the_end(embedded_bucket, embedded_server, tmp_path):
    """One shard cannot be picked from, when the samples behind it are planned already."""
    clusters = Clusters(ClientConfig(embedded_server.endpoint, retry=RETRY))
    table = table_of(embedded_bucket, clusters, tmp_path, FAR_ARCHIVES)
    groups = [np.arange(at, at + 7) for at in range(0, len(table) - 7, 7)]
    for shard in range(3):
        fault = embedded_server.embedded.faults.add("status", "get", match=f"{shard}.tar", times=2, status=400)
        try:
            found = located_samples(table, groups, clusters, FetchPlan(), Meter(), LABELS, share=1.0)
            assert labelled()[: 7 * len(groups)] == list(found)
            assert fault.struck == 2
        finally:
            embedded_server.embedded.faults.clear()


@pytest.mark.parametrize(("share", "fields", "requests"), [
    (0.0, ("cls",), 9), (0.25, ("cls",), 9), (1.0, ("jpg", "cls"), 1),
], ids=str)  # fmt: skip
def test_what_does_not_pay(far, clusters, share, fields, requests):
    """Nothing is picked where little of it is wanted, nor where the large ones are wanted, too."""
    meter = Meter()
    found = read(far, range(10), clusters, Chosen(Fields.parse(fields)), meter, share=share, together=False)
    assert [key for key, _ in labelled()[:10]] == [key for key, _ in found]
    assert meter.requests == requests  # of an empty label nothing is read


NASTY = {
    "upper case": ("0/{}.CLS", b"1"),
    "several dots": ("0/{}.a-1.cls", b"1"),
    "folders with dots": ("./0.cls/{}.cls", b"1"),
    "no ASCII": ("\u00fc/{}.cls", b"1"),
    "no UTF-8": ("\udcff/{}.cls", b"1"),
    "long names": ("0" * 300 + "/{}.cls", b"1"),
    "of no bytes": ("0/{}.cls", b""),
    "no extension of its own": ("0/{}.cls.txt", b"1"),
}


@pytest.mark.parametrize("nasty", NASTY)
def test_nasty_labels_are_picked(bucket, clusters, tmp_path, nasty):
    """Whatever the names are: the samples are those of the stream."""
    name, label = NASTY[nasty]
    files = [one for i in range(9) for one in ((name.format(i), label), (name.format(i)[:-3] + "far", FAR))]
    files.append(("._other.cls", b"none of a sample"))
    archives = [b"".join(entry(*file) for file in files) + END]
    table = table_of(bucket, clusters, tmp_path, archives)
    chosen = Chosen(Fields.parse(("cls;a-1.cls", "cls.txt")))
    assert streamed(archives, chosen) == read(table, range(9), clusters, chosen, **PICKED)


def test_what_has_such_a_name_and_is_no_file(bucket, clusters, tmp_path):
    """A symbolic link is none of the labels."""
    link = tars.block(b"0/link.cls", 0, b"2", b"0/000.cls")
    archives = [FAR_ARCHIVES[0][: -len(END)] + link + END, *FAR_ARCHIVES[1:]]
    table = table_of(bucket, clusters, tmp_path, archives)
    assert labelled() == read(table, range(len(table)), clusters, LABELS, **PICKED)


def test_only_the_labels_of_the_shard_are_taken(far):
    """A tar that lacks one, or has another one, one more, or one of another size, or is cut, is not what was wanted."""
    selections = Selections(far, LABELS, 1.0, keep=False)
    labels = [(name, data) for name, data in FAR_FILES[0] if name.endswith(".cls")]

    def contents(files, end=END):
        return selections.contents(0, b"".join(entry(*file) for file in files) + end)

    assert contents(labels) == b"".join(data for _, data in labels)
    assert contents(labels[1:]) is None
    assert contents([*labels, ("0/zzz.cls", b"")]) is None
    assert contents([*labels[:5], ("0/xyz.cls", labels[5][1]), *labels[6:]]) is None
    assert contents([*labels[:5], (labels[5][0], b"longer than it was"), *labels[6:]]) is None
    assert contents([labels[1], labels[0], *labels[2:]]) is None
    assert contents(labels, b"") is None
    assert selections.contents(0, b"") is None
    assert selections.contents(0, b"<html>" * 200) is None


def test_labels_of_a_shard_that_was_overwritten(far, bucket, clusters):
    """Names and sizes are those of the index, and yet it is another shard: no label of it is given."""
    last = FAR_FILES[1][-1][1]
    other = FAR_ARCHIVES[1].replace(last, bytes(len(last)))
    assert len(other) == len(FAR_ARCHIVES[1])
    assert other != FAR_ARCHIVES[1]
    bucket.put("1.tar", other)
    meter = Meter()
    found = read(far, range(len(far)), clusters, LABELS, meter, Tolerance("skip"), **PICKED)
    assert labelled([FAR_FILES[0], FAR_FILES[1][:2], FAR_FILES[2]]) == found  # of an empty label nothing is read
    assert meter.skipped == 39


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(("kind", "options"), [
    ("cut", {"after": 100}), ("reset", {}), ("status", {"status": 503}), ("status", {"status": 400}),
    ("refuse_direct", {}),
])  # fmt: skip
def test_faults_of_picking(embedded_bucket, embedded_server, tmp_path, kind, options, times):
    """Labels that cannot be picked are read one by one."""
    clusters = Clusters(ClientConfig(embedded_server.endpoint, retry=RETRY))
    table = table_of(embedded_bucket, clusters, tmp_path, FAR_ARCHIVES)
    fault = embedded_server.embedded.faults.add(kind, "get", times=times, **options)
    try:
        assert labelled() == read(table, range(len(table)), clusters, LABELS, **PICKED)
        assert fault.struck
    finally:
        embedded_server.embedded.faults.clear()
