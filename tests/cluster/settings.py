"""The two files that an ``aisnode`` reads at its very first start.

The keys are those of AIStore 5.0 (``cmn/config.go``); what is not named keeps its default. An unknown key is fatal
to a node, so nothing is here that is not needed.
"""

from __future__ import annotations

import os
from pathlib import Path

# One address for each of a node's networks: with the same port on all three, nothing listens beyond loopback.
PUBLIC, CONTROL, DATA = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def cluster_settings(primary: str, where: Path, *, tls: tuple[Path, Path] | None, authn: bool) -> dict:
    """``ais.json``: what all nodes agree on."""
    keepalive = {"interval": "3s", "name": "heartbeat", "factor": 3}
    http = {"use_https": bool(tls), "skip_verify": bool(tls), "idle_conn_time": "6s", "chunked_transfer": True}
    if tls:
        http |= {"server_crt": str(tls[0]), "server_key": str(tls[1])}
    return {
        "proxy": {"primary_url": primary, "original_url": primary, "discovery_url": "", "non_electable": False},
        "log": {"level": "3", "max_size": "64mb", "max_total": "256mb", "flush_time": "5s", "stats_time": "60s"},
        "timeout": {
            "cplane_operation": "1s", "max_keepalive": "2s", "max_host_busy": "20s", "startup_time": "30s",
            "join_startup_time": "1m", "send_file_time": "5m",
        },
        "keepalivetracker": {"proxy": keepalive, "target": keepalive, "num_retries": 3, "retry_factor": 4},
        "ec": {"data_slices": 1, "parity_slices": 1, "enabled": False},
        "space": _watermarks(where),
        "checksum": {"type": "xxhash2"},
        "versioning": {"enabled": True},
        "net": {"l4": {"proto": "tcp"}, "http": http},
        "rebalance": {"enabled": True, "dest_retry_time": "2m"},
        "auth": {"signature": {"method": "HMAC"}, "client_auth_required": True} if authn else {},
        "features": "0",
    }  # fmt: skip


def node_settings(root: Path, port: int, instance: int, mountpaths: int) -> dict:
    """``ais_local.json``: what one node has for itself."""
    return {
        "confdir": str(root / "conf"),
        "log_dir": str(root / "log"),
        "host_net": {
            "hostname": PUBLIC, "port": str(port),
            "hostname_intra_control": CONTROL, "port_intra_control": str(port),
            "hostname_intra_data": DATA, "port_intra_data": str(port),
        },
        "fspaths": {},
        "test_fspaths": {"root": str(root.parent / "data"), "count": mountpaths, "instance": instance},
    }  # fmt: skip


def _watermarks(where: Path) -> dict:
    """Marks above what is used already: a full disk must not fail the tests with 507."""
    disk = os.statvfs(where)
    used = 100 - 100 * disk.f_bavail // max(1, disk.f_blocks)
    cleanup, low, high, out_of_space = (65, 75, 90, 95) if used < 60 else (97, 98, 99, 100)
    return {"cleanupwm": cleanup, "lowwm": low, "highwm": high, "out_of_space": out_of_space}
