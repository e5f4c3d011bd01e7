"""Reading the cluster map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aisdatapipes.model.errors import StoreError
from aisdatapipes.store.exchange import Exchange
from aisdatapipes.store.transport import Reply
from aisdatapipes.wire.clustermap import ClusterMap, decoded_map
from aisdatapipes.wire.malformed import Malformed

if TYPE_CHECKING:
    from aisdatapipes.store.cluster import Cluster

_PATH = "/v1/daemon?what=smap"
_ATTEMPTS_AT_OTHERS = 3  # a server that is no cluster gives the same answer again; what broke on the way does not


class MapRead(Exchange):
    """The cluster's map, with at least one target to read from; when it has ended, ``map`` is there, or ``error``."""

    __slots__ = ("map",)

    asks_for_the_map = False  # it would wait for itself

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, cluster.config.endpoint, _PATH, "cannot read the cluster map")
        self.map: ClusterMap | None = None

    def accept(self, reply: Reply) -> StoreError | None:
        """None if the body is a map that is of use."""
        try:
            found = decoded_map(reply.body)
        except Malformed as error:
            self.attempts_at_most = min(self.attempts_at_most, _ATTEMPTS_AT_OTHERS)
            text = f"{self.what}: {error}; is this the address of an AIStore cluster?"
            return StoreError(text, url=self.subject, status=200, attempts=self.attempts)
        if not found.usable_targets:
            return self._unavailable("the cluster has no target that is not in maintenance")
        self.map = found
        return None
