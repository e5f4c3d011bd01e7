"""Samples as members: what was written is what readers find, and the same samples are the same bytes."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.wire.sample_tar import SampleTar, encoded_sample
from aisdatapipes.wire.samples import samples
from aisdatapipes.wire.tar import members
from tests.wire.tars import SIZES, content


def tar_of(*written):
    tar = SampleTar()
    for sample in written:
        tar.add(*encoded_sample(sample))
    return tar.content()


def read(archive):
    return list(samples(members([archive], "s"), "s"))


def by_tarfile(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(one.name, tar.extractfile(one).read()) for one in tar]


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("jpg", b"J", b"J"),
    ("jpg", bytearray(b"J"), b"J"),
    ("jpg", memoryview(b"J"), b"J"),
    ("bin", b"", b""),
    ("txt", "grün", "grün".encode()),
    ("anything", "text", b"text"),
    ("cls", 3, b"3"),
    ("cls", np.int64(-3), b"-3"),
    ("index", 7, b"7"),
    ("of.id", 7, b"7"),
    ("json", {"a": [1, None, "ü"]}, b'{"a": [1, null, "\\u00fc"]}'),
    ("json", "[1]", b"[1]"),
    ("jsn", 3, b"3"),
    ("meta.json", [], b"[]"),
])  # fmt: skip
def test_what_a_field_becomes(field, value, expected):
    """Bytes and text as they are; else by the last part of the extension."""
    assert [("k", {field: expected})] == read(tar_of({"__key__": "k", field: value}))


def test_arrays():
    """numpy reads what was written, without pickle; the same array is the same bytes."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    sample = {"__key__": "k", "npy": array, "npz": {"x": array, "y": array.T}}
    ((_, fields),) = read(tar_of(sample))
    assert (array == np.load(io.BytesIO(fields["npy"]))).all()
    loaded = np.load(io.BytesIO(fields["npz"]))
    assert (["x", "y"], True) == (sorted(loaded), bool((loaded["y"] == array.T).all()))
    assert tar_of(sample) == tar_of(sample)


class Unknown:
    def __repr__(self):
        return "Unknown()"  # the same in every process: tests are named after it


@pytest.mark.parametrize(("sample", "says"), [
    ({"__key__": "k", "jpg": Unknown()}, "sample 'k', field 'jpg': nothing is known to make bytes of Unknown"),
    ({"__key__": "k", "txt": 3}, "sample 'k', field 'txt': nothing is known to make bytes of int"),
    ({"__key__": "k", "jpg": None}, "field 'jpg': nothing is known to make bytes of NoneType"),
    ({"__key__": "k", "cls": 1.5}, "sample 'k', field 'cls': cannot be written: 'float'"),
    ({"__key__": "k", "cls": None}, "field 'cls': cannot be written"),
    ({"__key__": "k", "json": Unknown()}, "field 'json': cannot be written: Object of type Unknown"),
    ({"__key__": "k", "npy": [1]}, "field 'npy': cannot be written: it is no array"),
    ({"__key__": "k", "npy": np.array([Unknown()])}, "field 'npy': cannot be written: it is no array"),
    ({"__key__": "k", "npz": np.zeros(1)}, "field 'npz': cannot be written"),
    ({"__key__": "k", "txt": "\udcff"}, "field 'txt': cannot be written: 'utf-8' codec"),
    ({"__key__": "k", "pyd": {}}, "field 'pyd': nothing is known to make bytes of dict"),
    ({"__key__": "k"}, "sample 'k' has no field"),
    ({"__key__": "k", "__url__": "x"}, "sample 'k' has no field"),
    ({"__key__": "k", ".jpg": b""}, "'.jpg' is no field"),
    ({"__key__": "k", "": b""}, "'' is no field"),
    ({"__key__": "k", "a/b": b""}, "'a/b' is no field"),
    ({"__key__": "k", 3: b""}, "3 is no field"),
    ({"__key__": "k", "jpg": b"", "JPG": b""}, "two fields are 'jpg'"),
    ({"jpg": b""}, "needs a text as '__key__', such as '0001', not None"),
    ({"__key__": "", "jpg": b""}, "needs a text as '__key__'"),
    ({"__key__": 7, "jpg": b""}, "needs a text as '__key__', such as '0001', not 7"),
    ({"__key__": "v1.5", "jpg": b""}, "sample 'v1.5': it would be read back under another key"),
    ({"__key__": ".hidden", "jpg": b""}, "under another key"),
    ({"__key__": "./k", "jpg": b""}, "under another key"),
    ({"__key__": "folder/", "jpg": b""}, "under another key"),
    ({"__key__": "/k", "jpg": b""}, "a key is a path inside of the shard"),
    ({"__key__": "a/../k", "jpg": b""}, "a key is a path inside of the shard"),
    ({"__key__": "a\0", "jpg": b""}, "a key is a path inside of the shard"),
    ([("__key__", "k")], "a sample is a dict"),
], ids=str)  # fmt: skip
def test_a_sample_that_cannot_be_written(sample, says):
    """The message names key and field."""
    with pytest.raises(ConfigError) as caught:
        encoded_sample(sample)
    assert says in str(caught.value)


