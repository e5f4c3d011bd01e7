"""Runs a real AIStore on loopback, out of an ``aisnode`` program that is already here."""

from tests.cluster.local import ClusterFailed, LocalCluster, aisnode

__all__ = ["ClusterFailed", "LocalCluster", "aisnode"]
