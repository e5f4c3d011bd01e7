"""What all nodes of the cluster share: they live in one process, so nothing is sent between them."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aisdatapipes.devserver.refusals import Refused
from aisdatapipes.wire import placement
from aisdatapipes.wire.clustermap import ClusterMap, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aisdatapipes.devserver.buckets import Bucket, Buckets
    from aisdatapipes.devserver.calls import Call
    from aisdatapipes.devserver.faults import Faults
    from aisdatapipes.wire.batch import BatchRequest

_WRITES = ("PUT", "POST", "DELETE", "PATCH")


@dataclass(slots=True)
class Job:
    """A job; all of them end before their id is told."""

    id: str
    kind: str
    err: str = ""
    end_ns: int = field(default_factory=time.time_ns)


@dataclass(slots=True)
class State:
    """The cluster.

    Args:
        buckets: What it holds.
        faults: What it does wrong.
        soft_errors: Missing entries that a get-batch bears; one more ends it.
        tokens: Accepted tokens and what each may do, ``"rw"`` or ``"ro"``; empty: nobody is asked for one.
    """

    buckets: Buckets
    faults: Faults
    soft_errors: int
    tokens: Mapping[str, str]
    away: tuple[Node, ...] = ()  # targets that have left, with what they own
    map: ClusterMap = field(default_factory=lambda: ClusterMap("", 0, (), (), ""))
    requests: Counter[str] = field(default_factory=Counter)
    etls: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    batches: dict[str, BatchRequest] = field(default_factory=dict)  # asked of the proxy, not of a target yet
    indexes: dict[str, bytes] = field(default_factory=dict)  # full name of a shard -> its index
    started_ns: int = field(default_factory=time.monotonic_ns)
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, operation: str) -> None:
        """One more request of this kind."""
        with self._counting:
            self.requests[operation] += 1

    def owner(self, uname: str) -> Node:
        """The target that owns an object; refuses when no target is left."""
        targets = self.map.usable_targets
        if not targets:
            raise Refused(503, "no targets in the cluster map")
        return targets[placement.owner(uname, [target.digest for target in targets])]

    def is_away(self, uname: str) -> bool:
        """Whether an object is on a target that has left."""
        if not self.away:
            return False
        targets = [*self.away, *self.map.usable_targets]
        return placement.owner(uname, [target.digest for target in targets]) < len(self.away)

    def location(self, uname: str) -> str:
        """Target and disk of an object, as AIStore prints them."""
        return f"t[{self.owner(uname).id}]:mp[/memory]"

    def new_job(self, kind: str, err: str = "") -> Job:
        """A job that has ended; ``err`` says what went wrong."""
        job = Job(secrets.token_urlsafe(6), kind, err)
        self.jobs[job.id] = job
        return job

    def check_token(self, call: Call) -> None:
        """Refuses a call without a token, with a wrong one, or with one that may not do this."""
        if not self.tokens:
            return
        header = call.headers.get("Authorization", "")
        if not header.startswith("Bearer "):
            raise Refused(401, "token required")
        may = self.tokens.get(header.removeprefix("Bearer "))
        if may is None:
            raise Refused(401, 'invalid token from header "Authorization": invalid token')
        # AIStore's read-only role does not show the cluster either.
        if may == "ro" and (call.method in _WRITES or call.path.startswith("/v1/daemon")):
            raise Refused(403, "insufficient permissions")


def health(state: State) -> list[tuple[str, str]]:
    """Headers that say for how long node and cluster have been up, in nanoseconds."""
    uptime = str(time.monotonic_ns() - state.started_ns)
    return [("Ais-Cluster-Uptime", uptime), ("Ais-Node-Uptime", uptime)]


def bucket_props(bucket: Bucket) -> dict[str, Any]:
    """The properties of a bucket, as far as clients look at them."""
    return {
        "provider": bucket.provider,
        "checksum": {"type": "xxhash2", "validate_cold_get": False, "enable_read_range": False},
        "access": "18446744073709551615",
        "features": "0",
        "bid": str(bucket.created_ns),
        "created": str(bucket.created_ns),
        "versioning": {"enabled": True, "validate_warm_get": False, "synchronize": False},
        "mirror": {"copies": 1, "burst_buffer": 512, "enabled": False},
        "ec": bucket.coding,
        "lru": {"enabled": False},
    }
