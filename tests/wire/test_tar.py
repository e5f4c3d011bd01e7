"""Tar archives: what is in them comes out, whatever the pieces; what is broken is named."""

from __future__ import annotations

import io
import itertools
import pickle
import random
import shutil
import subprocess
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import tars
from hypothesis import given, settings
from hypothesis import strategies as st

from aisdatapipes.model.errors import ConfigError, CorruptShard
from aisdatapipes.wire.tar import END, LINK_BYTES, LINK_MEMBER_BYTES, Member, TarParser, entry, members
from aisdatapipes.wire.tar_header import octal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CASES = tars.cases()
HOSTILE = tars.hostile()
URL = "ais://b/s.tar"


def cut(archive: bytes, size: int) -> list[bytes]:
    return [archive[at : at + size] for at in range(0, len(archive), size)]


def read(chunks: list[bytes]) -> tuple[list[Member], CorruptShard | bool]:
    """The members, and the error or whether the end was unmarked."""
    got: list[Member] = []
    parser = TarParser(URL)
    try:
        for chunk in chunks:
            got += parser.feed(chunk)
        parser.close()
    except CorruptShard as error:
        return got, error
    return got, parser.unterminated


def files(got: list[Member]) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in got]


@pytest.mark.parametrize("size", [1, 100, 511, 512, 513, 1500, 1 << 20])
@pytest.mark.parametrize("case", CASES)
def test_members_whatever_the_pieces(case: str, size: int) -> None:
    """The members of an archive are the same for pieces of any size."""
    archive, expected = CASES[case]
    got, unterminated = read(cut(archive, size))
    assert (expected, False) == (files(got), unterminated)


@pytest.mark.parametrize("case", [case for case in CASES if case != "gnu times in the prefix"])
def test_tarfile_agrees(case: str) -> None:
    """Python's tarfile finds the same files in every case (except that it takes GNU's times for a prefix)."""
    archive, expected = CASES[case]
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8") as tar:
        found = [(info.name, tar.extractfile(info).read()) for info in tar if info.isreg() or info.islnk()]
    assert expected == found


@pytest.mark.parametrize("case", CASES)
def test_data_stand_at_the_offset(case: str) -> None:
    """The data of a member, also of a hard link, stand 512 bytes behind its offset."""
    archive, _ = CASES[case]
    for member in read([archive])[0]:
        start = member.offset + 512
        assert member.offset % 512 == 0
        assert member.data == archive[start : start + len(member.data)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_comes_out_is_bytes(kind: type) -> None:
    """Data are ``bytes`` of their own, whatever was fed: a buffer that is used again does not change them."""
    buffer = bytearray(entry("a", b"A" * 600) + END)
    got = TarParser(URL).feed(kind(buffer) if kind is not bytearray else buffer)
    buffer[:] = bytes(len(buffer))
    assert [Member("a", b"A" * 600, 0, 1536)] == got
    assert type(got[0].data) is bytes


@pytest.mark.parametrize("data", [b"", b"A", tars.content(512), tars.content(1300)])
def test_plain_entries_are_the_bytes_of_tarfile(data: bytes) -> None:
    """``entry`` writes what tarfile writes as ustar, and reads as it was written."""
    expected = tars.by_tarfile([("d/a.txt", data)], tarfile.USTAR_FORMAT, mtime=1700000000)
    assert expected == entry("d/a.txt", data, mtime=1700000000) + END
    assert [("d/a.txt", data)] == files(read([expected])[0])


@pytest.mark.parametrize("name", ["n" * 100, "n" * 101, tars.LONG, "ü.jpg", "caf\udce9.jpg", "日本/語.png", "a b\n"])
def test_tarfile_reads_entries(name: str) -> None:
    """Entries with names that ustar cannot hold are read by tarfile under that name."""
    with tarfile.open(fileobj=io.BytesIO(entry(name, b"x" * 600) + END), encoding="utf-8") as tar:
        assert [(name, b"x" * 600)] == [(info.name, tar.extractfile(info).read()) for info in tar]


@pytest.mark.parametrize("arguments", [{"name": ""}, {"name": "a\0b"}, {"mtime": -1}, {"mtime": 8**11}])
def test_entries_that_no_tar_can_hold(arguments: dict) -> None:
    """A name or a time that a header cannot hold is refused."""
    with pytest.raises(ConfigError, match="a member's"):
        entry(**{"name": "a", "data": b"", **arguments})


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"0000644\0", 0o644), (b"  1750 \0", 0o1750), (b"7\0garbage", 7), (bytes(8), 0), (b" 17 \0 ", 15)],
)
def test_octal_numbers(field: bytes, value: int) -> None:
    """Octal fields are read as writers of fifty years filled them."""
    assert value == octal(field)


NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",))
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    min_size=1,
    max_size=150,
).filter(lambda name: name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == name)
CONTENTS = st.binary(max_size=1500)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(NAMES, CONTENTS), max_size=6), st.lists(st.integers(1, 2000), min_size=1, max_size=40))
def test_what_is_written_is_read(wanted: list[tuple[str, bytes]], steps: list[int]) -> None:
    """Any names and contents come back as they were written, through any pieces."""
    archive = b"".join(itertools.starmap(entry, wanted)) + END
    bounds = [
        0,
        *(at for at in itertools.accumulate(itertools.islice(itertools.cycle(steps), 3000)) if at < len(archive)),
    ]
    chunks = [archive[a:b] for a, b in itertools.zip_longest(bounds, bounds[1:])]
    assert archive == b"".join(chunks)
    got, unterminated = read(chunks)
    assert (wanted, False) == (files(got), unterminated)


@pytest.mark.parametrize("case", ["ustar", "gnu long names", "pax long names", "hard link"])
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_every_truncation(case: str, size: int) -> None:
    """An archive cut anywhere gives its complete members, and is an error except where a member ends."""
    archive, expected = CASES[case]
    whole = read([archive])[0]
    # Where an archive may stop: behind each member's padding (a link has no data of its own).
    ends = {0}
    parser = TarParser(URL)
    for at in range(0, len(archive) - 1024, 512):
        step = parser.feed(archive[at : at + 512])
        ends |= {at + 512} if step else set()
    end = max(ends)
    for length in range(end + 1100):
        got, outcome = read(cut(archive[:length], size))
        assert files(whole[: len(got)]) == files(got)
        if length == 0 or (length < end and length not in ends):
            assert isinstance(outcome, CorruptShard), length
            assert URL in str(outcome)
        else:
            assert (length < end + 1024) == outcome, length
    assert expected == files(whole)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_a_changed_header_is_seen(flip: int) -> None:
    """A byte of a header that changes is an error, or changes nothing."""
    archive, expected = CASES["ustar"]
    start = read([archive])[0][3].offset
    for at in range(start, start + 512):
        broken = bytearray(archive)
        broken[at] ^= flip
        got, outcome = read([bytes(broken)])
        assert isinstance(outcome, CorruptShard) or expected == files(got), at
        assert expected[:3] == files(got)[:3]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(sorted(CASES)),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_noise_is_no_other_error(case: str, flips: list[tuple[int, int]], good_checksums: bool) -> None:
    """Whatever bytes change, nothing but CorruptShard is raised; not even when the checksums are made to fit."""
    broken = bytearray(CASES[case].archive)
    for at, flip in flips:
        broken[at % len(broken)] ^= flip
    if good_checksums:
        for at in range(0, len(broken) - 511, 512):
            head = broken[at : at + 512]
            if head[257:262] == b"ustar":
                head[148:156] = b" " * 8
                broken[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    one, outcome = read([bytes(broken)])
    other, same = read(cut(bytes(broken), 300))
    assert (one, str(outcome)) == (other, str(same))


@pytest.mark.parametrize("size", [1, 512, 700, 1 << 22])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(case: str, size: int) -> None:
    """What cannot be read as it was meant is an error that names shard, place and reason."""
    archive, word = HOSTILE[case]
    _, outcome = read(cut(archive[:200_000], size))
    assert isinstance(outcome, CorruptShard)
    assert outcome.url == URL
    assert word in str(outcome)
    assert " at offset " in str(outcome)
    assert pickle.loads(pickle.dumps(outcome)).url == URL


def test_the_error_names_the_member() -> None:
    """A cut member is named with its offset and how much of it is there."""
    archive = entry("a.txt", b"A") + entry("b.txt", b"B" * 600)
    got, outcome = read([archive[:1800]])
    assert ["a.txt"] == [member.name for member in got]
    assert f"{URL}: member 'b.txt' at offset 1024: truncated: 264 of 600 bytes are there" in str(outcome)


def test_complete_members_come_before_the_error() -> None:
    """Members in the same piece as the damage are handed out; the error comes with the next call, and stays."""
    parser = TarParser(URL)
    assert ["a"] == [member.name for member in parser.feed(entry("a", b"A") + b"?" * 512)]
    for call in (lambda: parser.feed(b""), parser.close, parser.close):
        with pytest.raises(CorruptShard, match="at offset 1024"):
            call()


def test_a_member_comes_with_its_last_byte() -> None:
    """A member is handed out before its padding or anything behind it has arrived."""
    parser = TarParser(URL)
    archive = entry("a", b"A" * 100)
    assert [] == parser.feed(archive[:611])
    assert ["a"] == [member.name for member in parser.feed(archive[611:612])]


def test_the_end_is_known() -> None:
    """``ended`` turns true with the second zero block."""
    parser = TarParser(URL)
    parser.feed(entry("a", b"A") + END[:1023])
    assert not parser.ended
    parser.feed(b"\0")
    assert parser.ended


def test_an_unmarked_end_is_reported_once() -> None:
    """An archive without its two zero blocks is read, and reported to who asked."""
    told: list[str] = []
    assert ["a"] == [member.name for member in members([entry("a", b"A")], URL, on_unterminated=told.append)]
    assert [URL] == told
    assert [] == list(members([END], URL, on_unterminated=told.append))
    assert [URL] == told


TAR = shutil.which("tar")
GNU_TAR = (
    TAR is not None
    and "GNU tar" in subprocess.run([TAR, "--version"], capture_output=True, text=True, check=True).stdout
)
needs_gnu_tar = pytest.mark.skipif(not GNU_TAR, reason="the program tar is not GNU tar")


@needs_gnu_tar
@pytest.mark.parametrize(
    "options", ["--format=v7", "--format=ustar", "--format=gnu", "--format=oldgnu", "--format=posix"]
)
def test_what_gnu_tar_packs(tmp_path: Path, options: str) -> None:
    """Every format of GNU tar gives the files of the folder, hard links among them, in the order they were packed."""
    wanted = {f"./d/{size}.bin": tars.content(size, size) for size in tars.SIZES}
    if options not in ("--format=v7", "--format=ustar"):
        wanted |= {"./" + "long" * 40 + ".jpg": b"long", "./d/" + "ü" * 60 + ".jpg": b"u"}
    (tmp_path / "d").mkdir()
    for name, data in wanted.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "d/soft.jpg").symlink_to("1.bin")
    for name in list(wanted)[3:]:
        link = name.removesuffix(".bin").removesuffix(".jpg") + ".z"
        (tmp_path / link).hardlink_to(tmp_path / name)
        wanted[link] = wanted[name]
    packed = subprocess.run(["tar", "-c", options, "--sort=name", "-C", tmp_path, "."], capture_output=True, check=True)
    got, unterminated = read(cut(packed.stdout, 10240))
    assert (sorted(wanted.items()), False) == (sorted(files(got)), unterminated)


