"""A cluster on loopback, served by a thread of this process."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aisdatapipes.devserver import shardindex
from aisdatapipes.devserver.buckets import Bucket, Buckets, bucket_parts
from aisdatapipes.devserver.certificates import server_context
from aisdatapipes.devserver.faults import Faults
from aisdatapipes.devserver.serving import NodeServer, bound
from aisdatapipes.devserver.state import State
from aisdatapipes.wire import placement
from aisdatapipes.wire.clustermap import MAINTENANCE, ClusterMap, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType

    from typing_extensions import Self

_HOST = "127.0.0.1"  # never anything else: there is no access control worth the name
_PRIMARY = "p1"
_ANSWER_SECONDS = 10.0  # for what the loop's thread does at once, unless it has died
_running: weakref.WeakSet[DevCluster] = weakref.WeakSet()


class DevCluster:
    """A cluster that answers like AIStore, with one proxy and some targets, all in memory.

    Args:
        targets: How many.
        tls: https, with a certificate made for the occasion; ``ca_file`` is what clients trust.
        token: Bearer tokens that are accepted: one, several, or a map to ``"rw"`` or ``"ro"``. None accepts
            everybody.
        soft_errors: Missing entries that a get-batch bears before it ends early; AIStore's default.
        remote: Buckets of clouds that the cluster can reach, such as ``{"aws": ["photos"]}``.
        port: The proxy's; 0 is any free one.

    >>> with DevCluster.demo() as cluster:
    ...     cluster.get("demo", "a.txt")
    b'A'
    """

    def __init__(
        self,
        targets: int = 3,
        *,
        tls: bool = False,
        token: str | Iterable[str] | Mapping[str, str] | None = None,
        soft_errors: int = 8,
        remote: Mapping[str, Iterable[str]] | None = None,
        port: int = 0,
    ) -> None:
        if targets < 1:
            raise ValueError(f"targets must be 1 or more, not {targets}")
        self._targets, self._tls, self._port = targets, tls, port
        self.faults = Faults()
        self._state = State(Buckets(remote), self.faults, soft_errors, _tokens(token))
        self._nodes: list[NodeServer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.ca_file: str | None = None

    @classmethod
    def demo(cls, **options: Any) -> DevCluster:
        """A cluster with a bucket ``demo`` of two objects, ``a.txt`` and ``b.txt``."""
        cluster = cls(**options)
        cluster.create_bucket("demo")
        cluster.put("demo", "a.txt", b"A")
        cluster.put("demo", "b.txt", b"B")
        return cluster

    def start(self) -> Self:
        """Listens; the cluster itself, for chaining."""
        if self._thread is not None:
            raise RuntimeError("the cluster has been started already")
        context = None
        if self._tls:
            self._folder = tempfile.TemporaryDirectory(prefix="aisdatapipes-")
            self.ca_file = str(Path(self._folder.name) / "ca.pem")
            context = server_context(Path(self.ca_file))
        sockets = [bound(_HOST, self._port), *(bound(_HOST, 0) for _ in range(self._targets))]
        scheme = "https" if self._tls else "http"
        urls = [f"{scheme}://{_HOST}:{sock.getsockname()[1]}" for sock in sockets]
        self._state.map = _map(urls)
        nodes = (*self._state.map.proxies, *self._state.map.targets)
        self._nodes = [NodeServer(self._state, node, sock, context) for node, sock in zip(nodes, sockets, strict=True)]
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aisdatapipes-devserver", daemon=True)
        self._thread.start()
        for node_server in self._nodes:
            self._run(node_server.start())
        _running.add(self)
        return self

    def stop(self) -> None:
        """Nothing listens, no connection and no thread is left; the content stays."""
        if self._loop is None or self._thread is None:
            return
        _running.discard(self)
        for node_server in self._nodes:
            self._run(node_server.stop())
        self._run(_ended_tasks())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_SECONDS)
        self._loop.close()
        self._loop = self._thread = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = self.ca_file = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The proxy's address, such as ``http://127.0.0.1:40123``."""
        if not self._state.map.proxies:
            raise RuntimeError("the cluster has no address before it is started")
        return self._state.map.proxies[0].url

    @property
    def map(self) -> ClusterMap:
        """The cluster map that the nodes give."""
        return self._state.map

    @property
    def requests(self) -> Counter[str]:
        """Requests answered so far, by operation; ``direct`` counts reads that no proxy sent."""
        return Counter(self._state.requests)

    @property
    def buckets(self) -> tuple[str, ...]:
        """URLs of all buckets."""
        return tuple(str(bucket) for bucket in self._state.buckets.all())

    def create_bucket(self, bucket: str) -> None:
        """A new bucket: ``demo``, ``ais://demo`` or ``ais://@uuid#namespace/demo``."""
        self._state.buckets.create(*bucket_parts(bucket))

    def put(
        self, bucket: str, name: str, data: bytes, *, custom: dict[str, str] | None = None, cold: bool = False
    ) -> None:
        """An object, stored; a ``cold`` one of a cloud's bucket is not in the cluster until it is read."""
        self._bucket(bucket).put(name, bytes(data), custom, cold=cold)

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object; KeyError when it is not there."""
        return self._bucket(bucket).objects[name].data

    def delete(self, bucket: str, name: str) -> None:
        """The object is gone."""
        if not self._bucket(bucket).delete(name):
            raise KeyError(name)

    def names(self, bucket: str) -> list[str]:
        """Names of all objects, in the order of a listing."""
        return [key.decode("utf-8", "surrogateescape") for key in list(self._bucket(bucket).keys())]

    def etl(self, name: str, function: Callable[[bytes], bytes]) -> None:
        """Registers a function as an ETL that reads can name."""
        self._state.etls[name] = function

    def index_shards(self, bucket: str) -> None:
        """Builds the index of every tar in a bucket, as the job ``index-shard`` does."""
        found = self._bucket(bucket)
        for name, stored in list(found.objects.items()):
            if name.endswith(".tar"):
                self._state.indexes[found.uname(name)] = shardindex.encoded(stored)

    def owner(self, bucket: str, name: str) -> Node:
        """The target that owns an object."""
        return self._state.owner(self._bucket(bucket).uname(name))

    def kill(self, target: int) -> None:
        """Target ``target`` (from 0) drops all connections and listens no more; the map does not know yet."""
        self._run(self._target(target).stop())

    def revive(self, target: int) -> None:
        """A killed target listens again, on the same port."""
        self._run(self._target(target).start())

    def expel(self, target: int) -> None:
        """Target ``target`` (from 0) is out of the map, and what it owns is not there: as after a crash.

        Its number stays free: others keep theirs.
        """
        node = self._target(target).node
        if node in self._state.away:
            raise ValueError(f"target {target} was expelled already; `readmit` it first")
        self.kill(target)
        targets = tuple(one for one in self._state.map.targets if one.id != node.id)
        self._state.map = replace(self._state.map, version=self._state.map.version + 1, targets=targets)
        self._state.away = (*self._state.away, node)

    def readmit(self, target: int) -> None:
        """A target that was expelled is back, with what it owns."""
        node = self._target(target).node
        if node not in self._state.away:
            raise ValueError(f"target {target} was not expelled")
        self.revive(target)
        targets = tuple(sorted((*self._state.map.targets, node), key=lambda one: one.id))
        self._state.map = replace(self._state.map, version=self._state.map.version + 1, targets=targets)
        self._state.away = tuple(one for one in self._state.away if one.id != node.id)

    def maintain(self, target: int, *, on: bool = True) -> None:
        """Target ``target`` (from 0) is in maintenance: others own its objects, and the map is newer."""
        node, flags = self._target(target).node, MAINTENANCE if on else 0
        targets = tuple(replace(one, flags=flags) if one.id == node.id else one for one in self._state.map.targets)
        self._state.map = replace(self._state.map, version=self._state.map.version + 1, targets=targets)

    def _target(self, number: int) -> NodeServer:
        if not self._nodes:
            raise RuntimeError("the cluster has not been started yet")
        if not 0 <= number < self._targets:
            raise IndexError(f"no target {number} in this cluster; there are {self._targets}, from 0 on")
        return self._nodes[1 + number]

    def _bucket(self, text: str) -> Bucket:
        found = self._state.buckets.get(*bucket_parts(text))
        if found is None:
            raise KeyError(f"no bucket {text!r} in this cluster; there are {', '.join(self.buckets) or 'none'}")
        return found

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None  # noqa: S101 - start() and stop() see to it
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_SECONDS)

    def _abandon(self) -> None:
        """In a forked child: the cluster belongs to the parent."""
        for node_server in self._nodes:
            node_server.abandon()
        self._loop = self._thread = None
        self._nodes = []


def _map(urls: list[str]) -> ClusterMap:
    """The map of nodes with these addresses, the proxy first; ids, and so placement, are always the same."""
    proxy, *targets = urls
    ids = [f"t{number}" for number in range(1, len(targets) + 1)]
    nodes = tuple(Node(name, url, placement.digest(name)) for name, url in sorted(zip(ids, targets, strict=True)))
    return ClusterMap(
        uuid=secrets.token_urlsafe(6),
        version=len(urls) + 1,
        targets=nodes,
        proxies=(Node(_PRIMARY, proxy, placement.digest(_PRIMARY)),),
        primary=_PRIMARY,
    )


def _tokens(token: str | Iterable[str] | Mapping[str, str] | None) -> dict[str, str]:
    if token is None:
        return {}
    if isinstance(token, str):
        return {token: "rw"}
    return dict(token) if isinstance(token, Mapping) else dict.fromkeys(token, "rw")


async def _ended_tasks() -> None:
    """Every task of the loop has ended; connections that were dropped leave some behind."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    """The event loop; that of uvloop where it is installed, for it serves about a third more."""
    try:
        import uvloop  # noqa: PLC0415 - welcome, not needed
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _abandon_all() -> None:
    for cluster in list(_running):
        cluster._abandon()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
