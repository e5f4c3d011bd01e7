"""Where the proxy sends a request about an object, and how it says so."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import xxhash

from tests.conformance.conftest import Place, error_of, names_of, owner, said, split_location

ODD = [
    "a#b", "a?b", "100%", "per%20cent", "%", "%2f", "a b", " lead", "trail ", "two  blanks", "a+b", "a&b=c", "a;b,c", "a:b@c",
    "it's", 'say "x"', "back\\slash", "~tilde", "a~", "[x]{y}", "a|b^c`d", "<a>", "$!*()", "a=b", "a..b", "..a", ".hidden", "...",
    "-", "ünïcode/ß.jpg", "日本語/文.txt", "e\u0301", "\U0001f600", "deep/er/and/deep/er", "x" * 200, "y" * 100 + "/" + "z" * 150,
    "v1/objects/x", "?provider=aws", "#?%+&", "a/ b/c",
]  # fmt: skip
NAMES = [*ODD, *(f"train/{number:05}.jpg" for number in range(12))]


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 307), ("PUT", 307), ("DELETE", 307)])
def test_proxy_redirects_to_the_owner(place: Place, method: str, status: int) -> None:
    """301 for a GET, 307 for the others, to the owner's public address, whether or not the object exists."""
    reply = place.http.once(method, place.path("x.jpg") + "?provider=ais", b"body" if method == "PUT" else None)
    node, _ = split_location(reply)
    assert (reply.status, node) == (status, place.owner("x.jpg")["public_net"]["direct_url"])


def test_redirect_keeps_the_query_and_adds_its_mark(place: Place) -> None:
    """The query comes first and as it was; then the proxy's id and the time in base 36."""
    query = "provider=ais&archpath=a%2Fb&x=1"
    reply = place.http.once("GET", f"{place.path('x.jpg')}?{query}")
    proxy = place.http.once("GET", "/v1/daemon?what=smap").json()["proxy_si"]["daemon_id"]
    expected = rf"https?://[^/]+{re.escape(place.path('x.jpg'))}\?{re.escape(query)}&pid={proxy}&utm=[0-9a-z]+"
    assert re.fullmatch(expected, reply.headers["Location"])


def test_placement_of_any_name_can_be_computed(place: Place) -> None:
    """The proxy redirects to the target with the highest random weight, to the same name, whatever is in it."""
    targets = place.http.targets()
    expected, actual = {}, {}
    for name in NAMES:
        reply = place.http.once("GET", place.path(name) + "?provider=ais")
        assert reply.status == 301, (name, reply.data)
        node, rest = split_location(reply)
        expected[name] = targets[owner(targets, place.name, name)]["public_net"]["direct_url"]
        actual[unquote(urlsplit(rest).path).removeprefix(f"/v1/objects/{place.name}/")] = node
        assert {"provider", "pid", "utm"} == set(dict(parse_qsl(urlsplit(rest).query)))
    assert actual == expected


def test_any_name_is_stored_read_and_listed(place: Place) -> None:
    """What is put under a name is got under it, and listed under it, in bytewise order."""
    for name in NAMES:
        put = place.ask("PUT", name, body=name.encode())
        assert put.status == 200, (name, put.data)
    assert {name: place.ask("GET", name).data.decode() for name in NAMES} == {name: name for name in NAMES}
    assert names_of(place.http.listed(place.name)) == sorted(NAMES, key=str.encode)


@pytest.mark.parametrize("name", ["a/../b", "../b", "a/./b", ".", "..", "a/..", "~/a", "dir/"])
def test_names_that_are_paths_are_refused(place: Place, name: str) -> None:
    """A name that would lead elsewhere in a file system is 400, at the proxy."""
    status, message = said(place.http.once("GET", place.path(name) + "?provider=ais"))
    assert (status, message) == (400, f'invalid object name "{name}"')


def test_redirect_of_a_direct_read_is_none(place: Place) -> None:
    """The owner answers a GET and a HEAD that no proxy sent; another target says that there is no such object."""
    place.bucket.put("x.jpg", b"content")
    mine = place.owner("x.jpg")["daemon_id"]
    for node in place.http.targets().values():
        at = node["public_net"]["direct_url"]
        got = place.http.once("GET", place.path("x.jpg") + "?provider=ais", at=at)
        head = place.http.once("HEAD", place.path("x.jpg") + "?provider=ais&props=checksum", at=at)
        if node["daemon_id"] == mine:
            assert (got.status, got.data, got.headers["Ais-Checksum-Value"]) == (
                200,
                b"content",
                xxhash.xxh64_hexdigest(b"content"),
            )
            assert (head.status, head.headers["Content-Length"]) == (200, "7")
        else:
            assert said(got) == (404, f"t[ID]: ais://{place.name}/x.jpg does not exist")
            assert (head.status, error_of(head)["status"]) == (404, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_direct_writes_are_refused(place: Place, method: str) -> None:
    """Who writes has to come by way of the proxy."""
    at = place.owner("x.jpg")["public_net"]["direct_url"]
    reply = place.http.once(method, place.path("x.jpg") + "?provider=ais", b"body" if method == "PUT" else None, at=at)
    assert reply.status == 400
    assert "is expected to be redirected" in error_of(reply)["message"]


def test_marks_are_not_looked_at(place: Place) -> None:
    """An unsigned cluster takes any proxy's id and any time."""
    place.bucket.put("x.jpg", b"content")
    at = place.owner("x.jpg")["public_net"]["direct_url"]
    assert place.http.once("GET", place.path("x.jpg") + "?provider=ais&pid=nobody&utm=1", at=at).data == b"content"
