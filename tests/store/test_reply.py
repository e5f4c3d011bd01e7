"""What a reply tells of its headers is what Python's own HTTP library finds in them."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aisdatapipes.store.transport import Reply

NAMES = st.sampled_from(["Ais-Version", "ais-version", "X-Ais-Version", "AIS-VERSION-2", "Ais", "Version"])
VALUES = st.sampled_from(["1", "", " 2 ", "a: b", "Ais-Version: 3", "caf\xe9"])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES, st.sampled_from(["\r\n", "\n"])), max_size=5), NAMES)
@example([("ais-version", "1", "\r\n"), ("Ais-Version", "2", "\r\n")], "AIS-version")
def test_headers(lines, name):
    """By any spelling of its name; the first of several; None for one that is not there."""
    head = "".join(f"{one}:{value}{end}" for one, value, end in lines).encode("latin-1")
    known = http.client.parse_headers(io.BytesIO(head + b"\r\n")).get_all(name)
    expected = None if known is None else known[0].strip()
    assert Reply(200, b"HTTP/1.1 200 OK\r\n" + head, b"").header(name) == expected


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["no answer", "no header"])
def test_no_headers(head):
    """Where nothing came, nothing is told."""
    assert Reply(0, head, b"").header("Ais-Version") is None
