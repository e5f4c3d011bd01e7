"""Shard indexes as bytes, both ways, and bytes that only look like one."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.placement import SEED
from aisdatapipes.wire.shardindex import KEPT, SERVER, ShardIndex, decoded_index, encoded_index

names = st.binary(min_size=1, max_size=20)


@st.composite
def archives(draw):
    """Members that lie one behind the other, with holes between them here and there, and the shard's size."""
    at, entries = 0, []
    for name, size, hole in draw(st.lists(st.tuples(names, st.integers(0, 1 << 40), st.integers(0, 4)), max_size=20)):
        at += 512 * hole
        entries.append((name, at, size))
        at += 512 + size + -size % 512
    return entries, at + draw(st.integers(0, 10240))


def told(index):
    return (index.checksum_type, index.checksum, index.size, list(index.entries()))


def raw(payload, head=b"\x01\x00\x01"):
    return head + xxhash.xxh64_digest(payload, SEED) + payload


def number(value):
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def payload(*entries, size=4096, count=None):
    """A payload of entries that need not be possible."""
    parts = (number(len(name)) + name + number(offset) + number(length) for name, offset, length in entries)
    said = len(entries) if count is None else count
    return b"\x07xxhash2" + b"\x10" + b"0123456789abcdef" + number(size) + number(said) + b"".join(parts)


@given(archives(), st.text("0123456789abcdef", max_size=16), st.randoms())
@example(([], 0), "", None)
def test_a_server_s_index_is_what_was_encoded(archive, checksum, random):
    """In whichever order the server writes them, entries come out in archive order."""
    entries, size = archive
    expected = told(ShardIndex.of(entries, checksum, size))
    shuffled = list(entries)
    if random is not None:
        random.shuffle(shuffled)
    found = decoded_index(encoded_index(ShardIndex.of(shuffled, checksum, size), SERVER))
    assert told(found) == expected
    assert decoded_index(encoded_index(found, SERVER)).sizes.tolist() == [length for *_, length in entries]


@given(archives(), st.randoms())
def test_a_kept_index_keeps_its_order(archive, random):
    """Repeated names, and members that share their data (hard links), stay where they are."""
    entries, size = archive
    linked = entries + [(b"link", offset, length) for _, offset, length in entries[:2]]
    random.shuffle(linked)
    one = ShardIndex.of(linked, "ab", size, "md5")
    assert told(decoded_index(encoded_index(one), KEPT)) == told(one)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_index_or_malformed(data):
    """Nothing else is raised, also where the checksum is right."""
    for one in (data, raw(data), raw(payload(count=len(data)) + data)):
        with contextlib.suppress(Malformed):
            assert len(decoded_index(one)) <= len(one) / 3


@given(st.data())
def test_one_changed_byte_is_seen(data):
    """The checksum covers all of the payload."""
    good = encoded_index(ShardIndex.of([(b"a.jpg", 0, 700), (b"a.cls", 1536, 1)], "0123", 4096), SERVER)
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        decoded_index(good[:at] + bytes([good[at] ^ other]) + good[at + 1 :])


A = (b"a", 0, 100)
HOSTILE = {
    "nothing": (b"", "0 bytes are less"),
    "half a head": (b"\x01\x00\x01abc", "6 bytes are less"),
    "another version": (raw(payload(), b"\x02\x00\x01"), "version 2"),
    "another format": (raw(payload(), b"\x01\x05\x01"), "format 5"),
    "a kept one": (raw(payload(), b"\x01\x80\x01"), "format 128"),
    "another checksum": (raw(payload(), b"\x01\x00\x02"), "type 2"),
    "a wrong checksum": (raw(payload(A))[:-1] + b"\x00", "damaged"),
    "an empty payload": (raw(b""), "truncated"),
    "a checksum that ends early": (raw(b"\x07xxhash2\x10abc"), "a text of 16 bytes, and 3 are left"),
    "a checksum that is no text": (raw(b"\x07xxhash2\x01\xff\x00\x00"), "no text"),
    "a member too few": (raw(payload(A, count=2) + b"\x01b\x00"), "ends inside an entry"),
    "more members than bytes": (raw(payload(A, count=1 << 19)), "claims 524288 members"),
    "more members than can be": (raw(payload(count=(1 << 20) + 1) + bytes(4 << 20)), "at most 1048576"),
    "bytes behind": (raw(payload(A) + b"x"), "1 bytes behind"),
    "a number without end": (raw(b"\xff" * 100), "too large"),
    "a name that ends early": (raw(payload(count=1) + b"\x7fabc"), "a text of 127 bytes"),
    "an offset amid a block": (raw(payload((b"b", 100, 1))), "'b' is at offset 100, which is no multiple of 512"),
    "a header outside": (raw(payload((b"b", 4096, 0))), "'b' begins at 4096, behind the end"),
    "data outside": (raw(payload((b"b", 3072, 513))), "'b' at 3072 has 513 bytes"),
    "the largest numbers": (raw(payload((b"b", (1 << 63) - 512, (1 << 63) - 1))), "behind the end"),
    "a large size": (raw(payload((b"b", 512, (1 << 63) - 1))), "9223372036854775807 bytes"),
    "two in one place": (raw(payload(A, (b"b", 0, 100))), "begins inside the one before it"),
    "one inside another": (raw(payload((b"b", 512, 1), (b"a", 0, 513))), "'b' at 512 begins inside"),
    "a shard of no size": (raw(payload(A, size=0)), "behind the end of the shard (0 bytes)"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_is_malformed_and_says_why(case):
    """An index is checked before anything is read by it."""
    data, words = HOSTILE[case]
    with pytest.raises(Malformed) as caught:
        decoded_index(data)
    assert words in str(caught.value)


def test_claims_get_no_memory():
    """A megabyte that claims a million members does not cost more than what is in it."""
    data = raw(payload(count=1 << 20) + bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(Malformed):
        decoded_index(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


def test_uncovered_bytes():
    """What no member has: before, between (its padding belongs to a member), and the end, which may be empty."""
    index = ShardIndex.of([(b"a", 512, 100), (b"b", 1536, 512), (b"c", 4096, 0)], "", 10240)
    assert index.uncovered() == [(0, 512), (2560, 4096), (4608, 10240)]
    assert ShardIndex.of([(b"a", 0, 100)], "", 1024).uncovered() == [(1024, 1024)]
    assert ShardIndex.of([(b"a", 0, 100)], "", 700).uncovered() == [(1024, 700)]  # the padding is cut off
    assert ShardIndex.of([], "", 1024).uncovered() == [(0, 1024)]


def test_an_index_is_small():
    """20 bytes a member and its name."""
    index = ShardIndex.of([(b"%06d" % i, 1024 * i, 512) for i in range(1000)], "", 1 << 20)
    arrays = (index.ends, index.offsets, index.sizes, np.frombuffer(index.blob, np.uint8))
    assert sum(array.nbytes for array in arrays) == 26 * 1000
