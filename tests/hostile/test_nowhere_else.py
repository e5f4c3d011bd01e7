"""A cluster cannot have its clients read a file, ask somebody else, tell their token, or write anything."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from aisdatapipes import AISIterDataset, AISPipeError, AISShardReader, ClientConfig, StoreError, Unavailable
from aisdatapipes.store import pool, threads
from aisdatapipes.wire.listing import Entry, Page, encoded_page
from tests.hostile import honest
from tests.hostile.readers import READERS, config_of, read
from tests.hostile.server import HostileServer, whole

TOKEN = "T0KEN-of-a-test"
TRANSPORTS = {"pycurl": None, "urllib3": threads.ThreadTransport}


@pytest.fixture(params=TRANSPORTS)
def transport(request, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "urllib3")
    if TRANSPORTS[request.param] is not None:
        monkeypatch.setattr(pool, "new_transport", TRANSPORTS[request.param])


@pytest.fixture
def elsewhere():
    """A server that is of no cluster, and would answer everything."""
    with HostileServer(lambda asked: honest.answer(asked, server.url)) as server:
        yield server


def mapped(change):
    """A cluster whose map is changed: a function of the text and the cluster's own address."""

    def answer(asked):
        if asked.kind != "map":
            return honest.answer(asked, server.url)
        found = json.loads(honest.map_of(server.url))
        change(found, server.url)
        return whole(json.dumps(found).encode())

    server = HostileServer(answer)
    return server


def moved(address):
    """The target's address in the map is another one."""

    def change(found, _url):
        found["tmap"]["t1"]["public_net"]["direct_url"] = address

    return change


def also(address):
    """The target has an address more."""

    def change(found, _url):
        found["tmap"]["t1"]["pub_extra"] = [{"node_ip_addr": "", "daemon_port": "", "direct_url": address}]

    return change


ADDRESSES = [
    "file:///etc/hostname", "file:///etc/hostname#", "file://localhost/etc/hostname?", "gopher://{}", "ftp://{}", "dict://{}", "ldap://{}",
    "javascript:alert(1)", "", "/", "//{}", "http://", "http://user:pw@{}", "http://{}/path", "http://{}?query", "http://{}#fragment",
    "http://127.0.0.1:0", "http://127.0.0.1:99999", "http://127.0.0.1:port", "http://[", "http://[::1", "http://a b", "http://{}\r\nX: y",
    "http://\n{}", "http://{}\\@evil", "http://é", "HTTP:{}", "https:{}", "http://{},127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("change", [moved, also])
def test_addresses_in_a_map(address, change, elsewhere):
    """A map with an address that is not http://host:port is refused as a whole, and nobody is asked there."""
    address = address.format(elsewhere.url.removeprefix("http://"))
    with mapped(change(address)) as server, pytest.raises(StoreError, match="is said to be at"):
        read("get", config_of(server.url))
    pool.close_all()
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "file://localhost/etc/hostname", "gopher://127.0.0.1:1/", "dict://127.0.0.1:1/"]
)
def test_the_transports_speak_http_only(url, transport):
    """Even a request that got so far reads no file and speaks no other language."""
    from aisdatapipes.store.transport import Request

    made = pool.new_transport(ClientConfig("http://127.0.0.1:1"))
    over, replies = threading.Event(), []
    made.send(Request(url), lambda reply: (replies.append(reply), over.set()))
    assert over.wait(20)
    made.close()
    (reply,) = replies
    assert (reply.status, reply.body, reply.failure is None) == (0, b"", False)


REDIRECTS = [
    "file:///etc/hostname", "gopher://{other}/", "ftp://{other}/v1/", "http://{other}/v1/objects/b/large", "//{other}/v1/objects/b/large",
    "https://{own}/v1/objects/b/large", "http://user:pw@{own}/v1/objects/b/large", "http://{own}@{other}/v1/objects/b/large",
    "http://{own}.evil/v1/", "http://{own}/latest/meta-data", "/latest/meta-data", "http://{own}", "", "#", "/", "http://[::1/v1/",
    "javascript:alert(1)", "http://169.254.169.254/v1/objects/b/large", "http://{own}\\@{other}/v1/", "data:text/plain,x",
]  # fmt: skip


