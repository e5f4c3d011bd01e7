"""Where samples are, as members of a manifest: both ways, and members that only look like it."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest

from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.manifest import Saved, SavedSource, decoded_manifest, encoded_manifest
from aisdatapipes.wire.manifest_samples import ABOUT, ARRAYS, SavedSamples

# Two shards: of three samples with four fields, and of none.
SAMPLES = SavedSamples(
    "fedcba9876543210", "server", ("jpg", "cl\udcffs"), ("ab", ""), np.array([9 << 9, 0]), np.array([2, 2]), np.array([3, 0]),
    b"abbcc", np.array([1, 2, 2]), np.array([2, 1, 1]), np.array([0, 1, 0, 1]), np.array([1, 3, 5, 7]),
    np.array([7, 512, 0, 1000]),
)  # fmt: skip


def manifest(samples):
    ends, sizes = np.array([1, 2]), np.array([9 << 9, -1])
    return encoded_manifest(Saved((SavedSource("ais://b", 2),), "0123456789abcdef", None, b"ab", ends, sizes, samples))


def told(saved):
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in ((field.name, getattr(saved, field.name)) for field in dataclasses.fields(saved))
    }


def changed(**columns):
    return manifest(dataclasses.replace(SAMPLES, **columns))


def remade(**members):
    """The manifest with members changed; None leaves one out."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(manifest(SAMPLES))) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            data = members.get(info.filename.replace(".", "_"), old.read(info))
            if data is not None:
                new.writestr(info, data)
    return made.getvalue()


def about(**changes):
    found = {"version": 1, "fingerprint": "f", "index": "server", "extensions": ["a", "b"], "checksums": ["", ""]}
    return json.dumps(found | changes)


def test_samples_are_what_was_encoded():
    """All columns survive, of empty shards too, and the same table gives the same bytes."""
    none = np.zeros(0, np.int64)
    empty = dataclasses.replace(
        SAMPLES, extensions=(), shard_kinds=np.array([0, 0]), shard_samples=np.array([0, 0]), keys=b"",
        **dict.fromkeys(("key_lengths", "sample_fields", "field_kinds", "field_blocks", "field_sizes"), none),
    )  # fmt: skip
    for one in (SAMPLES, empty):
        found = decoded_manifest(manifest(one))
        assert told(one) == told(found.samples)
        assert manifest(one) == encoded_manifest(found)


def test_a_manifest_without_samples_has_none():
    """As those that were saved before there were any."""
    assert decoded_manifest(manifest(None)).samples is None


def test_numpy_reads_it_without_us():
    """All arrays, under the names in the documents."""
    with np.load(io.BytesIO(manifest(SAMPLES))) as found:
        assert {name: getattr(SAMPLES, column).tolist() for name, column in ARRAYS.items()} == {
            name: found[name.removesuffix(".npy")].tolist() for name in ARRAYS
        }


@pytest.mark.parametrize(("data", "message"), [
    (remade(samples_json=about(version=2)), "its samples have version 2"),
    (remade(samples_json="[]"), "version None"),
    (remade(samples_json="{"), "no JSON"),
    (remade(samples_json=about(extensions=[1])), "not as it should be"),
    (remade(samples_json=about(extensions=["a"])), "there can be 0 to 1"),
    (remade(samples_json=about(checksums=[""])), "do not agree"),
    (remade(keys_npy=None), "no member keys.npy"),
    (remade(field_sizes_npy=None), r"no member field_sizes\.npy"),
    (changed(keys=b"abbc"), "do not agree"),
    (changed(shard_sizes=np.array([9 << 9])), "do not agree"),
    (changed(shard_samples=np.array([2, 0])), "do not agree"),
    (changed(shard_samples=np.array([5, -2])), r"shard_samples\.npy has -2 to 5"),
    (changed(sample_fields=np.array([3, 1, 0])), r"sample_fields\.npy has 0 to 3"),
    (changed(sample_fields=np.array([1, 1, 1])), "do not agree"),
    (changed(key_lengths=np.array([6, -1, 0])), r"key_lengths\.npy"),
    (changed(field_kinds=np.array([0, 1, 2, 0])), r"field_kinds\.npy has 0 to 2"),
    (changed(shard_kinds=np.array([2, 1])), "counts downwards"),
    (changed(field_sizes=np.array([7, 512, 0, 1025])), "ends behind the end of its shard"),
    (changed(field_blocks=np.array([1, 3, 10, 7])), "ends behind the end of its shard"),
    (changed(field_sizes=np.array([-1, 512, 0, 1])), r"field_sizes\.npy"),
    (changed(field_blocks=np.array([1, 3, 1 << 33, 7])), r"field_blocks\.npy"),
])  # fmt: skip
def test_what_cannot_be_is_malformed(data, message):
    """Counts that do not agree, and fields that cannot be where they are said to be."""
    with pytest.raises(Malformed, match=message):
        decoded_manifest(data)


def test_every_member_counts():
    """Without any one of them it is no table."""
    for name in (ABOUT, *ARRAYS):
        data = remade(**{name.replace(".", "_"): None})
        if name == ABOUT:
            assert decoded_manifest(data).samples is None
        else:
            with pytest.raises(Malformed, match=name):
                decoded_manifest(data)
