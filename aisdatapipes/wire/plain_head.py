"""The head of an HTTP/1.1 answer, of the one form that needs no understanding: a status, and how many bytes follow.

The grammar is a part of that of RFC 9112. Whatever is not of it raises `NotPlain`, for somebody who knows all of HTTP.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD_BYTES = 64 << 10  # of a head, at most; targets send half a KiB

# "." is anything but a line feed; that there is no other control character which matters is looked at apart.
_HEAD = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: .*)?\r\n(?:[!-9;-~]+:.*\r\n)+")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r")
_CLOSES = re.compile(rb"\r\nconnection:[^\r\n]*close")
_BODILESS = (204, 304)


class NotPlain(Exception):
    """An answer of another form, or none at all."""


class Head(NamedTuple):
    """What a head says.

    Args:
        status: From 200 to 599.
        text: The status line and the header lines, each with its end.
        length: Bytes of the body.
        closes: No other answer comes behind it.
        end: Where the body begins.
    """

    status: int
    text: bytes
    length: int
    closes: bool
    end: int


def head_at(data: bytes, at: int = 0) -> Head | None:
    """The head that begins ``at`` bytes into ``data``; None where its end has not come yet. Raises `NotPlain`."""
    end = data.find(b"\r\n\r\n", at) + 2
    if end < 2:
        if len(data) - at > HEAD_BYTES or data.find(b"\n\n", at) >= 0:
            raise NotPlain
        return None
    head = data[at:end]
    told, small = _HEAD.fullmatch(head), head.lower()
    if not told or head.count(b"\r") > head.count(b"\n") or b"\0" in head:
        raise NotPlain
    length = _LENGTH.search(small)
    if not length or small.count(b"content-length") > 1 or b"\ntransfer-encoding:" in small:
        raise NotPlain
    status = int(told[1])
    if status in _BODILESS:
        raise NotPlain
    return Head(status, head, int(length[1]), _CLOSES.search(small) is not None, end + 2)
