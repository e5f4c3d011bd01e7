"""Every nasty shard, in every way of reading, has the outcome that docs/shards.md says it has."""

from __future__ import annotations

import ast
import io
import itertools
import logging
import tarfile

import pytest
import webdataset

from aisdatapipes import AISShardMapDataset, AISShardReader, ConfigError, CorruptShard
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.samples import Shard, samples
from aisdatapipes.wire import samples as convention
from aisdatapipes.wire.archive import opened
from aisdatapipes.wire.tar import END
from tests import outcomes
from tests.outcomes import MISSING, MODES, NOT_PLAIN, REACHED, SAMPLES, START, WARNED, rows
from tests.wire.nasty import packed

ROWS = rows()
BEFORE, BEHIND = ("0", {"jpg": b"0", "cls": b"0"}), ("2", {"jpg": b"2", "cls": b"2"})
# Every sample has these in every mode: what `fields` does is another table.
FIELDS = ("jpg", "cls")
PLAIN = [what for what, row in ROWS.items() if row.outcomes[1] != NOT_PLAIN]


def filled(bucket, shard):
    bucket.fill({"0.tar": packed(BEFORE) + END, f"1{shard.name[1:]}": shard.archive, "2.tar": packed(BEHIND) + END})
    return bucket


def made(bucket, mode, **options):
    if mode == "map":
        return AISShardMapDataset(bucket.url, config=bucket.server.config, index="client", **options)
    return AISShardReader(bucket.url, config=bucket.server.config, index=mode, **options)


def in_order(dataset):
    if isinstance(dataset, AISShardMapDataset):
        return (dataset[i] for i in range(len(dataset)))
    return iter(dataset)


def with_all(samples, extensions):
    """Samples as they come without `fields`: each has the extensions of its shard and of those before."""
    known = list(dict.fromkeys(["jpg", "cls", *extensions]))
    return [(key, {one: sample.get(one, b"") for one in known}) for key, sample in samples]


def expected_of(shard):
    own = dict.fromkeys(one for _, sample in shard.samples for one in sample)
    last = with_all([BEHIND], own) if not shard.told else [BEHIND]
    return [BEFORE, *with_all(shard.samples, own), *last]


def outcome(bucket, mode, shard, caplog):
    """What comes of it, in the words of the table; anything else fails."""
    try:
        dataset = made(bucket, mode)
        found = in_order(dataset)
        first = next(found)
    except ConfigError as error:
        assert "only plain tars can be indexed" in str(error)
        return NOT_PLAIN
    except CorruptShard as error:
        assert (True, f"{bucket.url}1{shard.name[1:]}") == (shard.told in str(error), error.url)
        return START
    assert BEFORE == first
    if not shard.told:
        assert expected_of(shard)[1:] == list(found)
        warned = [line for line in caplog.records if line.levelno >= logging.WARNING]
        assert all("the two zero blocks at the end of the tar are missing" in line.message for line in warned)
        return WARNED if len(warned) == 1 else SAMPLES
    got = list(itertools.islice(found, len(shard.samples)))
    assert [key for key, _ in shard.samples] == [key for key, _ in got]
    wanted = [sample for _, sample in shard.samples]
    assert wanted == [only(sample, want) for (_, sample), want in zip(got, wanted, strict=True)]
    with pytest.raises(CorruptShard) as caught:
        next(found)
    assert (True, f"{bucket.url}1{shard.name[1:]}") == (shard.told in str(caught.value), caught.value.url)
    return REACHED


def only(sample, wanted):
    """What is not there is empty; extensions that the cluster lists of a shard that breaks off are not certain."""
    assert not any(data for extension, data in sample.items() if extension not in wanted)
    return {extension: sample[extension] for extension in wanted}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ROWS)
def test_outcome(bucket, what, mode, caplog):
    """A cell of the table: the samples of the oracles, or the error that it says, where it says."""
    row = ROWS[what]
    assert row.outcomes[MODES.index(mode)] == outcome(filled(bucket, row.shard), mode, row.shard, caplog)
