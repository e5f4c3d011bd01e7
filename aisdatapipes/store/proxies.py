"""Which proxy of a cluster is asked: the endpoint, or another one while that is gone."""

from __future__ import annotations

from collections.abc import Iterable


class Proxies:
    """The endpoint and the others that the map tells of; each can answer for the cluster.

    Args:
        endpoint: Origin of the one that the user gave.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._others: tuple[str, ...] = ()  # their origins
        self._asked = 0  # 0: the endpoint; n: the n-th of the others
        self._turn = -1  # which of the others was asked last

    @property
    def asked(self) -> str:
        """Origin of the one to ask at present."""
        at, others = self._asked, self._others
        return others[at - 1] if 0 < at <= len(others) else self._endpoint

    def know(self, origins: Iterable[str]) -> None:
        """These there are."""
        self._others = tuple(origin for origin in origins if origin != self._endpoint)

    def leave(self, origin: str) -> None:
        """That one does not answer: ask another, in turn with the endpoint, which may be back."""
        if self._others and origin == self.asked:
            self._turn += 1
            self._asked = 0 if self._asked else 1 + self._turn % len(self._others)
