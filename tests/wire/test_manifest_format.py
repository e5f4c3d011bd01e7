"""Manifests as bytes, both ways, and bytes that only look like one."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.manifest import Saved, SavedFilter, SavedSource, decoded_manifest, encoded_manifest

texts = st.binary(max_size=12).map(lambda data: data.decode("utf-8", "surrogateescape"))
sources = st.builds(SavedSource, texts, st.just(0), st.lists(texts).map(tuple), st.booleans(), st.none() | texts)
filters = st.none() | st.builds(SavedFilter, st.none() | texts, st.integers(0, 1 << 20))
sizes = st.integers(-1, (1 << 63) - 1)
objects = st.lists(st.tuples(st.binary(max_size=20), sizes), max_size=20)

BUCKET = SavedSource("ais://b", 0)


def saved(pairs, source=BUCKET, name_filter=None):
    names = [name for name, _ in pairs]
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    source = SavedSource(source.bucket, len(pairs), source.prefixes, source.named, source.etl_name)
    all_sizes = np.array([size for _, size in pairs], np.int64)
    return Saved((source,), "0123456789abcdef", name_filter, b"".join(names), ends, all_sizes)


def told(one):
    return (one.sources, one.fingerprint, one.name_filter, bytes(one.blob), one.ends.tolist(), one.sizes.tolist())


SMALL = encoded_manifest(saved([(b"a/%03d" % i, i) for i in range(50)]))


@given(objects, sources, filters)
@example([], BUCKET, None)
@example([(b"\xff//#?%", -1), (b"", (1 << 63) - 1)], SavedSource("ais://@u#n/b", 0, ("\udcff",)), None)
def test_a_manifest_is_what_was_encoded(pairs, source, name_filter):
    """Names of any bytes, sizes of any width and what is said of them survive; the same listing is the same bytes."""
    one = saved(pairs, source, name_filter)
    data = encoded_manifest(one)
    assert told(decoded_manifest(data)) == told(one)
    assert encoded_manifest(decoded_manifest(data)) == data


def test_arrays_can_be_written_to():
    """Sizes that are asked for later are filled in."""
    decoded_manifest(SMALL).sizes[0] = 7


def test_numpy_and_json_read_it_without_us(tmp_path):
    """``numpy.load`` has the arrays, and the JSON what they mean."""
    path = tmp_path / "any.name"
    path.write_bytes(SMALL)
    with np.load(path) as found:
        ends = np.cumsum(found["lengths"])
        blob = found["names"].tobytes()
        names = [blob[end - length : end].decode() for end, length in zip(ends, found["lengths"], strict=True)]
        assert names == [f"a/{i:03d}" for i in range(50)]
        assert found["sizes"].tolist() == list(range(50))
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("manifest.json"))
    assert (about["format"], about["version"], about["objects"]) == ("aisdatapipes manifest", 1, 50)


def test_a_later_column_is_no_obstacle():
    """A further member is not read."""
    file = io.BytesIO(SMALL)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("samples.npy", b"of a later version")
    assert told(decoded_manifest(file.getvalue())) == told(decoded_manifest(SMALL))


@pytest.mark.parametrize("cut", range(21))
def test_a_truncated_manifest_is_malformed(cut):
    """Wherever it ends."""
    with pytest.raises(Malformed):
        decoded_manifest(SMALL[: min(len(SMALL) * cut // 20, len(SMALL) - 1)])


@given(st.binary(max_size=300))
def test_garbage_is_malformed(data):
    """Any bytes are a manifest or `Malformed`."""
    with pytest.raises(Malformed):
        decoded_manifest(data)


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_changed_byte_is_malformed_or_of_no_account(at, change):
    """A byte that differs is found, or is one that says nothing, such as that of a date."""
    data = bytearray(SMALL)
    data[at] ^= change
    try:
        found = decoded_manifest(bytes(data))
    except Malformed:
        return
    assert told(found) == told(decoded_manifest(SMALL))


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def about(**changes):
    with zipfile.ZipFile(io.BytesIO(SMALL)) as archive:
        return json.dumps(json.loads(archive.read("manifest.json")) | changes).encode()


def one_source(**changes):
    return [{"bucket": "ais://b", "objects": 50, "prefixes": [""], "named": False, "etl_name": None} | changes]


def remade(method=zipfile.ZIP_DEFLATED, **members):
    """A manifest with some of its members exchanged; None leaves one out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SMALL)) as old, zipfile.ZipFile(file, "w", method) as archive:
        for name in old.namelist():
            data = members.get(name.partition(".")[0], old.read(name))
            if data is not None:
                archive.writestr(name, data)
    return file.getvalue()


