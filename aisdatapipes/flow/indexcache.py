"""Indexes that were made here, kept in a folder of this machine for the next job.

An entry is a file, named by checksum and size of its shard and written so that it is whole or not there; one that is
damaged is as good as none. What cannot be kept (no folder, no room) is made again by whoever needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from aisdatapipes.wire.malformed import Malformed
from aisdatapipes.wire.shardindex import KEPT, ShardIndex, decoded_index, encoded_index

log = logging.getLogger("aisdatapipes")

LIMIT_BYTES = 1 << 30  # 50 million members and their names
_KEPT_SHARE = 0.8  # of the limit, when it was reached
_CHECKSUM = re.compile(r"[0-9a-f]{8,128}")  # as every kind of checksum of AIStore's is written
_ABANDONED_S = 3600.0  # age of a file that nobody is still writing


class IndexCache:
    """A folder of indexes; for any number of processes at a time.

    Args:
        folder: Made when something is kept.
        limit_bytes: Of all entries; those not used for the longest time go first.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._told = False  # that nothing can be kept

    @property
    def empty(self) -> bool:
        """Whether nothing is kept, so that nobody need look."""
        return not any(path.suffix == ".idx" for path in self._files())

    def get(self, checksum: str, size: int) -> ShardIndex | None:
        """The index of the shard with this checksum and size; None where it is not kept, or damaged."""
        path = self._path(checksum, size)
        if path is None:
            return None
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        try:
            index = decoded_index(data, KEPT)
        except Malformed as error:
            log.warning("%s: an index that was kept is damaged, and made again: %s", path, error)
            return None
        return index if (index.checksum, index.size) == (checksum, size) else None

    def put(self, index: ShardIndex) -> None:
        """Keep an index; not that of a shard of which the cluster keeps no checksum."""
        path = self._path(index.checksum, index.size)
        if path is None:
            return
        written = path.with_name(f".{uuid.uuid4().hex}.new")
        try:
            self._make_folder()
            try:
                with open(written, "xb", opener=_private) as file:
                    file.write(encoded_index(index))
                written.replace(path)
            finally:
                written.unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)

    def trim(self) -> None:
        """Keep to the limit."""
        entries = []
        for path in self._files():
            with contextlib.suppress(OSError):  # gone meanwhile
                stat = path.stat()
                if path.suffix == ".idx":
                    entries.append((stat.st_mtime, stat.st_size, path))
                elif path.suffix == ".new" and time.time() - stat.st_mtime > _ABANDONED_S:
                    path.unlink()
        used = sum(size for _, size, _ in entries)
        if used <= self._limit:
            return
        for _, size, path in sorted(entries):
            if used <= self._limit * _KEPT_SHARE:
                return
            used -= size
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside it no other process is inside it: what one of them makes the others need not make too."""
        with contextlib.ExitStack() as stack:
            try:
                self._make_folder()
                file = stack.enter_context(open(self._folder / "lock", "wb", opener=_private))
                fcntl.flock(file, fcntl.LOCK_EX)  # let go by the kernel, whatever happens to this process
            except OSError as error:
                self._tell(error)
            yield

    def _path(self, checksum: str, size: int) -> Path | None:
        return self._folder / f"{checksum}-{size}.idx" if _CHECKSUM.fullmatch(checksum) else None

    def _files(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except OSError:
            return []

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            log.warning("indexes of shards are not kept for the next job: %s", error)
            self._told = True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
