"""Any samples, written by tarfile in any format and read in any pieces, come back; and from behind any of them on."""

from __future__ import annotations

import tarfile

import tars
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes.wire.samples import samples
from aisdatapipes.wire.tar import members
from aisdatapipes.wire.tar_places import PlaceParser

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
WORDS = st.text(st.characters(exclude_characters="./\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
EXTENSIONS = st.sampled_from(["jpg", "cls", "seg.png", "json"])
CONTENT = st.binary(max_size=40) | st.builds(tars.content, st.sampled_from([511, 512, 513, 1024, 3000]))
SAMPLES = st.lists(
    st.tuples(
        st.lists(WORDS | st.just("v1.0"), max_size=3).map(lambda folders: "".join(f"{one}/" for one in folders)),
        WORDS,
        st.dictionaries(EXTENSIONS, CONTENT, min_size=1, max_size=4),
    ),
    max_size=6,
    unique_by=lambda one: one[0] + one[1],
)


@settings(deadline=None, max_examples=200)
@given(SAMPLES, st.sampled_from(sorted(FORMATS)), st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_round_trip(written, form, pieces):
    """Formats and pieces do not matter; places are those of the members; behind each member the rest can be read."""
    expected = [(folder + word, fields) for folder, word, fields in written]
    files = [(f"{key}.{extension}", data) for key, fields in expected for extension, data in fields.items()]
    try:
        archive = tars.by_tarfile(files, FORMATS[form])
    except ValueError:
        assert form == "ustar"  # which has room for so many bytes of a name only
        return
    found = list(members(cut(archive, pieces), "s"))
    assert files == [(one.name, one.data) for one in found]
    assert expected == list(samples(found, "s"))
    places = PlaceParser("s").places(archive)
    assert files == [(one.name, archive[one.offset + 512 :][: one.size]) for one in places]
    for number, one in enumerate(found, 1):
        assert found[number:] == list(members(cut(archive[one.end :], pieces), "s", start=one.end))


def cut(archive, pieces):
    at = number = 0
    while at < len(archive):
        size = pieces[number % len(pieces)]
        yield archive[at : at + size]
        at, number = at + size, number + 1
