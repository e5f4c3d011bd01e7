"""Listings: pages, tokens, order, what is said about each object, and in which of two forms."""

from __future__ import annotations

import pytest
import xxhash

from tests.conformance.conftest import Place, error_of, names_of, said, tar_of

ARCH_DIR, NAME_ONLY, NAME_SIZE, NO_RECURSION = (str(1 << bit) for bit in (3, 4, 5, 11))
CACHED, IN_ARCHIVE, DIRECTORY, ARCHIVE = 64, 128, 256, 512
# A real cluster walks folders, entry by entry: where "a-" or "a.b" stand beside a folder "a/", whose names come after
# them in bytewise order, its pages do not join, and the prefix "a" finds the folder only. So no such names here.
NAMES = ["B", "a/1", "a/2", "a/sub/3", "ab", "b", "c", "d.e", "é"]


@pytest.fixture
def filled(place: Place) -> Place:
    place.bucket.fill({name: name.encode() * 3 for name in NAMES})
    return place


def test_a_listing_is_msgpack_with_these_keys(filled: Place) -> None:
    """Names in bytewise order; without props also sizes; the bit that an object is in the cluster; a uuid; no token."""
    page = filled.http.listed(filled.name)
    assert page["UUID"]
    assert (page["ContinuationToken"], page["Flags"]) == ("", 0)
    assert page["Entries"] == [{"n": name, "s": 3 * len(name.encode()), "f": CACHED} for name in NAMES]


def test_who_does_not_ask_for_msgpack_gets_json(filled: Place) -> None:
    """Other keys, and sizes as text."""
    reply = filled.http.list_reply(filled.name, "application/json", prefix="a/s", props="name,size")
    assert reply.headers["Content-Type"].startswith("application/json")
    page = reply.json()
    assert page.pop("uuid")
    assert page == {"continuation_token": "", "flags": 0, "entries": [{"name": "a/sub/3", "size": "21", "flags": 64}]}


def test_props_say_what_is_told(filled: Place) -> None:
    """Only what was asked for: with ``name`` names alone; checksum and version where they are wanted."""
    assert filled.http.listed(filled.name, prefix="B", props="name")["Entries"] == [{"n": "B", "f": CACHED}]
    (entry,) = filled.http.listed(filled.name, prefix="B", props="name,size,checksum,version,atime")["Entries"]
    assert entry.pop("a")
    assert entry == {"n": "B", "s": 3, "cs": xxhash.xxh64_hexdigest(b"BBB"), "v": "1", "f": CACHED}


@pytest.mark.parametrize(("flags", "expected"), [(NAME_ONLY, {}), (NAME_SIZE, {"s": 3})])
def test_flags_for_names_and_sizes(filled: Place, flags: str, expected: dict[str, int]) -> None:
    """The flags of fast listings say the same as the props."""
    (entry,) = filled.http.listed(filled.name, prefix="B", flags=flags)["Entries"]
    assert {key: entry[key] for key in entry if key != "f"} == {"n": "B", **expected}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", NAMES),
        ("a/s", ["a/sub/3"]),
        ("d", ["d.e"]),
        ("a/", ["a/1", "a/2", "a/sub/3"]),
        ("a/*", ["a/1", "a/2", "a/sub/3"]),
        ("a/1", ["a/1"]),
        ("é", ["é"]),
        ("nope", []),
    ],
)
def test_prefix_is_plain_text(filled: Place, prefix: str, expected: list[str]) -> None:
    """A prefix knows no folders; one star at its end means nothing."""
    assert names_of(filled.http.listed(filled.name, prefix=prefix, props="name")) == expected


def test_a_prefix_that_is_a_folder_may_hide_names_beside_it(place: Place) -> None:
    """Asked for ``a``, a server gives what is in the folder ``a/``, and perhaps not all else that begins with ``a``.

    Where one disk holds the folder and such a name, a real server leaves the name out, unless the feature
    Do-not-Optimize-Listing-Virtual-Dirs is on. Only a prefix that is no folder, or ends with a slash, is certain.
    """
    beside = {f"a{number}" for number in range(20)}
    place.bucket.fill(dict.fromkeys(["a/1", "a/2", *beside, "b"], b""))
    found = names_of(place.http.listed(place.name, prefix="a"))
    assert found[:2] == ["a/1", "a/2"]
    assert set(found[2:]) <= beside


@pytest.mark.parametrize("prefix", ["..", "a/../b"])
def test_prefix_with_dots_is_refused(filled: Place, prefix: str) -> None:
    """A prefix that would lead elsewhere in a file system is 400."""
    assert filled.http.list_reply(filled.name, "application/msgpack", prefix=prefix).status == 400


