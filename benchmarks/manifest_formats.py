"""In which form is a listing of a million objects best kept?

Each contender reads what it wrote before into the arrays of a listing: "samples/s" and memory are of loading, with the
imports done before; "import MB" is what these add to the process. Names have 30 characters, half of them numbered, half
random; sizes are like those of photographs. Parquet and Arrow need pyarrow (``pip install pyarrow``), which nothing
else here does; without it they are left out.

    python -m benchmarks.manifest_formats [--quick]
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from aisdatapipes.wire.manifest import Saved, SavedSource, decoded_manifest, encoded_manifest
from benchmarks.measure import (
    Measurement,
    Report,
    Stored,
    asked,
    chosen,
    content_of,
    cpu_seconds,
    resident_bytes,
    settled_bytes,
)

DISK, SAVING, HELD, IMPORT = "bytes on disk/object", "s to save", "held bytes/object", "import MB"


@dataclass(frozen=True)
class Arrays:
    """A listing: all names in one buffer, where each ends, sizes."""

    blob: Any
    ends: Any
    sizes: Any


def arrays(count: int) -> Arrays:
    """The listing that is saved."""
    made = np.random.default_rng(0)
    numbered = [f"train/n{i // 1000:08d}/{i:010d}.jpg" for i in range(count // 2)]
    random = sorted(f"train/r{i % 1000:07d}/{made.bytes(5).hex()}x.jpg" for i in range(count - count // 2))
    encoded = [name.encode() for name in (*numbered, *random)]
    sizes = made.lognormal(np.log(100_000), 0.5, count).astype(np.int64)
    return Arrays(b"".join(encoded), np.cumsum([len(name) for name in encoded]), sizes)


def save_npz(path: Path, one: Arrays) -> None:
    source = SavedSource("ais://b", len(one.ends))
    path.write_bytes(encoded_manifest(Saved((source,), "0" * 16, None, one.blob, one.ends, one.sizes)))


def load_npz(path: Path) -> Arrays:
    saved = decoded_manifest(path.read_bytes())
    return Arrays(saved.blob, saved.ends, saved.sizes)


def save_jsonl(path: Path, one: Arrays) -> None:
    starts = np.concatenate([[0], one.ends[:-1]]).tolist()
    with gzip.open(path, "wt") as file:
        for start, end, size in zip(starts, one.ends.tolist(), one.sizes.tolist(), strict=True):
            file.write(f"{json.dumps([one.blob[start:end].decode(), size])}\n")


def load_jsonl(path: Path) -> Arrays:
    decode = msgspec.json.Decoder(tuple[str, int]).decode
    blob, lengths, sizes = bytearray(), [], []
    with gzip.open(path, "rb") as file:
        for line in file:
            name, size = decode(line)
            blob += name.encode()
            lengths.append(len(name.encode()))
            sizes.append(size)
    return Arrays(blob, np.cumsum(lengths), np.array(sizes))


def _table(one: Arrays) -> Any:
    import pyarrow as pa

    offsets = np.concatenate([[0], one.ends]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(one.blob)]
    return pa.table({"name": pa.Array.from_buffers(pa.large_binary(), len(one.ends), buffers), "size": one.sizes})


def _arrays(table: Any) -> Arrays:
    names = table["name"].combine_chunks()
    names = names.chunk(0) if hasattr(names, "chunk") else names
    _, offsets, blob = names.buffers()
    return Arrays(
        bytes(blob), np.frombuffer(offsets, np.int64)[1 : len(names) + 1].copy(), table["size"].to_numpy().copy()
    )


def save_parquet(path: Path, one: Arrays) -> None:
    import pyarrow.parquet as pq

    encoding = {"name": "DELTA_BYTE_ARRAY", "size": "DELTA_BINARY_PACKED"}
    pq.write_table(_table(one), path, compression="zstd", use_dictionary=False, column_encoding=encoding)


def load_parquet(path: Path) -> Arrays:
    import pyarrow.parquet as pq

    return _arrays(pq.read_table(path))


def save_ipc(path: Path, one: Arrays) -> None:
    import pyarrow as pa

    table = _table(one)
    with pa.OSFile(str(path), "wb") as file:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)


def load_ipc(path: Path) -> Arrays:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        return _arrays(pa.ipc.open_file(file).read_all())


@dataclass(frozen=True)
class Form:
    """How a listing is saved and loaded, and the module that it takes."""

    save: Callable[[Path, Arrays], None]
    load: Callable[[Path], Arrays]
    module: str | None = None


FORMS = {
    "npz, as Manifest saves": Form(save_npz, load_npz),
    "JSON lines, gzip": Form(save_jsonl, load_jsonl),
    "Parquet, zstd, delta": Form(save_parquet, load_parquet, "pyarrow.parquet"),
    "Arrow IPC, zstd": Form(save_ipc, load_ipc, "pyarrow"),
}


def measured(form: Form, stored: Stored) -> Measurement:
    """One form, written and read."""
    started = settled_bytes()
    if form.module is not None:
        importlib.import_module(form.module)
    imported = settled_bytes() - started
    with tempfile.TemporaryDirectory() as folder:
        path, one = Path(folder) / "saved", arrays(stored.content.count)
        form.load(_written(form, Path(folder) / "small", arrays(1000)))  # what the first one starts is not measured
        began = time.perf_counter()
        _written(form, path, one)
        saving = time.perf_counter() - began
        before = settled_bytes()
        cpu, began = cpu_seconds(), time.perf_counter()
        found = form.load(path)
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        peak, held = resident_bytes("VmHWM") - before, settled_bytes() - before
        disk = path.stat().st_size
    count = stored.content.count
    more = {HELD: held / count, DISK: disk / count, SAVING: saving, IMPORT: imported / 1e6}
    return Measurement(content_of(_named(found)), seconds, cpu, peak, more)


def _written(form: Form, path: Path, one: Arrays) -> Path:
    form.save(path, one)
    return path


def _named(one: Arrays) -> Any:
    starts = np.concatenate([[0], one.ends[:-1]]).tolist()
    for start, end, size in zip(starts, one.ends.tolist(), one.sizes.tolist(), strict=True):
        yield bytes(one.blob[start:end]).decode(), size.to_bytes(8, "little")


def main() -> int:
    options = asked(__doc__ or "")
    count = 2000 if options.quick else 1_000_000
    forms = {name: form for name, form in FORMS.items() if form.module is None or importlib.util.find_spec("pyarrow")}
    if len(forms) < len(FORMS):
        print("pyarrow is not installed: Parquet and Arrow are left out, and no result is kept")
    report = Report("manifest_formats", (__doc__ or "").splitlines()[0], options.rounds, "no cluster", options.quick)
    report.measure(chosen(forms, options), Stored("", "", (), content_of(_named(arrays(count)))), measured)
    return report.finish(keep=not options.only and len(forms) == len(FORMS))


if __name__ == "__main__":
    sys.exit(main())
