"""Where the authorities are that this machine trusts."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

import certifi


@functools.cache
def ca_bundle() -> str:
    """A PEM file: the system's where there is one, else certifi's.

    The libcurl inside pycurl's wheel was built elsewhere and does not know this system's place for it.
    """
    system = ssl.get_default_verify_paths().cafile
    return system if system and Path(system).exists() else certifi.where()
