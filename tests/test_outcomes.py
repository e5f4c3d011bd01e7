"""Every nasty shard, in every way of reading, has the outcome that docs/shards.md says it has."""

from __future__ import annotations

import ast
import io
import itertools
import tarfile

import pytest
import webdataset

from aisdatapipes import AISShardMapDataset, AISShardReader, ConfigError, CorruptShard
from aisdatapipes.wire import samples as convention
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.tar import END
from aisdatapipes.wire.tar_places import PlaceParser
from tests import outcomes
from tests.outcomes import (
    ERROR,
    FILLED,
    LACKING,
    LEFT_OUT,
    MISSING,
    MODES,
    MORE,
    NO_SKIP,
    NOT_PLAIN,
    OTHER,
    REACHED,
    SAME,
    SAMPLES,
    SILENT,
    START,
    WARNED,
)
from tests.wire.nasty import packed, readable

ROWS = outcomes.rows()
BEFORE, BEHIND = ("0", {"jpg": b"0", "cls": b"0"}), ("2", {"jpg": b"2", "cls": b"2"})
FIELDS = ("jpg", "cls")

# ---- a cell


def filled(bucket, shard):
    bucket.fill({"0.tar": packed(BEFORE) + END, f"1{shard.name[1:]}": shard.archive, "2.tar": packed(BEHIND) + END})
    return bucket


def made(bucket, mode, **options):
    options = {"fields": FIELDS, "config": bucket.server.config, **options}
    if mode == "map":
        return AISShardMapDataset(bucket.url, index="client", **options)
    return AISShardReader(bucket.url, index=mode, **options)


def in_order(dataset):
    return iter(dataset) if isinstance(dataset, AISShardReader) else (dataset[i] for i in range(len(dataset)))


def filled_in(samples, *more):
    """Samples as they come without `fields`: each has the extensions of its shard and of those before."""
    known = dict.fromkeys(["jpg", "cls", *more, *(one for _, sample in samples for one in sample)])
    return [(key, {one: sample.get(one, b"") for one in known}) for key, sample in samples]


def outcome(bucket, mode, shard, caplog):
    """What comes of it, in the words of the table; anything else fails."""
    options = {} if shard.told else {"fields": None}  # what the cluster lists of a broken shard is not certain
    broken = f"{bucket.url}1{shard.name[1:]}"
    try:
        found = in_order(made(bucket, mode, **options))
        first = next(found)
    except ConfigError as error:
        assert f"{broken}: it is" in str(error)  # noqa: PT017 - other errors are other outcomes
        return NOT_PLAIN
    except CorruptShard as error:
        assert (True, broken) == (shard.told in str(error), error.url)  # noqa: PT017 - likewise
        return START
    if shard.told:
        samples = [first, *itertools.islice(found, len(shard.samples))]
        assert [BEFORE, *chosen(shard.samples)] == samples
        with pytest.raises(CorruptShard) as caught:
            next(found)
        assert (True, broken) == (shard.told in str(caught.value), caught.value.url)
        return REACHED
    samples = [first, *found]
    if samples == [BEFORE, *filled_in([*shard.samples, BEHIND], "txt")]:
        return MORE
    assert [BEFORE, *filled_in([*shard.samples, BEHIND])] == samples
    return WARNED if caplog.text.count("the two zero blocks at the end of the tar are missing") == 1 else SAMPLES


def chosen(samples):
    return [(key, {field: sample.get(field, b"") for field in FIELDS}) for key, sample in samples]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ROWS)
def test_outcome(bucket, what, mode, caplog):
    """A cell of the table: the samples of the oracles, or the error that it says, where it says."""
    row = ROWS[what]
    assert row.outcomes[MODES.index(mode)] == outcome(filled(bucket, row.shard), mode, row.shard, caplog)


@pytest.mark.parametrize("what", ROWS)
def test_auto(embedded_bucket, what, caplog):
    """Left to itself a reader streams what cannot be indexed, and has no other samples where it can be."""
    row = ROWS[what]
    bucket = filled(embedded_bucket, row.shard)
    assert row.outcomes[0] == outcome(bucket, "auto", row.shard, caplog)
    if row.outcomes[1] == SAMPLES:
        for mode in ("server", "auto"):
            caplog.clear()
            assert SAMPLES == outcome(bucket, mode, row.shard, caplog)


@pytest.mark.parametrize("what", [what for what, row in ROWS.items() if row.shard.told])
def test_skipped(bucket, what):
    """With on_error="skip" a stream leaves out what is behind the error in its shard, and counts one."""
    shard = ROWS[what].shard
    dataset = made(filled(bucket, shard), "off", on_error="skip")
    assert [BEFORE, *chosen(shard.samples), BEHIND] == list(dataset)
    assert 1 == dataset.stats()["skipped"]


# ---- the oracles


def webdatasets(archive):
    files = webdataset.tariterators.tar_file_iterator(io.BytesIO(archive))
    for one in webdataset.tariterators.group_by_keys({**file, "__url__": "s"} for file in files):
        yield one["__key__"], {key: value for key, value in one.items() if not key.startswith("__")}