def test_a_key_comes_once():
    """Readers would mix the two."""
    tar = SampleTar()
    tar.add(*encoded_sample({"__key__": "k", "txt": "1"}))
    with pytest.raises(ConfigError, match="sample 'k': this shard has a sample of that key already"):
        tar.add(*encoded_sample({"__key__": "k", "txt": "2"}))
    assert [("k", {"txt": b"1"})] == read(tar.content())


def test_a_tar_can_grow_after_it_was_looked_at():
    """The end moves, and its size is known beforehand."""
    tar = SampleTar()
    for number in range(3):
        key, data = encoded_sample({"__key__": str(number), "bin": b""})
        expected = tar.size_with(data)
        tar.add(key, data)
        assert expected == len(tar.content())
    assert (["0", "1", "2"], 3) == ([key for key, _ in read(tar.content())], len(tar))


def test_members_have_no_time_and_no_owner():
    """So the same samples are the same bytes, in whichever order the fields were given."""
    archive = tar_of({"__key__": "k", "b": b"1", "A": b"2"})
    assert archive == tar_of({"A": b"2", "b": b"1", "__key__": "k", "__url__": "left out"})
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = [(one.name, one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in tar]
    assert [("k.a", 0, 0, 0, "", "", 0o644), ("k.b", 0, 0, 0, "", "", 0o644)] == found


def test_webdataset_reads_it():
    """And decodes what its writer would have written."""
    wds = pytest.importorskip("webdataset")
    archive = tar_of(
        {"__key__": "d/1", "cls": 3, "json": {"a": 1}, "txt": "ü"}, {"__key__": "d/2", "cls": 4, "json": [], "txt": ""}
    )
    files = wds.tariterators.tar_file_iterator(io.BytesIO(archive))
    grouped = wds.tariterators.group_by_keys({"__url__": "s", **one} for one in files if one)
    found = [wds.autodecode.default_decoder(one) for one in grouped]
    assert [("d/1", 3, {"a": 1}, "ü"), ("d/2", 4, [], "")] == [
        (one["__key__"], one["cls"], one["json"], one["txt"]) for one in found
    ]


PART = st.text(st.characters(exclude_characters="./\0", codec="utf-8"), min_size=1, max_size=80)


@given(
    keys=st.lists(st.lists(PART, min_size=1, max_size=4).map("/".join), min_size=1, max_size=4, unique=True),
    extension=st.text(st.characters(exclude_characters="/\0", codec="ascii"), min_size=1, max_size=12),
    size=st.sampled_from(SIZES),
)
def test_what_can_be_written_is_read_back(keys, extension, size):
    """Long names and those of any alphabet too; Python's tarfile agrees."""
    written = [{"__key__": key, extension: content(size)} for key in keys]
    try:
        archive = tar_of(*written)
    except ConfigError:
        assert extension.startswith((".", "__"))
        return
    expected = [(key, {extension.lower(): content(size)}) for key in keys]
    assert expected == read(archive)
    assert [(f"{key}.{extension.lower()}", content(size)) for key in keys] == by_tarfile(archive)


def test_json_is_what_json_reads():
    """Whatever JSON knows comes back."""
    value = {"a": [1.5, True, None, {"b": "c"}]}
    ((_, fields),) = read(tar_of({"__key__": "k", "json": value}))
    assert value == json.loads(fields["json"])
