"""A certificate for loopback, made at start and forgotten at the end.

`trustme` makes it: a small library for just this, kept by the authors of trio. It needs no ``openssl``
program, which slim container images do not have.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def server_context(authority_file: Path) -> ssl.SSLContext:
    """What a server needs to speak https on 127.0.0.1.

    Args:
        authority_file: Where the certificate of the authority goes, for clients to trust.
    """
    try:
        import trustme  # noqa: PLC0415 - only who wants https needs it
    except ImportError as error:
        raise ImportError("https needs trustme: pip install trustme") from error
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(authority_file))
    return context
