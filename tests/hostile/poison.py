"""Answers of an honest cluster, spoiled: every choice comes from one seeded source, so that a seed is a whole server."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tests.hostile import honest
from tests.hostile.server import Asked, Hung, whole

NUMBERS = [0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30, 1.5, 1e308]
TEXTS = [
    "", "..", "../../etc/passwd", "/", "//", "a\0b", "a\nb", "a\r\nX-Evil: 1", "\x1b[2J", "é", "x" * 5000, " ", "%00", "\u202e",
    "file:///etc/passwd", "file:///etc/passwd#", "javascript:alert(1)", "http://169.254.169.254", "gopher://127.0.0.1:1/",
    "http://user:pw@127.0.0.1:1", "http://127.0.0.1:99999", "http://127.0.0.1:1", "http://[", "http://[::1", "//127.0.0.1:1", "http:",
    "ftp://127.0.0.1/", "http://127.0.0.1:1/path?query#fragment", "http://127.0.0.1:1\r\nX: 1", "dict://127.0.0.1:11211/",
]  # fmt: skip
THINGS: list[Any] = [*NUMBERS, *TEXTS, None, True, [], {}, [[]], {"a": 1}, "0", "9" * 5000, "nan"]
STATUSES = [
    "100 Continue", "101 Switching Protocols", "103 Early Hints", "204 No Content", "206 Partial Content", "300 Many", "301 Moved",
    "302 Found", "304 Not Modified", "307 Temporary Redirect", "308 Permanent Redirect", "400 Bad Request", "401 No", "403 No",
    "404 Not Found", "407 Proxy", "408 Late", "416 Range", "418 Teapot", "429 Many", "500 Error", "501 No", "503 Busy", "599 What",
    "999 What", "000 Zero", "2000 Long", "-1 Minus", "abc", "",
]  # fmt: skip
HEADERS = [
    "Content-Length: -1", "Content-Length: 1e9", "Content-Length: 99999999999999999999999", "Content-Length: 5, 6", "Content-Length: 0",
    "Content-Length: 9223372036854775807", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: what",
    "Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding: gzip, gzip, gzip", "Content-Range: bytes 0-1/2",
    "Content-Range: bytes 0-1/99999999999999999999999999", "Content-Range: what", "Content-Range: bytes */-5", "Content-Range: bytes 5-1/1",
    "Ais-Checksum-Type: xxhash2", "Ais-Checksum-Value: ../../../tmp/evil", "Ais-Checksum-Value: " + "f" * 9000, "Ais-Version: " + "9" * 9000,
    "Retry-After: nan", "Retry-After: inf", "Retry-After: -1", "Retry-After: 1e400", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",
    "Location: /", "Set-Cookie: a=b; Domain=.", "WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Negotiate", 'Alt-Svc: h2=":1"',
    "Strict-Transport-Security: max-age=99999", "Connection: close", "Connection: upgrade", "Upgrade: h2c", 'Hdr-Error: {"message": 3}',
    "Hdr-Error: \xff\xfe", "Content-Type: multipart/mixed", "Content-Type: multipart/mixed; boundary=", "X: " + "y" * 60_000, ": nameless",
    "no colon", "X-\x01: \x02", " folded", "\tfolded", "X: \xff\xff",
]  # fmt: skip


class Poison:
    """A hostile cluster's answers.

    Args:
        seed: Chooses everything.
        share: How many of its answers are spoiled, between 0 and 1.
        kinds: Which kinds of requests have spoiled answers; all where it is empty.
    """

    def __init__(self, seed: int, share: float = 0.5, kinds: tuple[str, ...] = ()) -> None:
        self._random = random.Random(seed)
        self._share, self._kinds = share, kinds

    def answer(self, asked: Asked, url: str) -> Iterable[bytes]:
        """The bytes of one answer; raises `Hung` where the connection is to be closed."""
        rng = self._random
        if (self._kinds and asked.kind not in self._kinds) or rng.random() > self._share:
            return honest.answer(asked, url)
        spoil = rng.choice(
            [_content, _content, _content, _status, _headers, _redirect, _garbage, _length, _chunks, _cut]
        )
        return spoil(rng, asked, url)


def _content(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    """An answer in good form, and of strange content."""
    status, headers, body = honest.content(asked, url)
    change: Callable[[random.Random, bytes], bytes] = rng.choice([_flipped, _shortened, _doubled, _other])
    if asked.kind == "map" and rng.random() < 0.8:
        body = json.dumps(_strange(rng, json.loads(body))).encode()
    elif asked.kind == "list" and rng.random() < 0.8:
        body = _packed(_strange(rng, msgspec.msgpack.decode(body)))
    else:
        body = change(rng, body)
    return whole(body, *headers, status=status)


def _strange(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """The same structure with something in it replaced, left out, or repeated."""
    if depth and rng.random() < 0.08:
        return rng.choice(THINGS)
    if isinstance(value, dict):
        kept = {key: _strange(rng, item, depth + 1) for key, item in value.items() if rng.random() > 0.03}
        return kept | ({str(rng.choice(TEXTS)): rng.choice(THINGS)} if rng.random() < 0.1 else {})
    if isinstance(value, list):
        kept = [_strange(rng, item, depth + 1) for item in value]
        return kept * rng.choice([1, 1, 1, 2]) if depth < 4 else kept
    return value


def _packed(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xdf\xff\xff\xff\xff"  # a map of four billion entries, of which none comes


def _flipped(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body or b"\0")
    for _ in range(rng.choice([1, 1, 3, 50])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _shortened(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _doubled(rng: random.Random, body: bytes) -> bytes:
    return body * rng.choice([2, 3])


def _other(rng: random.Random, _body: bytes) -> bytes:
    """What belongs to another question, or to none."""
    data: bytes = rng.choice(
        [b"", b"null", b"[]", b"<html>", b"\x80", b"\xc1", b"[" * 5000, b"\x91" * 5000, rng.randbytes(3000), gzip.compress(bytes(10**6)),
         *honest.SHARDS.values(), bytes(1024), b"\xdd\xff\xff\xff\xff", b'{"message": "\\u001b[2J", "tcode": "ErrBckNotFound"}']
    )  # fmt: skip
    return data


def _status(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    _, headers, body = honest.content(asked, url)
    return whole(rng.choice([body, b"", b"{}", _other(rng, b"")]), *headers, status=rng.choice(STATUSES))


def _headers(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    status, headers, body = honest.content(asked, url)
    strange = rng.choices(HEADERS, k=rng.choice([1, 1, 2, 5]))
    if rng.random() < 0.1:
        strange += [f"X-{number}: {number}" for number in range(rng.choice([500, 20_000]))]
    good = [f"Content-Length: {len(body)}", *headers] if rng.random() < 0.5 else headers
    lines = [*good, *strange]
    rng.shuffle(lines)
    yield "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1", "replace") + body
    raise Hung  # nobody knows where it ends


def _redirect(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    place = rng.choice(
        [*TEXTS, url, f"{url}{asked.target}", asked.target, f"{url}/", url.replace("http", "https"), url.replace("//", "//user:pw@"),
         f"{url}/latest/meta-data", f"{url}/v1/\xe9", f"{url}/v1/objects/b/a b", url.replace("127.0.0.1", "localhost"), "http://127.1:80",
         url.replace("http://", "HTTP://"), "?", "#", "../..", "file:" + asked.target]
    )  # fmt: skip
    return whole(
        b"", f"Location: {place}", status=rng.choice(["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
    )


def _garbage(rng: random.Random, _asked: Asked, _url: str) -> Iterable[bytes]:
    yield rng.choice(
        [b"", b"\0" * 3000, b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n",
         b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, b"\x16\x03\x01\x02\x00", b"HTTP/2 200\r\n\r\n", b"\r\n" * 500, rng.randbytes(2000)]
    )  # fmt: skip
    raise Hung


def _length(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    """A length that is none of the body's, or none at all."""
    status, headers, body = honest.content(asked, url)
    promised = rng.choice([len(body) + 1, len(body) * 2 + 1, max(0, len(body) - 1), 0, 2**40, 2**63 - 1, None])
    lines = [f"HTTP/1.1 {status}", *headers, *([] if promised is None else [f"Content-Length: {promised}"]), "", ""]
    yield "\r\n".join(lines).encode() + body
    raise Hung


def _chunks(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    status, headers, body = honest.content(asked, url)
    size = rng.choice(
        [b"%x" % len(body), b"%x" % (len(body) + 5), b"-1", b"zz", b"f" * 17, b"", b"0", b"5;ext=" + b"e" * 9000]
    )
    end = rng.choice(
        [
            b"\r\n0\r\n\r\n",
            b"",
            b"\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n",
            b"\r\n0\r\n" + b"T: t\r\n" * 9000 + b"\r\n",
        ]
    )
    yield (
        "\r\n".join([f"HTTP/1.1 {status}", *headers, "Transfer-Encoding: chunked", "", ""]).encode()
        + size
        + b"\r\n"
        + body
        + end
    )
    raise Hung


def _cut(rng: random.Random, asked: Asked, url: str) -> Iterable[bytes]:
    all_of_it = b"".join(honest.answer(asked, url))
    yield all_of_it[: rng.randrange(len(all_of_it) + 1)]
    raise Hung
