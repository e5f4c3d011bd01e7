"""Indexes that are kept on this machine: whole or not there, bounded, shared by any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from aisdatapipes.flow.clusters import Clusters
from aisdatapipes.flow.indexcache import IndexCache
from aisdatapipes.flow.meter import Meter
from aisdatapipes.flow.resolve import resolve
from aisdatapipes.model.config import ClientConfig, cache_folder
from aisdatapipes.model.url import AISURL
from aisdatapipes.wire.shardindex import ShardIndex
from aisdatapipes.wire.tar import END, entry

CHECKSUM = "0123456789abcdef"
INDEX = ShardIndex.of([(b"a.jpg", 0, 5), (b"\xff.cls", 1024, 1), (b"link.jpg", 0, 5)], CHECKSUM, 4096)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "cache"


def told(index):
    return None if index is None else (index.checksum, index.size, list(index.entries()))


def entries(folder):
    return sorted(path.name for path in folder.glob("*.idx"))


def test_what_was_kept_is_found(folder):
    """By checksum and size of the shard, also by another process later; for nobody else's eyes."""
    IndexCache(folder).put(INDEX)
    assert told(INDEX) == told(IndexCache(folder).get(CHECKSUM, 4096))
    assert (None, None) == (IndexCache(folder).get(CHECKSUM, 4097), IndexCache(folder).get("0" * 16, 4096))
    assert [0o700, 0o600] == [path.stat().st_mode & 0o777 for path in (folder, next(folder.glob("*.idx")))]


def test_a_shard_without_a_checksum_is_not_kept(folder):
    """Nothing would tell it from another one of its size; nor does a checksum become a path that it is not."""
    cache = IndexCache(folder)
    for checksum in ("", "../../../etc/passwd", "0123/4567", "ABCDEF0123456789"):
        cache.put(ShardIndex.of([], checksum, 1024))
        assert cache.get(checksum, 1024) is None
    assert cache.empty


@pytest.mark.parametrize("damage", [b"", b"\x01\x80\x01", b"x" * 100], ids=["empty", "cut", "nonsense"])
def test_a_damaged_entry_is_as_good_as_none(folder, damage, caplog):
    """It is told, and replaced by the next one."""
    cache = IndexCache(folder)
    cache.put(INDEX)
    path = next(folder.glob("*.idx"))
    path.write_bytes(damage)
    assert cache.get(CHECKSUM, 4096) is None
    assert f"{path}: an index that was kept is damaged" in caplog.text
    cache.put(INDEX)
    assert told(INDEX) == told(cache.get(CHECKSUM, 4096))


def test_an_entry_under_a_wrong_name(folder):
    """The name says which shard it is of, but the entry itself has the last word."""
    cache = IndexCache(folder)
    cache.put(INDEX)
    next(folder.glob("*.idx")).rename(folder / f"{'0' * 16}-4096.idx")
    assert cache.get("0" * 16, 4096) is None


def test_the_limit(folder):
    """Those that were not used for the longest time go first; the others stay."""
    cache = IndexCache(folder, limit_bytes=1000)
    for number in range(20):
        cache.put(ShardIndex.of([(b"n" * 60, 0, 0)], f"{number:016x}", 1024))
        os.utime(folder / f"{number:016x}-1024.idx", (number, number))
    assert cache.get(f"{3:016x}", 1024)  # used: the newest now
    cache.trim()
    kept = entries(folder)
    assert 500 < sum((folder / name).stat().st_size for name in kept) <= 800
    assert [f"{3:016x}-1024.idx", *(f"{number:016x}-1024.idx" for number in range(21 - len(kept), 20))] == kept


def test_files_that_nobody_finished(folder):
    """What a process left behind that was killed while it wrote goes; what one is writing stays."""
    cache = IndexCache(folder)
    cache.put(INDEX)
    for name, age in ((".old.new", 7200), (".young.new", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.trim()
    assert {".young.new", f"{CHECKSUM}-4096.idx"} == {path.name for path in folder.iterdir()}


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    """Nothing is kept, which is told once, and nothing fails."""
    (tmp_path / "file").write_bytes(b"")
    cache = IndexCache(tmp_path / "file" / "cache")
    for _ in range(3):
        with cache.alone():
            cache.put(INDEX)
        cache.trim()
    assert (None, True, 1) == (cache.get(CHECKSUM, 4096), cache.empty, caplog.text.count("are not kept"))


def test_where_it_is(monkeypatch, tmp_path):
    """Under the folder that the system's users choose for such things; a relative one does not count."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "aisdatapipes" == cache_folder()
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert Path.home() / ".cache" / "aisdatapipes" == cache_folder()


def _resolve(endpoint, name, size, folder, answers):
    meter = Meter()
    shards = [AISURL.make(f"ais://{name}/{i}.tar", "ais", name, f"{i}.tar", size=size) for i in range(8)]
    found = resolve(shards, "client", Clusters(ClientConfig(endpoint)), meter, IndexCache(folder))
    answers.put((meter.requests, found.table.fingerprint))


def test_many_processes_make_each_index_once(bucket, folder):
    """Ranks of one machine that begin together: one reads the headers, the others take what it has kept."""
    archives = [b"".join(entry(f"{i}.{j}", bytes(300_000)) for j in range(3)) + END for i in range(8)]
    bucket.fill({f"{i}.tar": archive for i, archive in enumerate(archives)})
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = (bucket.endpoint, bucket.name, len(archives[0]), folder, answers)
    processes = [context.Process(target=_resolve, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    told = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    answers.close()
    answers.join_thread()
    assert ([8, 8], 1) == ([requests for requests, _ in told[:2]], len({fingerprint for _, fingerprint in told}))
    assert told[2][0] > 8