@pytest.mark.parametrize("what", ROWS)
def test_webdataset(what):
    """What webdataset makes of a shard is what the table says."""
    shard = ROWS[what].shard
    found, failed = [], False
    try:
        found.extend(webdatasets(shard.archive))
    except (ValueError, tarfile.TarError):
        failed = True
    if shard.told:
        assert ROWS[what].webdataset == (ERROR if failed else SILENT)
    else:
        assert ROWS[what].webdataset == (ERROR if failed else SAME if found == shard.samples else OTHER)


def tarfiles(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for one in tar:
            file = tar.extractfile(one) if one.isreg() or one.islnk() else None
            if file is not None:
                yield one.name, file.read(), one.offset


@pytest.mark.parametrize("what", list(readable()))
def test_tarfile(what):
    """The samples that the table speaks of are made of the members that tarfile finds."""
    shard = ROWS[what].shard
    assert shard.samples == list(convention.samples(tarfiles(shard.archive), "s"))


# ---- every truncation

CUT = {
    what: ROWS[what].shard
    for what in ("ustar", "long names, GNU", "names that are no ASCII", "pax, a header for each member", "hard link")
}


def taken(samples):
    found = []
    try:
        found.extend(samples)
    except CorruptShard as error:
        return found, str(error)
    return found, None


def placed(archive):
    """Samples by a header pass: an index, and then the bytes at its places."""
    parser = PlaceParser("s")
    places = parser.places(archive)
    parser.close()
    members = ((one.name, archive[one.offset + 512 :][: one.size], one.offset) for one in places)
    return list(convention.samples(members, "s"))


@pytest.mark.parametrize("what", CUT)
def test_every_truncation(what):
    """Cut at any byte: the samples before the cut, then an error; an index of it is the same samples, or an error."""
    shard = CUT[what]
    ends = set()
    for at in range(1, len(shard.archive)):
        archive = shard.archive[:at]
        streamed, error = taken(convention.samples(opened([archive], "s"), "s"))
        expected = shard.samples[: len(streamed)]
        if error is None:
            ends.add(at)
            if streamed:  # of the last sample, members are there up to the cut
                key, sample = expected.pop()
                last = streamed[-1]
                assert (key, list(sample.items())[: len(last[1])]) == (last[0], list(last[1].items()))
        assert streamed[: len(expected)] == expected
        if error is None:
            assert placed(archive) == streamed
        else:
            with pytest.raises(CorruptShard) as caught:
                placed(archive)
            assert str(caught.value) == error
    # A cut is not seen behind a complete member, nor in the zeros at the end.
    with tarfile.open(fileobj=io.BytesIO(shard.archive)) as tar:
        behind = {one.offset_data + (0 if one.islnk() else one.size + -one.size % 512) for one in tar}
    assert behind | set(range(max(behind), len(shard.archive))) == ends


def test_truncations_over_the_network(bucket):
    """The same by requests: a stream of each cut shard, and an index of it made here or by the server."""
    shard = CUT["names that are no ASCII"]
    cuts = range(100, len(shard.archive), 412)
    bucket.fill({f"{at:05d}.tar": shard.archive[:at] for at in cuts})
    for at in cuts:
        expected, error = taken(convention.samples(opened([shard.archive[:at]], "s"), "s"))
        one = {"name_filter": f"{at:05d}", "missing": "zero"}
        streamed, found = taken(made(bucket, "off", **one))
        assert (chosen(expected), error) == (streamed, found and f"s:{found.split('.tar:')[1]}")
        for mode in ("client", "server"):
            indexed, found = taken(made(bucket, mode, **one))
            assert (([], error) if error else (chosen(expected), None)) == (
                indexed,
                found and f"s:{found.split('.tar:')[1]}",
            )


# ---- fields that are missing

WITHOUT = ("1", {"jpg": b"J"})
WITH_PNG = ("3", {"png": b"P", "cls": b"3"})


def outcome_of_missing(bucket, mode, fields, missing):
    """What comes of a sample that lacks a field, in the words of the table."""
    try:
        dataset = made(bucket, mode, fields=fields, missing=missing)
    except ConfigError:
        return NO_SKIP
    found = in_order(dataset)
    assert BEFORE == next(found)
    try:
        rest = list(found)
    except CorruptShard as error:
        assert "sample '1' has no field 'cls'" in str(error)  # noqa: PT017 - likewise
        return LACKING
    names = [key for key, _ in rest]
    if names == ["2"]:
        assert 1 == dataset.stats()["skipped"]
        return LEFT_OUT
    assert [("1", {"jpg": b"J", "cls": b""}), BEHIND] == rest
    return FILLED


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("fields", "missing"), MISSING)
def test_missing(bucket, fields, missing, mode):
    """A cell of the table of missing fields."""
    lacking = WITH_PNG if ";" in fields else WITHOUT
    bucket.put("0.tar", packed(BEFORE, lacking, BEHIND) + END)
    expected = MISSING[fields, missing][MODES.index(mode)]
    wanted = ast.literal_eval(fields)
    if lacking is WITHOUT:
        assert expected == outcome_of_missing(bucket, mode, wanted, missing)
    else:
        samples = list(in_order(made(bucket, mode, fields=wanted, missing=missing)))
        assert [BEFORE, ("3", {"jpg": b"P", "cls": b"3"}), BEHIND] == samples
        assert SAMPLES == expected


# ---- the document


def test_document():
    """docs/shards.md has the tables as they are here; `python -m tests.outcomes` writes them."""
    text = outcomes.DOCUMENT.read_text()
    assert outcomes.with_tables(text) == text