HUGE = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
MATRIX = np.zeros((5, 10), np.int64)
HOSTILE = {
    "nothing": (b"", "no complete archive"),
    "no zip": (b"PAR1" + bytes(100) + b"PAR1", "no complete archive"),
    "another npz": (remade(manifest=None), "no member manifest.json"),
    "no names": (remade(names=None), r"no member names\.npy"),
    "no lengths": (remade(lengths=None), r"no member lengths\.npy"),
    "no sizes": (remade(sizes=None), r"no member sizes\.npy"),
    "another method": (remade(zipfile.ZIP_LZMA), "another method than deflate"),
    "no json": (remade(manifest=b"{"), "manifest.json is no JSON"),
    "deep json": (remade(manifest=b"[" * 100_000), "manifest.json is no JSON"),
    "json of others": (remade(manifest=b"[]"), "does not say that it is"),
    "another format": (remade(manifest=about(format="x")), "does not say that it is"),
    "another version": (remade(manifest=about(version=2)), "version 2, and this aisdatapipes reads version 1"),
    "sources of none": (remade(manifest=about(sources=[])), "has no sources"),
    "no sources": (remade(manifest=about(sources=None)), "manifest.json is not as it should be"),
    "a number for a bucket": (remade(manifest=about(sources=one_source(bucket=3))), "not as it should be"),
    "a text for prefixes": (remade(manifest=about(sources=one_source(prefixes="ab"))), "not as it should be"),
    "more of sources": (remade(manifest=about(sources=one_source(objects=51))), "its sources 51"),
    "less than nothing": (remade(manifest=about(sources=one_source(objects=-1) + one_source(objects=51))), "agree"),
    "more objects": (remade(manifest=about(objects=51)), "objects 51"),
    "fewer sizes": (remade(sizes=npy(np.zeros(49, np.int64))), "sizes.npy 49"),
    "fewer lengths": (remade(lengths=npy(np.full(49, 5))), "lengths.npy 49"),
    "lengths too short": (remade(lengths=npy(np.full(50, 4))), "adds up to 200"),
    "a length too long": (remade(lengths=npy(np.array([251] + [0] * 49))), "0 to 251"),
    "a negative length": (remade(lengths=npy(np.array([-5, 15] + [5] * 48))), "-5 to 15"),
    "lengths that come around": (remade(lengths=npy(np.array([1 << 63, 1 << 63, *[5] * 48], np.uint64))), "to 92233"),
    "a negative size": (remade(sizes=npy(np.full(50, -2))), "-2 to -2"),
    "a size beyond all": (remade(sizes=npy(np.full(50, 1 << 63, np.uint64))), "no sizes of objects"),
    "sizes that are fractions": (remade(sizes=npy(np.zeros(50))), "float64 in the shape"),
    "sizes in two dimensions": (remade(sizes=npy(MATRIX)), "instead of a row"),
    "names in wide numbers": (remade(names=npy(np.zeros(250, np.int16))), "int16 instead of bytes"),
    "objects of Python": (
        remade(sizes=header("{'descr': '|O', 'fortran_order': False, 'shape': (50,), }\n")),
        "object",
    ),
    "a huge claim of numpy": (remade(sizes=header(HUGE)), "claims 1000000000000 numbers"),
    "no array": (remade(sizes=b"1,2,3"), "no complete archive"),
    "a later format of arrays": (remade(sizes=b"\x93NUMPY\x02\x00" + bytes(20)), "format 1.0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_only_looks_like_a_manifest_is_malformed(case):
    """Another file, another type, counts that do not add up: each is told apart."""
    data, what = HOSTILE[case]
    with pytest.raises(Malformed, match=what):
        decoded_manifest(data)


def test_huge_claims_get_no_memory():
    """What a zip archive claims of a member is compared with what is there before memory is given to it."""
    claim = (1 << 40).to_bytes(8, "little")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", about())
        info = zipfile.ZipInfo("names.npy")
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(b"x")
        info.file_size = info.compress_size = int.from_bytes(claim, "little")
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=r"names\.npy claims 1099511627776 bytes"):
            decoded_manifest(file.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
