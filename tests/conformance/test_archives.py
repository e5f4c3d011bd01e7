"""Members of a tar that the server takes out itself."""

from __future__ import annotations

import tarfile

import pytest

from tests.conformance.conftest import Place, error_of, said, tar_of, untarred

MEMBERS = {"x/1.jpg": b"J1", "x/1.cls": b"1", "x/2.jpg": b"J22", "y.txt": b"", "z/1.jpg": b"Z"}


@pytest.fixture
def shard(place: Place) -> Place:
    place.bucket.put("dir/s.tar", tar_of(MEMBERS))
    return place


@pytest.mark.parametrize("archpath", ["x/1.jpg", "x%2F1.jpg", "/x/1.jpg", "dir/s.tar/x/1.jpg"])
def test_one_member(shard: Place, archpath: str) -> None:
    """By its path, with or without a slash or the shard's name before it; length and type, and no attributes."""
    reply = shard.ask("GET", "dir/s.tar", f"&archpath={archpath}")
    assert (reply.status, reply.data, reply.headers["Content-Length"]) == (200, b"J1", "2")
    assert [key for key in reply.headers if key.lower().startswith("ais-")] == []


def test_an_empty_member(shard: Place) -> None:
    """It is there, and empty."""
    reply = shard.ask("GET", "dir/s.tar", "&archpath=y.txt")
    assert (reply.status, reply.data) == (200, b"")


def test_a_missing_member(shard: Place) -> None:
    """404, and the words name member and shard."""
    reply = shard.ask("GET", "dir/s.tar", "&archpath=nope.jpg")
    assert said(reply) == (404, f"t[ID]: nope.jpg in ais://{shard.name}/dir/s.tar does not exist")
    assert error_of(reply)["tcode"] == "ErrNotFound"


def test_a_member_of_a_missing_shard(shard: Place) -> None:
    """404, as for the shard."""
    assert said(shard.ask("GET", "no.tar", "&archpath=x")) == (404, f"t[ID]: ais://{shard.name}/no.tar does not exist")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("archmode=prefix&archregx=x/", ["x/1.jpg", "x/1.cls", "x/2.jpg"]),
        ("archmode=suffix&archregx=.jpg", ["x/1.jpg", "x/2.jpg", "z/1.jpg"]),
        ("archmode=substr&archregx=1", ["x/1.jpg", "x/1.cls", "z/1.jpg"]),
        ("archmode=regexp&archregx=%5Ex/[12]%5C.jpg$", ["x/1.jpg", "x/2.jpg"]),
        ("archmode=wdskey&archregx=x/1", ["x/1.jpg", "x/1.cls"]),
        ("archmode=prefix&archregx=", list(MEMBERS)),
    ],
)
def test_members_that_match(shard: Place, query: str, expected: list[str]) -> None:
    """A tar of them, in the shard's order."""
    reply = shard.ask("GET", "dir/s.tar", f"&{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-tar")
    assert untarred(reply.data) == [(name, MEMBERS[name]) for name in expected]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(place: Place, kind: bytes) -> None:
    """They are members without content; folders are none."""
    link, folder = tarfile.TarInfo("l.txt"), tarfile.TarInfo("d")
    link.type, link.linkname, folder.type = kind, "a.txt", tarfile.DIRTYPE
    place.bucket.put("s.tar", tar_of({"a.txt": b"A"})[:1024] + link.tobuf() + folder.tobuf() + bytes(1024))
    page = place.http.listed(place.name, flags=str(1 << 3), prefix="s.tar")
    assert [entry["n"] for entry in page["Entries"]] == ["s.tar", "s.tar/a.txt", "s.tar/l.txt"]
    assert place.ask("GET", "s.tar", "&archpath=l.txt").data == b""


def test_no_member_matches(shard: Place) -> None:
    """404, not an empty tar."""
    assert shard.ask("GET", "dir/s.tar", "&archmode=prefix&archregx=nope").status == 404


def test_a_pattern_without_a_mode_is_ignored(shard: Place) -> None:
    """The whole shard comes."""
    assert shard.ask("GET", "dir/s.tar", "&archregx=x").data == tar_of(MEMBERS)


@pytest.mark.parametrize("query", ["archmode=what&archregx=x", "archpath=x/1.jpg&archmode=prefix&archregx=x"])
def test_modes_that_cannot_be(shard: Place, query: str) -> None:
    """400 for an unknown mode, and for a path and a mode together."""
    assert shard.ask("GET", "dir/s.tar", f"&{query}").status == 400


def test_a_range_of_a_member(shard: Place) -> None:
    """400: ranges and archives do not go together, whatever the archive is."""
    status, message = said(shard.ask("GET", "dir/s.tar", "&archpath=x/1.jpg", Range="bytes=0-9"))
    assert status == 400
    assert message.endswith(
        "cannot range-read archived content range: bytes=0-9, arch query: (archpath=x/1.jpg) - operation not supported"
    )


def test_a_range_of_the_shard(shard: Place) -> None:
    """The bytes of a member can be read by range from the shard itself, which is what an index is for."""
    start = tar_of(MEMBERS).index(b"J22")
    assert shard.ask("GET", "dir/s.tar", Range=f"bytes={start}-{start + 2}").data == b"J22"


def test_an_object_that_is_no_archive(place: Place) -> None:
    """An error, not an empty answer."""
    place.bucket.put("plain", b"no archive" * 100)
    assert place.ask("GET", "plain", "&archpath=x").status >= 400
