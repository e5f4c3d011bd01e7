"""The error of bytes that are not the format they should be."""

from __future__ import annotations


class Malformed(ValueError):
    """Bytes that are not what they should be; the one argument is the whole message.

    Who read the bytes knows whose they were, and turns this into an error that names the object.
    """
