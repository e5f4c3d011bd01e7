"""The token of the moment: a fixed one, or what stands in a file that somebody else keeps fresh.

The file is that of AIStore's own command line (``AIS_AUTHN_TOKEN_FILE``): JSON with the key ``token``. A plain text is
taken too, which is how Kubernetes and others put secrets into files.
"""

from __future__ import annotations

import os

import msgspec

from aisdatapipes.model.config import ClientConfig, is_token
from aisdatapipes.model.errors import Denied


class _Kept(msgspec.Struct):
    token: str


_decode = msgspec.json.Decoder(_Kept).decode
_LARGEST_BYTES = 1 << 20
# Of each file what it was when it was read, and the token: a request costs a look at the file, no reading.
_read: dict[str, tuple[tuple[int, int, int], str]] = {}


def token_of(config: ClientConfig) -> str | None:
    """The token to send now; None where there is none.

    Raises: ``Denied`` for a token file that is not there, or has no token in it.
    """
    path = config.token_file
    if path is None:
        return config.token
    try:
        stat = os.stat(path)  # noqa: PTH116 - text, not Path: this is asked for every request
        now = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        known = _read.get(path)
        if known is None or known[0] != now:
            known = _read[path] = (now, _token_in(path))
    except Denied:
        raise  # an OSError too
    except OSError as error:
        raise Denied(f"cannot read the token file {path}: {error.strerror}") from None
    return known[1]


def _token_in(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        data = file.read(_LARGEST_BYTES).strip()
    try:
        token = _decode(data).token if data.startswith(b"{") else data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        token = ""
    if not is_token(token):
        # Nothing of what is in it goes into the message: it may be most of a token.
        raise Denied(f"the token file {path} has no token in it: it is one word, or JSON with the key 'token'")
    return token
