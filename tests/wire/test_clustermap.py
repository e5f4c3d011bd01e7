"""The cluster map, both ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisdatapipes.wire.clustermap import (
    DECOMMISSION,
    MAINTENANCE,
    ClusterMap,
    Node,
    decoded_map,
    encoded_map,
)
from aisdatapipes.wire.malformed import Malformed


def net(url, host, port):
    return {"node_ip_addr": host, "daemon_port": port, "direct_url": url}


T1 = Node("t1", "http://10.0.0.1:51081", (1 << 64) - 1, 0, ("http://10.1.0.1:51081",))
T2 = Node("t2", "http://10.0.0.2:51081", 7, MAINTENANCE)
T3 = Node("t3", "https://[::1]:51081", 0, DECOMMISSION)
P1 = Node("p1", "http://10.0.0.9:51080", 9, 2)
MAP = ClusterMap("Ygq7nXw2k", 12, (T1, T2, T3), (P1,), "p1")


def snode(node, kind, host, port):
    address = net(node.url, host, port)
    more = {"pub_extra": [net(url, "10.1.0.1", port) for url in node.more_urls]} if node.more_urls else {}
    return {
        "public_net": address, "intra_data_net": address, "intra_control_net": address,
        "daemon_type": kind, "daemon_id": node.id, "id_digest": node.digest, "flags": node.flags, **more,
    }  # fmt: skip


JSON = {
    "pmap": {"p1": snode(P1, "proxy", "10.0.0.9", "51080")},
    "proxy_si": snode(P1, "proxy", "10.0.0.9", "51080"),
    "tmap": {
        "t1": snode(T1, "target", "10.0.0.1", "51081"),
        "t2": snode(T2, "target", "10.0.0.2", "51081"),
        "t3": snode(T3, "target", "::1", "51081"),
    },
    "uuid": "Ygq7nXw2k",
    "creation_time": "2026-01-02 03:04:05",
    "version": "12",
}


def test_map_both_ways():
    """The server's JSON is the map, and the map is that JSON."""
    assert decoded_map(json.dumps(JSON).encode()) == MAP
    assert json.loads(encoded_map(MAP, "2026-01-02 03:04:05")) == JSON


def test_unknown_keys_are_nobodys_business():
    """A newer server's keys change nothing."""
    target = {**JSON["tmap"]["t1"], "verifying_key": "x"}
    newer = {**JSON, "ext": {"a": 1}, "tmap": {**JSON["tmap"], "t1": target}}
    assert decoded_map(json.dumps(newer).encode()) == MAP


def test_who_can_own():
    """A target in maintenance or being decommissioned owns nothing."""
    assert MAP.usable_targets == (T1,)


def test_origins():
    """A redirect may lead to every public address of every node, whatever its flags."""
    assert {T1.url, *T1.more_urls, T2.url, T3.url, P1.url} == MAP.origins


ids = st.text("abcXYZ019", min_size=1, max_size=9)
urls = st.builds("http://127.0.0.{}:{}".format, st.integers(1, 254), st.integers(1, 65535))
nodes = st.builds(
    Node, ids, urls, st.integers(0, (1 << 64) - 1), st.integers(0, 31), st.lists(urls, max_size=2).map(tuple)
)
several = st.lists(nodes, max_size=4, unique_by=lambda node: node.id).map(
    lambda found: tuple(sorted(found, key=lambda node: node.id))
)


@given(st.text(max_size=9), st.integers(0, 1 << 62), several, several)
def test_map_round_trip(uuid, version, targets, proxies):
    """A map comes back as it was."""
    cluster = ClusterMap(uuid, version, targets, proxies, proxies[0].id if proxies else "")
    assert cluster == decoded_map(encoded_map(cluster))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"uuid":"u","version":"x"}', b'{"uuid":"u","version":"1","tmap":{"t":{}}}']
)
def test_no_map(body):
    """Anything else is an error of its own."""
    with pytest.raises(Malformed):
        decoded_map(body)
