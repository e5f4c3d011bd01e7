"""Transports all of whose GETs may take the fast lane, as those of reads do."""

from aisdatapipes.store.engine import CurlTransport


class PlainTransport(CurlTransport):
    """Marks them as plain; a sink that is not buffered keeps its request off the lane."""

    def send(self, request, done):
        request.plain = request.method == "GET" and (request.sink is None or hasattr(request.sink, "get_buffer"))
        super().send(request, done)


class ShortTransport(PlainTransport):
    """Takes them for short, too: so they follow each other on a connection."""

    def send(self, request, done):
        if request.sink is None:
            request.expected = 100
        super().send(request, done)