@needs_gnu_tar
@pytest.mark.parametrize(
    "options",
    [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ],
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: str) -> None:
    """A file that GNU tar packs as sparse is an error that says how to pack it."""
    with (tmp_path / "s.bin").open("wb") as file:
        file.truncate(1 << 20)
    packed = subprocess.run(["tar", "-cS", *options.split(), "-C", tmp_path, "s.bin"], capture_output=True, check=True)
    got, outcome = read([packed.stdout])
    assert [] == got
    assert "pack it without --sparse" in str(outcome)


@needs_gnu_tar
def test_gnu_tar_reads_entries(tmp_path: Path) -> None:
    """What ``entry`` writes is unpacked by GNU tar."""
    wanted = {"a.txt": b"A" * 600, "d/" + "n" * 150: b"N", "ü.jpg": b""}
    archive = b"".join(entry(name, data) for name, data in wanted.items()) + END
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True)
    assert wanted == {
        str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    }


def linked(between: bytes) -> bytes:
    return entry("label", b"1") + between + tars.block(b"copy", 0, b"1", b"label") + END


@pytest.mark.parametrize("size", [1 << 14, 1 << 25])
def test_hard_links_reach_back_a_fixed_way(size: int) -> None:
    """How far back a link reaches depends on the archive alone: half of LINK_BYTES always, more never."""
    filler = entry("f", bytes(LINK_MEMBER_BYTES // 2))
    near, far = filler * (LINK_BYTES // 2 // len(filler)), filler * (LINK_BYTES // len(filler) + 2)
    got, outcome = read(cut(linked(near), size))
    assert (("copy", b"1"), False) == (files(got)[-1], outcome)
    got, outcome = read(cut(linked(far), size))
    assert "hard link to 'label'" in str(outcome)
    assert "--hard-dereference" in str(outcome)


def test_a_target_in_use_stays() -> None:
    """A file that is linked to again and again is found however long the archive is."""
    filler = entry("f", bytes(LINK_MEMBER_BYTES // 2))
    link = tars.block(b"copy", 0, b"1", b"label")
    got, outcome = read([entry("label", b"1")] + [filler * 3, link] * 20 + [END])
    assert (20, False) == (sum(member.name == "copy" and member.data == b"1" for member in got), outcome)


def test_links_cannot_hold_on_to_everything() -> None:
    """However many members are linked to again, what is kept for links is bounded; those that drop out are an error."""

    def stream() -> Iterator[bytes]:
        for at in range(160):
            yield entry(f"f{at}", bytes(LINK_MEMBER_BYTES // 2))
            if at % 8 == 7:
                yield b"".join(tars.block(b"l", 0, b"1", b"f%d" % earlier) for earlier in range(at + 1))

    tracemalloc.start()
    try:
        with pytest.raises(CorruptShard, match="not among"):
            for _ in members(stream(), URL):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * LINK_BYTES


def test_a_hard_link_to_a_symbolic_link_is_passed_over() -> None:
    """A hard link to something that is no file is passed over like its target."""
    archive = tars.block(b"s", 0, b"2", b"x") + tars.block(b"h", 0, b"1", b"s") + tars.block(b"i", 0, b"1", b"h") + END
    assert ([], False) == read([archive])


def test_memory_is_one_member() -> None:
    """A quarter of a GiB passes through in the memory of one member, one piece, and what links may point to."""
    one = entry("m.bin", bytes(3 << 20))
    stream = itertools.chain(cut(one, 1 << 16) * 64, *([cut(entry("s", bytes(4000)) * 16, 1 << 16)] * 1000), [END])
    tracemalloc.start()
    try:
        count = sum(1 for _ in members(stream, URL))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 64 + 16000
    assert peak < LINK_BYTES + 4 * (3 << 20)


def test_many_pieces_of_a_large_member_are_joined_once() -> None:
    """A member in a thousand pieces takes its own size and one copy, not a copy a piece."""
    size = 16 << 20
    chunks = cut(entry("m.bin", bytes(size)) + END, 1 << 14)
    tracemalloc.start()
    try:
        got = list(members(chunks, URL))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [size] == [len(member.data) for member in got]
    assert peak < 1.5 * size  # the pieces themselves are the caller's


def test_random_pieces_of_all_cases_one_after_another() -> None:
    """Nothing of an archive leaks into the next one, whatever the pieces."""
    draw = random.Random(7)
    for archive, expected in CASES.values():
        rest, chunks = archive, []
        while rest:
            step = draw.choice((1, 13, 511, 512, 4096))
            chunks.append(rest[:step])
            rest = rest[step:]
        assert expected == files(read(chunks)[0])
