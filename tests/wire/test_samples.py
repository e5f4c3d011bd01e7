"""Samples are WebDataset's, fields are what was asked for, and nothing is merged or lost in silence."""

from __future__ import annotations

import io
import itertools

import pytest
import tars
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError, CorruptShard
from aisdatapipes.wire.samples import Fields, samples, split
from aisdatapipes.wire.tar import END, Member, entry, members

URL = "ais://b/s.tar"

NAMES = {
    "x.jpg": ("x", "jpg"),
    "a.b.jpg": ("a", "b.jpg"),
    "a.seg.png": ("a", "seg.png"),
    "d1/x.jpg": ("d1/x", "jpg"),
    "v1.0/x.jpg": ("v1.0/x", "jpg"),
    "./x.jpg": ("x", "jpg"),
    "././d/x.jpg": ("d/x", "jpg"),
    "/x.jpg": ("/x", "jpg"),
    "a/./x.jpg": ("a/./x", "jpg"),
    "x.JPG": ("x", "jpg"),
    "X.Seg.PNG": ("X", "seg.png"),
    "ü/日本.tar.gz": ("ü/日本", "tar.gz"),
    "caf\udce9.jpg": ("caf\udce9", "jpg"),
    "x..jpg": ("x", ".jpg"),
    " .jpg": (" ", "jpg"),
    "README": None,
    "d.v1/README": None,
    "x.": None,
    "": None,
    ".": None,
    "./": None,
    "..": None,
    "d.x/": None,
    ".DS_Store": None,
    "d/.DS_Store": None,
    "._x.jpg": None,
    "d/._b.jpg": None,
    "./._x.jpg": None,
    ".hidden.jpg": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    """A member's name says which sample it belongs to, if any."""
    assert NAMES[name] == split(name)


WORD = st.text("aB1-_ü ", min_size=1, max_size=5)
LAST = st.builds(lambda stem, exts: ".".join([stem, *exts]), WORD, st.lists(WORD, min_size=1, max_size=3))
PATH = st.builds(lambda folders, last: "/".join([*folders, last]), st.lists(WORD | st.just("v1.0"), max_size=3), LAST)


@given(PATH)
def test_names_as_webdataset_splits_them(name: str) -> None:
    """Ordinary names are split as WebDataset splits them, and its extension is put in lower case as there."""
    key, extension = webdataset.tariterators.base_plus_ext(name)
    assert (key, extension.lower()) == split(name)


def webdatasets(archive: bytes) -> list[tuple[str, dict[str, bytes]]]:
    files = webdataset.tariterators.tar_file_iterator(io.BytesIO(archive))
    grouped = webdataset.tariterators.group_by_keys({**file, "__url__": URL} for file in files)
    return [(one["__key__"], {k: v for k, v in one.items() if not k.startswith("__")}) for one in grouped]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(WORD, st.sets(st.sampled_from(["jpg", "cls", "seg.png", "json"]), min_size=1)),
        max_size=8,
        unique_by=lambda pair: pair[0],
    )
)
def test_samples_as_webdataset_groups_them(shape: list[tuple[str, set[str]]]) -> None:
    """A shard as WebDataset wants it gives the same samples as its own reader."""
    names = [f"d.x/{key}.{extension}" for key, extensions in shape for extension in sorted(extensions)]
    archive = b"".join(entry(name, f"{i}".encode() * i) for i, name in enumerate(names)) + END
    assert webdatasets(archive) == list(samples(members([archive], URL), URL))


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax"])
def test_samples_of_other_tars(form: str) -> None:
    """Samples of archives that tarfile wrote are those that WebDataset's reader finds."""
    archive, _ = tars.cases()[form]
    found = list(samples(members([archive], URL), URL))
    assert webdatasets(archive) == found
    assert len(tars.SIZES) == len(found)


def shard(*names: str) -> list[Member]:
    return [Member(name, name.encode(), at * 1024) for at, name in enumerate(names)]


def test_a_sample_comes_when_the_next_one_begins() -> None:
    """A sample is yielded as soon as a member of the next one is there, and the last one at the end."""
    taken: list[str] = []

    def watched() -> object:
        for member in shard("a.jpg", "README", "a.cls", "b.jpg", "b.cls", "c.jpg"):
            taken.append(member.name)
            yield member

    stream = samples(watched(), URL)
    assert ("a", {"jpg": b"a.jpg", "cls": b"a.cls"}) == next(stream)
    assert ["a.jpg", "README", "a.cls", "b.jpg"] == taken
    assert ["b", "c"] == [key for key, _ in stream]


