"""Transports all of whose GETs may take the fast lane, as those of reads do."""

from urllib.parse import urlsplit

from aisdatapipes.store.engine import CurlTransport


class PlainTransport(CurlTransport):
    """Marks them as plain; a sink that is not buffered keeps its request off the lane."""

    def send(self, request, done):
        request.plain = request.method == "GET" and (request.sink is None or hasattr(request.sink, "get_buffer"))
        super().send(request, done)


class ShortTransport(PlainTransport):
    """Takes them for short, too, so that they go out together; of those that say their path the length is right."""

    def send(self, request, done):
        if request.sink is None:
            path = urlsplit(request.url).path
            request.expected = len(path) if path.startswith(("/name/", "/late/")) else 100
        super().send(request, done)