@pytest.mark.parametrize("size", [1, 2, 4, 9, 10])
def test_pages_join_to_the_listing(filled: Place, size: int) -> None:
    """A full page has the last name as its token, also when nothing follows; then the last page is empty."""
    found, pages, token, uuid = [], 0, "", ""
    while True:
        page = filled.http.listed(filled.name, pagesize=size, continuation_token=token, uuid=uuid, props="name")
        names = names_of(page)
        found, pages = found + names, pages + 1
        assert page["UUID"] == uuid or not uuid
        assert page["ContinuationToken"] == (names[-1] if len(names) == size else "")
        token, uuid = page["ContinuationToken"], page["UUID"]
        if not token:
            break
    assert (found, pages) == (NAMES, len(NAMES) // size + 1)


def test_any_uuid_is_echoed(filled: Place) -> None:
    """A page is of the listing that its request names."""
    assert filled.http.listed(filled.name, uuid="abcDEF123")["UUID"] == "abcDEF123"


@pytest.mark.parametrize(
    ("after", "expected"), [("a/1", ["a/2", "a/sub/3", "ab", "b", "c", "d.e", "é"]), ("a/10", ["a/2", "a/sub/3", "ab", "b", "c", "d.e", "é"]), ("é", []), ("zz", ["é"])]
)  # fmt: skip
def test_start_after_is_exclusive(filled: Place, after: str, expected: list[str]) -> None:
    """A listing can begin after any name, whether it is there or not."""
    assert names_of(filled.http.listed(filled.name, start_after=after, props="name")) == expected


def test_one_level_of_folders(filled: Place) -> None:
    """Without recursion folders stand for what is in them, with a slash and their flag."""
    page = filled.http.listed(filled.name, flags=NO_RECURSION, props="name")
    found = {entry["n"]: bool(entry.get("f", 0) & DIRECTORY) for entry in page["Entries"]}
    assert found == {"a/": True} | {name: False for name in NAMES if "/" not in name}
    inside = filled.http.listed(filled.name, flags=NO_RECURSION, prefix="a/", props="name")
    assert sorted(names_of(inside)) == ["a/1", "a/2", "a/sub/"]


def test_archives_are_listed_with_their_members(place: Place) -> None:
    """A shard has its flag, its members follow in the order of their names, with sizes; the prefix is the object's."""
    place.bucket.put("s.tar", tar_of({"x/2.jpg": b"22", "x/1.jpg": b"1", "./y": b"yyy"}))
    place.bucket.put("s.tar.bak", b"not looked into")
    page = place.http.listed(place.name, flags=ARCH_DIR, prefix="s.tar", props="name,size")
    found = [(entry["n"], entry["f"]) for entry in page["Entries"]]
    assert sorted(found) == [
        ("s.tar", CACHED | ARCHIVE),
        ("s.tar.bak", CACHED),
        ("s.tar/x/1.jpg", CACHED | IN_ARCHIVE),
        ("s.tar/x/2.jpg", CACHED | IN_ARCHIVE),
        ("s.tar/y", CACHED | IN_ARCHIVE),
    ]
    assert found == sorted(found)
    sizes = {entry["n"]: entry["s"] for entry in page["Entries"] if entry["f"] & IN_ARCHIVE}
    assert sizes == {"s.tar/x/1.jpg": 1, "s.tar/x/2.jpg": 2, "s.tar/y": 3}
    assert names_of(place.http.listed(place.name, flags=ARCH_DIR, prefix="s.tar/x")) == []


def test_empty_and_missing_buckets(place: Place) -> None:
    """An empty bucket has an empty page; a missing one is 404 with these words."""
    page = place.http.listed(place.name)
    assert (page["Entries"] or [], page["ContinuationToken"]) == ([], "")
    reply = place.http.list_reply("nosuch-bucket", "application/msgpack")
    assert said(reply) == (404, 'bucket "ais://nosuch-bucket" does not exist')
    assert error_of(reply)["tcode"] == "ErrBckNotFound"


def test_deleted_and_overwritten_objects_in_a_listing(filled: Place) -> None:
    """A deleted object is gone from the next listing, an overwritten one has its new size."""
    assert filled.ask("DELETE", "c").status == 200
    assert filled.ask("PUT", "b", body=b"longer than before").status == 200
    page = filled.http.listed(filled.name)
    assert names_of(page) == [name for name in NAMES if name != "c"]
    assert {entry["n"]: entry["s"] for entry in page["Entries"]}["b"] == 18


def test_sdk_lists_the_same(filled: Place) -> None:
    """The SDK's listing, page by page and at once, is the one on the wire."""
    at_once = [entry.name for entry in filled.bucket.sdk.list_all_objects(props="name,size", page_size=2)]
    one_by_one = [entry.name for entry in filled.bucket.sdk.list_objects_iter(props="name,size", page_size=4)]
    assert [at_once, one_by_one] == [NAMES, NAMES]
