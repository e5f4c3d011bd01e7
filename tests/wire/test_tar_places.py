"""Tar archives by their headers alone: the same members as by reading everything."""

from __future__ import annotations

import random

import pytest
import tars

from aisdatapipes.model.errors import CorruptShard
from aisdatapipes.wire.tar import END, TarParser, entry
from aisdatapipes.wire.tar_places import Place, PlaceParser, is_nothing_but

CASES = tars.cases()
HOSTILE = tars.hostile()
BIG = entry("big.bin", bytes(LENGTH := 100_000)) + entry("x.txt", b"X") + END


def by_headers(archive, size, jump=True):
    """(places, error, bytes that were looked at); pieces of ``size`` bytes, data passed over."""
    parser, found, at, seen = PlaceParser("ais://b/s.tar"), [], 0, 0
    try:
        while at < len(archive) and not parser.at_garbage:
            chunk = archive[at : at + size]
            seen += len(chunk)
            found += parser.places(chunk)
            at += len(chunk)
            if jump and parser.wanted <= len(archive):
                at = parser.pass_over()
        parser.close()
    except CorruptShard as error:
        return found, error, seen
    return found, parser.unterminated, seen


def whole(archive):
    parser, found = TarParser("ais://b/s.tar"), []
    try:
        found += parser.feed(archive)
        parser.close()
    except CorruptShard as error:
        return found, error
    return found, parser.unterminated


@pytest.mark.parametrize("jump", [True, False], ids=["passing over data", "in one go"])
@pytest.mark.parametrize("size", [1, 511, 512, 1500, 1 << 20])
@pytest.mark.parametrize("case", CASES)
def test_places_are_those_of_the_members(case, size, jump):
    """Whatever the archive and the pieces: each member of the stream, in order, is at its place."""
    archive, files = CASES[case]
    places, unterminated, _ = by_headers(archive, size, jump)
    read = [(one.name, archive[one.offset + 512 : one.offset + 512 + one.size]) for one in places]
    assert (files, False) == (read, unterminated)
    assert [member.offset for member in whole(archive)[0]] == [one.offset for one in places]


@pytest.mark.parametrize("size", [511, 1 << 20])
@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_stream_refuses_is_refused(case, size):
    """The same archives are corrupt, and the message says the same."""
    archive, words = HOSTILE[case]
    _, error, _ = by_headers(archive, size)
    assert isinstance(error, CorruptShard)
    assert words.replace("which is not among", "which is not") in str(error)


@pytest.mark.parametrize("case", ["ustar", "pax long names", "gnu long names", "hard link"])
def test_cut_anywhere(case):
    """What a cut archive gives is what the stream gives, and a member whose data are cut: the error says so."""
    archive, _ = CASES[case]
    for at in random.Random(0).sample(range(1, len(archive)), 60):
        members, expected = whole(archive[:at])
        places, error, _ = by_headers(archive[:at], 700)
        complete = [one for one in places if one.offset + 512 + one.size <= at]
        assert [member.name for member in members] == [one.name for one in complete]
        assert (type(expected), str(expected)) == (type(error), str(error))


def test_data_are_passed_over():
    """Of a large member only the header is looked at."""
    places, _, seen = by_headers(BIG, 512)
    assert ([("big.bin", LENGTH), ("x.txt", 1)], 4 * 512) == ([(one.name, one.size) for one in places], seen)


def test_a_hard_link_to_a_member_far_away():
    """Nothing has to be kept for it but a place."""
    archive = BIG[:-1024] + entry("m.bin", bytes(9 << 20)) + tars.block(b"l", 0, b"1", b"big.bin") + END
    assert Place("l", 0, LENGTH) == by_headers(archive, 4096)[0][-1]


A = entry("a.txt", b"A")
NEXT = Place("next.txt", 512 * 10, 5)
FOLDER = tars.block(b"d/", 0, b"5")
LONG = entry("ü.txt", b"12345")[:1536]  # a pax header, its payload, and the header of the member
GAPS = {
    "a folder": (FOLDER, NEXT, True),
    "a folder and a symbolic link": (FOLDER + tars.block(b"s", 0, b"2", b"x"), NEXT, True),
    "a member that the index lacks": (A, NEXT, False),
    "a hard link": (tars.block(b"l", 0, b"1", b"a.txt"), NEXT, False),
    "a hard link within": (A + tars.block(b"l", 0, b"1", b"a.txt"), NEXT, False),
    "a sparse member": (tars.block(b"s.bin", 0, b"S"), NEXT, False),
    "a global header that names": (tars.block(b"g", 10, b"g") + tars.padded(b"10 path=x\n"), NEXT, False),
    "a global header with a comment": (tars.block(b"g", 16, b"g") + tars.padded(b"16 comment=abcd\n"), NEXT, True),
    "zeros": (bytes(1024), NEXT, False),
    "text": (tars.padded(b"<html>"), NEXT, False),
}


@pytest.mark.parametrize("case", GAPS)
def test_bytes_between_two_members(case):
    """They are harmless only if they hold no member, and change nothing of those that follow."""
    data, following, expected = GAPS[case]
    header = tars.block(b"next.txt", 5)
    assert expected is is_nothing_but(data + header, following.offset - len(data), following)


def test_an_extended_header_belongs_to_the_next_member():
    """A long name is told by what stands before its header; the index must tell the same."""
    assert is_nothing_but(LONG, 0, Place("ü.txt", 1024, 5))
    assert not is_nothing_but(LONG, 0, Place("u.txt", 1024, 5))
    assert not is_nothing_but(LONG, 0, Place("ü.txt", 1024, 6))


ENDS = {
    "two blocks": (END, True), "a record": (bytes(10240), True), "nothing": (b"", True), "one block": (bytes(512), True),
    "half a block": (bytes(100), True), "garbage behind": (END + b"x" * 700, True), "a member": (A + END, False),
    "an empty member": (entry("e.txt", b"") + bytes(512), False), "another archive": (END + A + END, False),
    "a header cut off": (A[:300], False), "a hard link": (tars.block(b"l", 0, b"1", b"a.txt") + END, False),
    "a folder": (FOLDER + END, True),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_bytes_behind_the_last_member(case):
    """The end of an archive, as the stream would take it."""
    data, expected = ENDS[case]
    assert expected is is_nothing_but(data, 4096, None)
