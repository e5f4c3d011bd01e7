"""The map of a cluster: its nodes, where each listens, and which of them can own objects.

The format is the JSON of ``GET /v1/daemon?what=smap`` (AIStore: core/meta/smap.go). ``version`` and the ports
are numbers in text there, and the digests are unsigned 64-bit numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from aisdatapipes.wire.malformed import Malformed

# Bits of `Node.flags` that keep a target from owning objects.
MAINTENANCE = 1 << 2
DECOMMISSION = 1 << 3
_UNUSABLE = MAINTENANCE | DECOMMISSION
# Placement compares every name with every target: a map that claims more is none, and costs no memory. The largest
# clusters have some hundreds.
MOST_NODES = 4096


_HOST = re.compile(r"[A-Za-z0-9._:%-]+")  # also of an IPv6 address and its zone


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster.

    Args:
        id: Its name in the cluster.
        url: Where clients reach it, such as ``http://10.0.0.5:51081``.
        digest: 64-bit digest of the id: its part of the placement.
        flags: Bits, such as `MAINTENANCE` and `DECOMMISSION`.
        more_urls: Further public addresses of a node with several network cards.
    """

    id: str
    url: str
    digest: int
    flags: int = 0
    more_urls: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the node can own objects."""
        return not self.flags & _UNUSABLE


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """All nodes of a cluster, at one version.

    Args:
        uuid: The cluster's identity; it never changes.
        version: Grows by one with every change.
        targets: In the order of their ids.
        proxies: In the order of their ids.
        primary: Id of the primary proxy.
    """

    uuid: str
    version: int
    targets: tuple[Node, ...]
    proxies: tuple[Node, ...]
    primary: str

    @property
    def usable_targets(self) -> tuple[Node, ...]:
        """The targets that can own objects: neither in maintenance nor being decommissioned."""
        return tuple(node for node in self.targets if node.usable)

    @property
    def origins(self) -> frozenset[str]:
        """Every public address of the cluster: where a redirect may lead."""
        nodes = (*self.targets, *self.proxies)
        return frozenset(url for node in nodes for url in (node.url, *node.more_urls))


class _Net(msgspec.Struct):
    node_ip_addr: str = ""
    daemon_port: str = ""
    direct_url: str = ""


class _Snode(msgspec.Struct):
    public_net: _Net
    daemon_id: str
    id_digest: Annotated[int, msgspec.Meta(ge=0)]
    daemon_type: str = ""
    flags: int = 0
    intra_data_net: _Net | msgspec.UnsetType = msgspec.UNSET
    intra_control_net: _Net | msgspec.UnsetType = msgspec.UNSET
    pub_extra: list[_Net] | msgspec.UnsetType | None = msgspec.UNSET


class _Smap(msgspec.Struct):
    uuid: str
    version: str
    pmap: dict[str, _Snode] | None = None
    tmap: dict[str, _Snode] | None = None
    proxy_si: _Snode | None = None
    creation_time: str = ""


def decoded_map(body: bytes) -> ClusterMap:
    """The cluster map that ``body`` holds, in JSON.

    Raises: `Malformed` when it holds none.
    """
    try:
        smap = msgspec.json.decode(body, type=_Smap)
        return ClusterMap(
            uuid=smap.uuid,
            version=int(smap.version),
            targets=_nodes(smap.tmap),
            proxies=_nodes(smap.pmap),
            primary=smap.proxy_si.daemon_id if smap.proxy_si else "",
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"not a cluster map ({len(body)} bytes): {error}") from None


def encoded_map(cluster: ClusterMap, creation_time: str = "") -> bytes:
    """``cluster`` in JSON, as a node gives it.

    Args:
        cluster: The map; its primary is one of its proxies.
        creation_time: As ``2026-01-02 03:04:05``, in UTC; only people read it.
    """
    proxies = {node.id: _snode(node, "proxy") for node in cluster.proxies}
    smap = _Smap(
        uuid=cluster.uuid,
        version=str(cluster.version),
        pmap=proxies,
        tmap={node.id: _snode(node, "target") for node in cluster.targets},
        proxy_si=proxies.get(cluster.primary),
        creation_time=creation_time,
    )
    return msgspec.json.encode(smap)


def _nodes(snodes: dict[str, _Snode] | None) -> tuple[Node, ...]:
    found = sorted((snodes or {}).items())
    if len(found) > MOST_NODES:
        raise Malformed(f"not a cluster map: it has {len(found)} nodes of a kind, and at most {MOST_NODES} can be")
    return tuple(_node(snode) for _, snode in found)


def _node(snode: _Snode) -> Node:
    extra = snode.pub_extra if isinstance(snode.pub_extra, list) else []
    more = tuple(_address(snode, net) for net in extra)
    if snode.id_digest >> 64:
        raise Malformed(f"not a cluster map: the digest of node {snode.daemon_id!a} has more than 64 bits")
    return Node(snode.daemon_id, _address(snode, snode.public_net), snode.id_digest, snode.flags, more)


def _address(snode: _Snode, net: _Net) -> str:
    """The node's ``scheme://host:port``; nothing else is ever asked, whatever a map says."""
    url = net.direct_url.rstrip("/")
    if not is_origin(url):
        raise Malformed(f"not a cluster map: node {snode.daemon_id!a} is said to be at {url!a}, not http://host:port")
    return url


def is_origin(url: str) -> bool:
    """Whether a text is ``http://host:port`` or ``https://host:port``, with or without the port, and nothing else."""
    try:
        parts = urlsplit(url)
        # A port that is none is a ValueError; what urlsplit forgives, such as a line feed, makes another text.
        plain = parts.port != 0 and url == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        return False
    host = parts.hostname or ""
    return plain and parts.scheme in ("http", "https") and bool(_HOST.fullmatch(host)) and "@" not in url


def _snode(node: Node, kind: str) -> _Snode:
    net = _net(node.url)
    return _Snode(
        public_net=net,
        daemon_id=node.id,
        id_digest=node.digest,
        daemon_type=kind,
        flags=node.flags,
        intra_data_net=net,
        intra_control_net=net,
        pub_extra=[_net(url) for url in node.more_urls] or msgspec.UNSET,
    )


def _net(url: str) -> _Net:
    parts = urlsplit(url)
    return _Net(node_ip_addr=parts.hostname or "", daemon_port=str(parts.port or ""), direct_url=url)
