"""Listings, both ways."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.wire import listing
from aisdatapipes.wire.listing import (
    Entry,
    ListOptions,
    Page,
    decoded_list,
    decoded_page,
    encoded_list,
    encoded_page,
)
from aisdatapipes.wire.malformed import Malformed

names = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
nonempty = st.binary(min_size=1, max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
sizes = st.integers(0, (1 << 63) - 1)
entries = st.builds(Entry, nonempty, names, names, names, names, names, sizes, sizes, st.integers(0, 65535))
pages = st.builds(Page, st.lists(entries, max_size=5), names, names, sizes)
texts = st.text(max_size=20)
options = st.builds(
    ListOptions, texts, st.integers(0, 1 << 40), texts, texts, texts, st.integers(0, 1 << 20), texts, texts
)

HEAD = b"\x84\xa4UUID\xa2u1\xb1ContinuationToken"
PAGES = [
    # what a server wrote for one object, asked for name and size
    (
        HEAD + b"\xa0\xa7Entries\x91\x83\xa1n\xa5a.jpg\xa1s\xcd\x30\x39\xa1f\x40\xa5Flags\x00",
        Page([Entry("a.jpg", size=12345, flags=listing.CACHED)], "", "u1"),
    ),
    # the end of a listing
    (HEAD + b"\xa0\xa7Entries\x90\xa5Flags\x00", Page([], "", "u1")),
    (HEAD + b"\xa1a\xa7Entries\x91\x81\xa1n\xa1a\xa5Flags\x00", Page([Entry("a")], "a", "u1")),
]


@pytest.mark.parametrize(("body", "page"), PAGES)
def test_page_both_ways(body, page):
    """The server's bytes are the page, and the page is those bytes up to the order of keys."""
    assert page == decoded_page(body)
    assert msgspec.msgpack.decode(body) == msgspec.msgpack.decode(encoded_page(page))


@given(pages)
def test_page_round_trip(page):
    """Whatever bytes the names are, a page comes back as it was."""
    assert page == decoded_page(encoded_page(page))


def test_names_that_are_no_text():
    """A name with a byte that is no UTF-8 keeps that byte; servers list such names."""
    body = HEAD + b"\xa0\xa7Entries\x91\x82\xa1n\xa3a\xffb\xa1s\x03\xa5Flags\x00"
    assert Page([Entry("a\udcffb", size=3)], "", "u1") == decoded_page(body)


@pytest.mark.parametrize("body", [b"\x80", b"\x83\xa4UUID\xc0\xb1ContinuationToken\xc0\xa7Entries\xc0"])
def test_nil_is_absent_is_empty(body):
    """Keys that are nil or not there at all read as empty."""
    assert Page([], "", "", 0) == decoded_page(body)


BROKEN = [
    b"",
    b"{}",
    b"\x90",
    PAGES[0][0][:-9],
    b"\x81\xa7Entries\x91\x80",
    b"\x81\xa7Entries\x91\x81\xa1n\x07",
    b"\x81\xa7Entries\x91\x81\xa1n\xa5\xff",
]


@pytest.mark.parametrize("body", BROKEN)
def test_no_page(body):
    """Anything else is an error of its own."""
    with pytest.raises(Malformed):
        decoded_page(body)


LISTS = [
    (
        (
            b'{"action":"list","name":"","value":{"prefix":"","pagesize":0,"uuid":"","props":"","continuation_token":"",'
            b'"flags":"0","target":""}}'
        ),
        ListOptions(),
    ),
    (
        (
            b'{"action":"list","name":"","value":{"prefix":"a/","pagesize":7,"uuid":"u","props":"name,size",'
            b'"continuation_token":"a/b","flags":"8","target":"t1","start_after":"a/a"}}'
        ),
        ListOptions("a/", 7, "a/b", "u", "name,size", listing.ARCH_DIR, "a/a", "t1"),
    ),
]


@pytest.mark.parametrize(("body", "wanted"), LISTS)
def test_list_both_ways(body, wanted):
    """The SDK's bytes are the options, and the options are those bytes."""
    assert wanted == decoded_list(body)
    assert body == encoded_list(wanted)


@given(options)
def test_list_round_trip(wanted):
    """Options come back as they were."""
    assert wanted == decoded_list(encoded_list(wanted))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"action":"list","value":null}',
        b'{"action":"list","value":{"flags":"x"}}',
        b'{"action":"create-bck","value":{}}',
    ],
)
def test_no_list(body):
    """A message that lists buckets, or nothing, is no list of objects."""
    with pytest.raises(Malformed):
        decoded_list(body)


def test_list_of_odd_bytes():
    """A prefix that is no UTF-8 cannot be asked for, and says so."""
    with pytest.raises(Malformed, match="UTF-8"):
        encoded_list(ListOptions(prefix="\udcff"))
