"""Every error that this package raises, and how each survives a DataLoader worker.

::

    AISPipeError
    ├── ConfigError            also ValueError: an argument that cannot work
    │   └── InvalidURL         a text that is no AIStore URL
    ├── StoreError             also aistore's AISError: what the cluster answered
    │   ├── NotFound           also FileNotFoundError
    │   │   ├── ObjectNotFound        also aistore's ErrObjNotFound
    │   │   ├── BucketNotFound        also aistore's ErrBckNotFound
    │   │   └── RemoteBucketNotFound  also aistore's ErrRemoteBckNotFound
    │   ├── Denied             also PermissionError
    │   └── Unavailable        also ConnectionError: retries are used up
    │       ├── Truncated      fewer bytes than promised
    │       └── CorruptBody    other bytes than promised
    ├── CorruptShard           also ValueError: an archive that cannot be read to its end
    ├── CorruptSample          also ValueError: a field of a sample that cannot be decoded
    ├── UnreadableManifest     also ValueError: a saved listing that is damaged, or something else
    └── NotResumable           also ValueError: a state that does not fit

torch rebuilds a worker's exception as ``type(error)(text_of_the_traceback)`` and drops everything else.
Therefore each class can be built from that one string, and finds ``url``, ``status`` and ``attempts``
again in it: the message carries them in a form that can be read back (`_read_back`).
"""

from __future__ import annotations

import ast
import re
from typing import Any

from aistore.sdk.errors import AISError, ErrBckNotFound, ErrObjNotFound, ErrRemoteBckNotFound

_TAIL = re.compile(r" \[status (\d+|-), attempts (\d+)\]$")
# Written behind a message by each pipe of torch's whose `__iter__` is a generator (`_hook_iterator.py`).
_ADDED = "\nThis exception is thrown by __iter__ of "


class AISPipeError(Exception):
    """The root of all errors of this package.

    Args:
        message: What happened, its cause, and what to do; the whole text when nothing else is given.
        url: The object, bucket or endpoint that it happened to.
        status: HTTP status of the cluster's answer; None when there was none.
        attempts: How often it was tried; 0 when it never reached the network.
    """

    url: str | None
    status: int | None
    attempts: int

    def __init__(
        self, message: str = "", *, url: str | None = None, status: int | None = None, attempts: int = 0
    ) -> None:
        if url is None and status is None and not attempts:
            url, status, attempts = _read_back(type(self).__name__, message)
        else:
            message = _written(message, url, status, attempts)
        # Not super().__init__: aistore's AISError in some bases wants four arguments.
        BaseException.__init__(self, message)
        self.url, self.status, self.attempts = url, status, attempts

    def __str__(self) -> str:
        # OSError, a base of some, would otherwise print errno fields.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # `__dict__` goes along: pickling keeps what a text alone could not (a str subclass as `url`).
        return (type(self), self.args, dict(self.__dict__))


class ConfigError(AISPipeError, ValueError):
    """An argument, a value or a combination that cannot work."""


class InvalidURL(ConfigError):
    """A text that is no AIStore URL, or not the kind of URL that is meant here."""


class StoreError(AISPipeError, AISError):
    """What the cluster answered; ``status`` (also ``status_code``) is the HTTP status."""

    def __init__(
        self, message: str = "", *, url: str | None = None, status: int | None = None, attempts: int = 0
    ) -> None:
        AISPipeError.__init__(self, message, url=url, status=status, attempts=attempts)
        self.message = str(self)

    @property
    def status_code(self) -> int | None:
        """The HTTP status, by the name that the SDK's errors use."""
        return self.status


class NotFound(StoreError, FileNotFoundError):
    """The cluster says that it is not there."""


class ObjectNotFound(NotFound, ErrObjNotFound):
    """No such object, or no such member of an archive."""


class BucketNotFound(NotFound, ErrBckNotFound):
    """No such bucket."""


class RemoteBucketNotFound(NotFound, ErrRemoteBckNotFound):
    """No such bucket behind the cluster (cloud, or another AIStore)."""


class Denied(StoreError, PermissionError):
    """The token is missing, refused, or not enough (401, 403)."""


class Unavailable(StoreError, ConnectionError):
    """No usable answer within the attempts and the deadline of the `RetryPolicy`."""


class Truncated(Unavailable):
    """A body shorter than promised, every time it was tried."""


class CorruptBody(Unavailable):
    """A body whose checksum or version is not the promised one."""


class CorruptShard(AISPipeError, ValueError):
    """An archive that cannot be read to its end; the message names shard, member and offset."""


class CorruptSample(AISPipeError, ValueError):
    """A field of a sample that cannot be decoded; the message names shard, key and field."""


class UnreadableManifest(AISPipeError, ValueError):
    """A file or object that is no manifest, is damaged, or is of another version; the message names it."""


class NotResumable(AISPipeError, ValueError):
    """A saved state that belongs to other data, another version or another seed."""


def _written(message: str, url: str | None, status: int | None, attempts: int) -> str:
    """The message with its attributes in it: ``{url}: {message} [status 404, attempts 1]``."""
    head = "" if url is None else f"{shown(url)}: "
    return f"{head}{message} [status {'-' if status is None else status}, attempts {attempts}]"


def shown(url: str) -> str:
    """The text on one line: as it is, or quoted where that could be taken for something else."""
    text = str(url)
    ambiguous = ": " in text or text[:1] in "'\"" or not text.isprintable()
    return ascii(text) if ambiguous else text


def _read_back(name: str, text: str) -> tuple[str | None, int | None, int]:
    """The attributes that `_written` put into ``text``, which may be a whole traceback around it."""
    # At the start of a line: a URL, which is one line, may contain the name itself.
    starts = [found.end() for found in re.finditer(rf"^(?:[\w.]+\.)?{name}: ", text, re.MULTILINE)]
    line = text[starts[-1] :] if starts else text
    line = line.partition(_ADDED)[0].rstrip("\n")
    tail = _TAIL.search(line)
    if tail is None:
        return None, None, 0
    status = None if tail[1] == "-" else int(tail[1])
    return _leading_url(line[: tail.start()]), status, int(tail[2])


def _leading_url(line: str) -> str | None:
    if line[:1] in "'\"":
        quoted = re.match(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"): ", line)
        return str(ast.literal_eval(quoted[1])) if quoted else None
    head, colon, _ = line.partition(": ")
    return head if colon and " " not in head.split("/", 1)[0] else None
