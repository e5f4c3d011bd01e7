"""A cluster on loopback that answers like AIStore: for demos, and for tests without a cluster.

`DevCluster` runs in a thread of this process, `DevProcess` in a process of its own. Everything is in memory,
and only this machine can reach it.
"""

from __future__ import annotations

from aisdatapipes.model.errors import ConfigError

try:
    from aisdatapipes.devserver.cluster import DevCluster
    from aisdatapipes.devserver.process import DevProcess
except ModuleNotFoundError as error:
    if error.name != "aiohttp":
        raise
    raise ConfigError("the embedded cluster needs aiohttp: pip install 'aisdatapipes[devserver]'") from error

__all__ = ["DevCluster", "DevProcess"]