@pytest.mark.parametrize("location", REDIRECTS)
@pytest.mark.parametrize("kind", ["map", "list", "get"])
def test_redirects_stay_in_the_cluster(location, kind, elsewhere, monkeypatch):
    """A redirect to anything but the API of a node of the map is an error, and is not followed."""
    monkeypatch.setattr("aisdatapipes.store.cluster.REFRESH_PAUSE", 0.0)

    def answer(asked):
        if asked.kind == kind or "meta-data" in asked.target:
            own, other = (url.removeprefix("http://") for url in (server.url, elsewhere.url))
            return whole(b"", f"Location: {location.format(own=own, other=other)}", status="307 Temporary Redirect")
        return honest.answer(asked, server.url)

    with HostileServer(answer) as server:
        with pytest.raises(Unavailable, match=r"redirected to|redirects in a row"):
            read("get", config_of(server.url, token=TOKEN))
        pool.close_all()
    assert elsewhere.asked == []
    assert not any("meta-data" in asked.target for asked in server.asked)


@pytest.mark.parametrize("name", READERS)
def test_the_token_goes_to_the_endpoint_only(name):
    """Targets that the endpoint redirects to, or that are asked directly, see no token, whatever is read."""

    def at_target(asked):
        return honest.answer(asked, target.url)

    def at_proxy(asked):
        if asked.kind in ("map", "list"):
            return honest.answer(asked, target.url)
        return whole(b"", f"Location: {target.url}{asked.target}", status="307 Temporary Redirect")

    with HostileServer(at_target, "127.0.0.2") as target, HostileServer(at_proxy) as proxy:
        assert read(name, config_of(proxy.url, token=TOKEN))
        pool.close_all()
    assert {asked.headers.get("authorization") for asked in proxy.asked} == {f"Bearer {TOKEN}"}
    assert target.asked
    assert [asked.target for asked in target.asked if TOKEN in f"{asked.headers}{asked.target}{asked.body!r}"] == []


@pytest.mark.parametrize(
    "header", ["WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Negotiate", "Set-Cookie: a=b; Path=/"]
)
def test_nothing_is_sent_because_it_was_asked_for(header, monkeypatch, tmp_path, transport):
    """No password of this machine's, no cookie that came before."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password S3CRET\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    def answer(asked):
        status, headers, body = honest.content(asked, server.url)
        return whole(body, *headers, header, status="401 No" if asked.kind == "get" else status)

    with HostileServer(answer) as server:
        with pytest.raises(AISPipeError):
            read("get", config_of(server.url))
        pool.close_all()
    assert {asked.headers.get("authorization") or asked.headers.get("cookie") for asked in server.asked} == {None}


NAMES = ["../../../../{}", "{}", "/{}", "..", "a/../../{}", "a\0b", "a\nb", "C:\\x", "~/x", "%2e%2e/x", "a" * 3000]


def test_nothing_is_written(tmp_path, monkeypatch):
    """Whatever objects, members, checksums and versions are called, no file is made outside of our own cache."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    monkeypatch.chdir(out)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    wanted = str(out / "evil")
    names = [name.format(wanted) for name in NAMES]
    from tests.conformance.conftest import tar_of

    shard = tar_of({f"{name[:80]}.txt": b"x" for name in names if "\0" not in name})

    def answer(asked):
        if asked.kind == "list":
            return whole(encoded_page(Page([Entry(f"{name}.tar", size=len(shard)) for name in sorted(names)])))
        if asked.kind == "range":
            evil = f"Ais-Checksum-Value: ../../../../../../..{wanted}"
            headers = [
                "Ais-Checksum-Type: md5",
                evil,
                f"Ais-Version: {wanted}",
                f"Content-Disposition: attachment; filename={wanted}",
            ]
            first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
            part = shard[int(first) : int(last) + 1]
            return whole(
                part, *headers, f"Content-Range: bytes {first}-{last}/{len(shard)}", status="206 Partial Content"
            )
        return honest.answer(asked, server.url)

    with HostileServer(answer) as server:
        for index in ("client", "off"):
            dataset = AISShardReader("ais://b/", config=config_of(server.url), index=index, on_error="skip")
            assert len(list(dataset)) > 0
        pool.close_all()
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(home / "cache").parts[0] for path in made} <= {"aisdatapipes"}
    assert not os.path.lexists(wanted)


def test_names_do_not_break_lines(caplog):
    """An object's name makes no second line of a log, and no second line of an error."""

    def answer(asked):
        if asked.kind == "list":
            return whole(encoded_page(Page([Entry("a\nERROR forged\x1b[2J", size=3)])))
        if asked.kind == "get":
            return whole(b'{"message": "why\\n2026 ERROR forged\\u001b[2J"}', status="503 Busy")
        return honest.answer(asked, server.url)

    with HostileServer(answer) as server:
        with pytest.raises(Unavailable) as caught:
            list(AISIterDataset("ais://b/", config=config_of(server.url)))
        pool.close_all()
    lines = [str(caught.value), *(record.getMessage() for record in caplog.records)]
    assert "forged" in lines[0]
    assert [line for line in lines if not line.isprintable()] == []
    assert Path(caught.value.url).name.startswith("a\n")
