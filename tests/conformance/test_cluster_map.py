"""The map: who the nodes are, and what clients compute from it."""

from __future__ import annotations

import xxhash

from tests.conformance.conftest import SEED, Http, weight


def test_weight_has_the_published_vectors() -> None:
    """The yardstick of these tests is itself right: the values that AIStore's own tests name."""
    assert [weight(0), weight(4573842)] == [1905207664160064169, 5026071747115404967]


def test_map_describes_every_node(http: Http) -> None:
    """A node has an id, an address as text, flags and a digest as numbers; the digest is xxh64 of the id."""
    found = http.once("GET", "/v1/daemon?what=smap")
    assert found.headers["Content-Type"].startswith("application/json")
    smap = found.json()
    nodes = {**smap["tmap"], **smap["pmap"]}
    assert len(smap["tmap"]) >= 1
    for key, node in nodes.items():
        net = node["public_net"]
        assert node["daemon_id"] == key
        assert node["id_digest"] == xxhash.xxh64_intdigest(key.encode(), SEED)
        assert node["daemon_type"] == ("target" if key in smap["tmap"] else "proxy")
        assert net["direct_url"].endswith(f"://{net['node_ip_addr']}:{net['daemon_port']}")
        assert isinstance(net["daemon_port"], str)
        assert type(node["flags"]) is int
    assert {"intra_control_net", "intra_data_net"} <= set(smap["proxy_si"])


def test_map_says_version_as_text_and_who_is_primary(http: Http) -> None:
    """The version counts, and is text; the primary is one of the proxies; uuid and creation time are text."""
    smap = http.once("GET", "/v1/daemon?what=smap").json()
    assert isinstance(smap["version"], str)
    assert int(smap["version"]) > 0
    assert smap["proxy_si"]["daemon_id"] in smap["pmap"]
    assert all(isinstance(smap[key], str) and smap[key] for key in ("uuid", "creation_time"))


def test_targets_give_the_same_map(http: Http) -> None:
    """Any target will do to ask for the map."""
    ours = http.once("GET", "/v1/daemon?what=smap").json()
    for node in ours["tmap"].values():
        theirs = http.once("GET", "/v1/daemon?what=smap", at=node["public_net"]["direct_url"]).json()
        assert {key: theirs[key] for key in ("uuid", "version", "tmap", "pmap")} == {
            key: ours[key] for key in ("uuid", "version", "tmap", "pmap")
        }


def test_every_node_is_healthy(http: Http) -> None:
    """Health is 200 with an empty body, and the proxy's says how long node and cluster have been up."""
    for node in http.targets().values():
        health = http.once("GET", "/v1/health", at=node["public_net"]["direct_url"])
        assert (health.status, health.data) == (200, b"")
    ready = http.once("GET", "/v1/health?prr=true")
    assert (ready.status, ready.data) == (200, b"")
    assert int(ready.headers["Ais-Node-Uptime"]) > 0
    assert int(ready.headers["Ais-Cluster-Uptime"]) > 0