def test_no_members_are_no_samples() -> None:
    """A shard without members that belong to a sample has no samples."""
    assert [] == list(samples(shard("README", "d/", ".DS_Store"), URL))


@pytest.mark.parametrize(
    ("names", "told", "complete"),
    [
        (("a.jpg", "b.jpg", "a.cls"), "'a.cls' at offset 2048: sample 'a' had ended", ["a", "b"]),
        (("a.jpg", "b.jpg", "./a.cls"), "sample 'a' had ended", ["a", "b"]),
        (("a.jpg", "a.jpg"), "sample 'a' has a second member with the extension 'jpg'", []),
        (("x.jpg", "a.jpg", "a.JPG"), "'a.JPG' at offset 2048: sample 'a' has a second", ["x"]),
    ],
)
def test_what_would_be_merged_or_overwritten(names: tuple[str, ...], told: str, complete: list[str]) -> None:
    """A key that comes back, or a member twice, is an error behind the samples that were complete."""
    stream = samples(shard(*names), URL)
    assert complete == [key for key, _ in itertools.islice(stream, len(complete))]
    with pytest.raises(CorruptShard) as caught:
        next(stream)
    assert told in str(caught.value)
    assert URL == caught.value.url


def test_samples_before_an_error_are_whole() -> None:
    """The sample in which the archive breaks is not yielded, those before it are."""
    archive = b"".join(entry(name, b"x" * 600) for name in ("a.jpg", "a.cls", "b.jpg", "b.cls"))
    stream = samples(members([archive[:-1]], URL), URL)
    assert ("a", {"jpg": b"x" * 600, "cls": b"x" * 600}) == next(stream)
    with pytest.raises(CorruptShard, match="truncated behind"):
        next(stream)


SAMPLE = {"txt": b"T", "png": b"P", "cls": b"1"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("cls", "txt"), [("cls", b"1"), ("txt", b"T")]),
        (("jpg;jpeg;png", "cls"), [("jpg", b"P"), ("cls", b"1")]),
        (("png;txt",), [("png", b"P")]),
        (("json", "CLS"), [("json", b""), ("cls", b"1")]),
        ((" .Jpg ; .PNG ",), [("jpg", b"P")]),
        (("seg.png",), [("seg.png", b"")]),
    ],
)
def test_fields(fields: tuple[str, ...], expected: list[tuple[str, bytes]]) -> None:
    """A sample has exactly the fields asked for, in that order; the first alternative that is there counts."""
    parsed = Fields.parse(fields)
    assert expected == list(parsed.picked(SAMPLE, "a", URL).items())
    assert [name for name, _ in expected] == list(parsed.names)


def test_a_missing_field() -> None:
    """A missing field is filled with nothing, leaves the sample out, or is an error that names it."""
    assert {"jpg": b"", "cls": b"1"} == Fields.parse(("jpg;jpeg", "cls"), "zero").picked(SAMPLE, "a", URL)
    assert Fields.parse(("jpg;jpeg", "cls"), "skip").picked(SAMPLE, "a", URL) is None
    with pytest.raises(CorruptShard, match=r"sample 'd/a' has no field 'jpg;jpeg', only txt, png, cls") as caught:
        Fields.parse(("jpg;jpeg", "cls"), "error").picked(SAMPLE, "d/a", URL)
    assert URL == caught.value.url


def test_an_empty_field_is_there() -> None:
    """A field of no bytes is not a missing one."""
    assert {"cls": b""} == Fields.parse(("cls;txt",), "error").picked({"cls": b"", "txt": b"T"}, "a", URL)


@pytest.mark.parametrize(
    ("fields", "missing", "told"),
    [
        ("jpg", "zero", "a tuple such as"),
        ((), "zero", "at least one"),
        (("",), "zero", "no extension"),
        (("jpg;",), "zero", "no extension"),
        (("a/b",), "zero", "no extension"),
        (("jpg", "cls", "jpg;png"), "zero", "stands twice"),
        ((1,), "zero", "must be texts"),
        (("jpg",), "drop", "missing must be one of"),
    ],
)
def test_fields_that_cannot_be(fields: object, missing: str, told: str) -> None:
    """Fields that make no sense are refused when they are given."""
    with pytest.raises(ConfigError, match=told):
        Fields.parse(fields, missing)
