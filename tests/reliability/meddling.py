"""A transport that does something between two requests, and one that hears less than the cluster tells."""

from __future__ import annotations

from collections.abc import Callable

from aisdatapipes.store.transport import Done, Reply, Request, Transport


class Meddling:
    """A `Transport` that runs ``before`` with each request, on whichever thread sends it, before it goes out.

    Args:
        inner: Does the work.
        before: What happens between two requests.
        unheard: Headers of answers that nobody gets to see, in lower case.
    """

    def __init__(
        self, inner: Transport, before: Callable[[Request], None] = lambda _: None, unheard: tuple[str, ...] = ()
    ) -> None:
        self._inner, self._before, self._unheard = inner, before, unheard

    def send(self, request: Request, done: Done) -> None:
        self._before(request)
        self._inner.send(request, lambda reply: done(self._heard(reply)))

    def resume(self, request: Request) -> None:
        self._inner.resume(request)

    def cancel(self, request: Request) -> None:
        self._inner.cancel(request)

    def close(self) -> None:
        self._inner.close()

    def _heard(self, reply: Reply) -> Reply:
        lines = reply.head.splitlines(keepends=True)
        heard = [one for one in lines if one.partition(b":")[0].decode().lower() not in self._unheard]
        return Reply(reply.status, b"".join(heard), reply.body, reply.failure)
