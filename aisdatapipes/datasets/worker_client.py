"""The SDK's client with a session for each worker and thread."""

from __future__ import annotations

import os
import threading
from typing import Any

from aistore.sdk.request_client import RequestClient
from aistore.sdk.session_manager import SessionManager
from requests import Session


class WorkerRequestClient(RequestClient):
    """A ``RequestClient`` of the SDK whose requests never share a session between processes or threads.

    For code that talks to the SDK inside a worker; the datasets of this package do not need it.

    Args:
        client: The client to take endpoint, token, TLS settings, timeout and retries from.
    """

    def __init__(self, client: RequestClient) -> None:
        super().__init__(
            client.base_url.removesuffix("v1"),
            _SessionPerWorker(client.session_manager),
            client.timeout,
            client.token,
            retry_config=client._retry_manager.retry_config,  # noqa: SLF001 - the SDK offers no public way
        )

    @property
    def session(self) -> Session:
        """The session of this process and thread."""
        session: Session = self.session_manager.session
        return session


class _SessionPerWorker(SessionManager):
    """Sessions by process and thread, each made when it is first used."""

    def __init__(self, like: SessionManager) -> None:
        self._like = {
            "retry": like.retry,
            "ca_cert": like.ca_cert,
            "skip_verify": like.skip_verify,
            "client_cert": like.client_cert,
        }
        super().__init__(**self._like)
        self._own = threading.local()

    @property
    def session(self) -> Session:
        own = self._own
        if getattr(own, "pid", None) != os.getpid():
            # A manager makes a session with all its settings; this thread keeps that one.
            own.pid, own.session = os.getpid(), SessionManager(**self._like).session
        session: Session = own.session
        return session

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (self._like,))


def _restored(like: dict[str, Any]) -> _SessionPerWorker:
    return _SessionPerWorker(SessionManager(**like))
