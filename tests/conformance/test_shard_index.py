"""The server's index of a tar (AIStore 5.0): how it is asked for, where it lies, and what is in it."""

from __future__ import annotations

import time
from typing import Any

import xxhash

from tests.conformance.conftest import SEED, Http, Place, tar_of

MEMBERS = {"img/1.jpg": b"one" * 300, "img/1.cls": b"1", "empty.txt": b"", "n" * 90 + ".txt": b"long name"}
JOB_SECONDS = 60  # until the job must have ended; it takes less than one


def test_a_job_writes_an_index_at_the_owner_of_every_tar(place: Place) -> None:
    """The target that owns the tar, and not the one that would own the index by name, serves it."""
    for name in ("a.tar", "dir/b.tar"):
        place.bucket.put(name, tar_of(MEMBERS))
    place.bucket.put("no-archive.bin", b"x")
    indexed(place)
    found = {name: index_of(place, name).status for name in ("a.tar", "dir/b.tar", "no-archive.bin")}
    assert found == {"a.tar": 200, "dir/b.tar": 200, "no-archive.bin": 404}


def test_an_index_says_which_tar_it_is_of(place: Place) -> None:
    """Version 1, a tar, xxh64 of what follows; then checksum and size of the tar."""
    tar = tar_of(MEMBERS)
    place.bucket.put("s.tar", tar)
    indexed(place)
    head, payload = index_of(place, "s.tar").data[:11], index_of(place, "s.tar").data[11:]
    assert (head[:3], int.from_bytes(head[3:], "big")) == (b"\x01\x00\x01", xxhash.xxh64_intdigest(payload, SEED))
    reader = Reader(payload)
    assert (reader.text(), reader.text(), reader.number()) == ("xxhash2", xxhash.xxh64_hexdigest(tar), len(tar))


def test_an_index_says_where_every_member_is(place: Place) -> None:
    """Offsets are those of the headers: 512 bytes further on, each member is found whole."""
    tar = tar_of(MEMBERS)
    place.bucket.put("s.tar", tar)
    indexed(place)
    reader = Reader(index_of(place, "s.tar").data[11:])
    _, _, _, count = reader.text(), reader.text(), reader.number(), reader.number()
    entries = {reader.text(): (reader.number(), reader.number()) for _ in range(count)}
    assert {name: tar[at + 512 : at + 512 + size] for name, (at, size) in entries.items()} == MEMBERS
    assert reader.data[reader.at :] == b""


def index_of(place: Place, name: str) -> Any:
    path = f"/v1/objects/.sys-shardidx/ais/@%23/{place.name}/{name}.idx?provider=ais"
    return place.http.once("GET", path, at=place.owner(name)["public_net"]["direct_url"])


def indexed(place: Place) -> None:
    """Asks for the indexes of a bucket and waits until they are there."""
    message = {"action": "index-shard", "name": "", "value": None}
    reply = place.http.once("POST", f"/v1/buckets/{place.name}?provider=ais", message)
    assert reply.status == 200, reply.data
    wait_for(place.http, reply.data.decode().strip().strip('"'))


def wait_for(http: Http, job: str) -> None:
    end = time.monotonic() + JOB_SECONDS
    while time.monotonic() < end:
        reply = http.once("GET", "/v1/cluster?what=status", {"ID": job})
        if reply.status == 200 and reply.json()["end_time"]:
            assert not reply.json().get("err")
            return
        time.sleep(0.05)
    raise AssertionError(f"job {job} has not ended after {JOB_SECONDS} s")


class Reader:
    """Unsigned LEB128 numbers, and texts with their length in front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self) -> str:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at].decode()
