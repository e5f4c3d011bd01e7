"""What becomes of contents: as WebDataset decodes them, but for what would run code; errors name shard, key and field."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from aisdatapipes import (
    AISShardMapDataset,
    AISShardReader,
    AISShardSamples,
    ClientConfig,
    ConfigError,
    CorruptSample,
    FetchPlan,
)
from aisdatapipes.pipes.decoding import Decoder
from aisdatapipes.wire.sample_tar import SampleTar, encoded_sample

Image = pytest.importorskip("PIL.Image", reason="the extra images is not installed")

ROOT = Path(__file__).parent.parent.parent
SPECS = [
    "l8", "rgb8", "rgba8", "l", "rgb", "rgba", "torchl8", "torchrgb8", "torchrgba8", "torchl", "torchrgb", "torch",
    "torchrgba", "pill", "pil", "pilrgb", "pilrgba",
]  # fmt: skip


def picture(mode, form="PNG"):
    size = (3, 2)
    raw = bytes(i * 37 % 256 for i in range(6 * len(Image.new(mode, size).getbands())))
    out = io.BytesIO()
    Image.frombytes(mode, size, raw).save(out, form)
    return out.getvalue()


def torch_file(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def npz_file(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def tar_of(*samples):
    tar = SampleTar()
    for one in samples:
        tar.add(*encoded_sample(one))
    return tar.content()


def piped(archive, **options):
    pipe = AISShardSamples(IterableWrapper([("s.tar", io.BytesIO(archive))], deepcopy=False), **options)
    return list(pipe)


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


ARRAY = np.arange(6, dtype=np.int16).reshape(2, 3)
BASIC = {
    "txt": "ü".encode(),
    "empty.txt": b"",
    "cls": b"3\n",
    "index": b"-1",
    "id": b"7",
    "json": b'{"a": [1, null]}',
    "npy": encoded_sample({"__key__": "k", "npy": ARRAY})[1][512:][:140],
    "npz": npz_file(x=ARRAY),
    "pth": torch_file({"w": torch.ones(2)}),
    "bin": b"bytes",
    "json.bak": b"{",
}


# ---- WebDataset as the oracle


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pictures_are_those_of_webdataset(spec, mode):
    """Kind, type, shape and every pixel; whichever picture it was."""
    wds = pytest.importorskip("webdataset")
    data = picture(mode)
    decoder = wds.autodecode.Decoder([wds.autodecode.imagehandler(spec)])
    fields = {"png": data, "seg.PNG".lower(): data, "cls": b"1"}
    expected = decoder.decode(dict(fields))
    found = Decoder(spec, "error")("s.tar", "k", fields)
    assert [name for name in fields if not same(expected[name], found[name])] == []


def test_basics_are_those_of_webdataset():
    """A name of pictures brings them along; what no name is for stays bytes."""
    wds = pytest.importorskip("webdataset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it unpickles
        expected = wds.autodecode.Decoder([wds.autodecode.imagehandler("pil")]).decode(dict(BASIC))
    found = Decoder("pil", "error")("s.tar", "k", BASIC)
    assert [name for name in BASIC if not same(expected[name], found[name])] == []
    assert ("", b"bytes", b"{") == (found["empty.txt"], found["bin"], found["json.bak"])


@pytest.mark.parametrize("name", ["txt", "cls", "json", "npy", "npz", "pth"])
def test_a_basic_name_is_for_its_own_extensions(name):
    """The others stay bytes; several names are for all of theirs."""
    every, one = (Decoder(names, "error")("s.tar", "k", BASIC) for names in ("pil", name))
    changed = {field for field in BASIC if not same(BASIC[field], one[field])}
    of_name = {"txt": {"txt", "empty.txt"}, "cls": {"cls", "index", "id"}}.get(name, {name})
    assert of_name == changed
    assert all(same(every[field], one[field]) for field in changed)
    both = Decoder([name, "cls"], "error")("s.tar", "k", BASIC)
    assert 3 == both["cls"]


# ---- in pipes and datasets


def test_a_callable_gets_key_extension_and_content():
    """Of every field; what it returns is the value, None too."""
    archive = tar_of({"__key__": "a/1", "seg.png": b"P", "cls": 1}, {"__key__": "a/2", "cls": 2})
    told = [("a/1", {"cls": ("a/1", "cls", b"1"), "seg.png": ("a/1", "seg.png", b"P")}),
            ("a/2", {"cls": ("a/2", "cls", b"2"), "seg.png": b""})]  # fmt: skip
    assert told == piped(archive, decode=lambda *said: said)
    assert [("a/1", {"cls": None}), ("a/2", {"cls": None})] == piped(archive, fields=["cls"], decode=lambda *_: None)


SAMPLES = [{"__key__": f"{n:03d}", "png": picture("L"), "cls": n, "txt": f"text {n}"} for n in range(12)]


@pytest.fixture
def shards(bucket):
    bucket.fill({"a.tar": tar_of(*SAMPLES[:7]), "b.tar": tar_of(*SAMPLES[7:])})
    return bucket


def reader(bucket, **options):
    return AISShardReader(bucket.url, config=bucket.server.config, **options)


@pytest.mark.parametrize("index", ["off", "client", "server"])
def test_every_way_of_reading(shards, index):
    """Streams and samples by their places give the same values; in a map-style dataset too."""
    found = list(reader(shards, index=index, decode="l8"))
    assert [(f"{n:03d}", n, f"text {n}") for n in range(12)] == [(key, one["cls"], one["txt"]) for key, one in found]
    assert {(2, 3)} == {one["png"].shape for _, one in found}
    if index != "off":
        mapped = AISShardMapDataset(shards.url, config=shards.server.config, index=index, decode="l8", fields=("cls",))
        assert (("003", {"cls": 3}), 12) == (mapped[3], len(mapped))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_through_workers(shards, method):
    """A decoder travels to workers, and what it makes comes back as a batch."""
    dataset = reader(shards, decode=("torch", "cls"), fields=("png", "cls"), batch_size=4)
    context = multiprocessing.get_context(method)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=context)
    batches = [fields for _, fields in loader]
    assert [list(range(at, at + 4)) for at in (0, 4, 8)] == [batch["cls"].tolist() for batch in batches]
    assert {(4, 3, 2, 3)} == {tuple(batch["png"].shape) for batch in batches}


def test_what_was_filled_in_is_not_decoded():
    """It stays empty; where nothing is filled in, an empty picture is an error."""
    archive = tar_of({"__key__": "1", "cls": 1, "txt": "t"}, {"__key__": "2", "png": b""})
    filled = piped(archive, fields=("png", "cls", "txt"), decode="pil")
    assert [("1", {"png": b"", "cls": 1, "txt": "t"}), ("2", {"png": b"", "cls": b"", "txt": ""})] == filled
    with pytest.raises(CorruptSample, match=r"s\.tar: sample '2': field 'png' \(0 bytes\)"):
        piped(archive, fields=("png",), missing="skip", decode="pil")


# ---- errors


class Bad(Exception):
    pass


def fails_at_2(key, extension, content):
    if (key, extension) == ("002", "cls"):
        raise Bad("not this one\nsecond line")
    return content


BROKEN = [
    ("cls", "cls", b"three", "ValueError: invalid literal"),
    ("json", "json", b"{", "JSONDecodeError: Expecting property name"),
    ("txt", "txt", b"\xff", "UnicodeDecodeError"),
    ("pil", "jpg", b"no picture", "UnidentifiedImageError"),
    ("rgb8", "png", picture("RGB")[:-30], ""),
    ("pil", "jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "UnidentifiedImageError"),
    ("npy", "npy", b"\x93NUMPY", "ValueError"),
    ("npz", "npz", b"PK", ""),
    ("pth", "pth", torch_file(Bad("code")), "UnpicklingError: Weights only load failed"),
]


@pytest.mark.parametrize(("name", "field", "data", "why"), BROKEN, ids=[f"{row[0]}-{row[3][:12]}" for row in BROKEN])
def test_what_cannot_be_decoded(name, field, data, why):
    """An error in one line that names shard, key, field and cause; it survives a worker."""
    archive = tar_of({"__key__": "a/7", field: data})
    with pytest.raises(CorruptSample) as caught:
        piped(archive, decode=name)
    text = str(caught.value)
    assert text.startswith(f"s.tar: sample 'a/7': field {field!r} ({len(data)} bytes) cannot be decoded: {why}")
    assert "\n" not in text
    assert (CorruptSample, "s.tar", text) == (
        type(again := pickle.loads(pickle.dumps(caught.value))),
        again.url,
        str(again),
    )


@pytest.mark.parametrize("index", ["off", "client"])
def test_on_error(shards, index):
    """One sample is left out and counted, not the rest of its shard; the callable hears of it once; max_errors holds."""
    with pytest.raises(CorruptSample, match=r"a\.tar: sample '002': field 'cls' .*Bad: not this one"):
        list(reader(shards, index=index, decode=fails_at_2))
    heard = []
    dataset = reader(shards, index=index, decode=fails_at_2, on_error=lambda error: heard.append(str(error)) or "skip")
    assert [key for key, _ in dataset] == [f"{n:03d}" for n in range(12) if n != 2]
    assert (1, 1) == (dataset.stats()["skipped"], len(heard))
    with pytest.raises(CorruptSample):
        list(reader(shards, index=index, decode=fails_at_2, on_error="skip", max_errors=0))


@pytest.mark.parametrize("index", ["off", "client"])
def test_resume_behind_a_sample_that_was_left_out(shards, index):
    """It counts as passed: what follows comes once, and nothing before it is decoded again."""
    options = {"index": index, "decode": fails_at_2, "on_error": "skip", "fetch": FetchPlan(window_bytes=1)}
    first = reader(shards, **options)
    samples = iter(first)
    assert ["000", "001", "003"] == [next(samples)[0] for _ in range(3)]
    state = first.state_dict()
    samples.close()
    resumed = reader(shards, **options)
    resumed.load_state_dict(state)
    assert [f"{n:03d}" for n in range(4, 12)] == [key for key, _ in resumed]


@pytest.mark.parametrize("index", ["off", "client"])
def test_an_error_of_a_worker(shards, index):
    """It comes out with its class."""
    with pytest.raises(CorruptSample, match="sample '002'"):
        list(DataLoader(reader(shards, index=index, decode=fails_at_2), num_workers=1, batch_size=None))


def test_a_sample_of_a_map_dataset(shards):
    """Alone it is an error; in a batch it can be left out."""
    dataset = AISShardMapDataset(
        shards.url, config=shards.server.config, index="client", decode=fails_at_2, on_error="skip"
    )
    with pytest.raises(CorruptSample, match="sample '002'"):
        dataset[2]
    assert ["001", "003"] == [key for key, _ in dataset.__getitems__([1, 2, 3])]


@pytest.mark.parametrize(("decode", "says"), [
    ("jpeg", "one or several of l, l8,"),
    (("pil", "cbor"), "not 'cbor'"),
    ("pyd", "'pyd' would run whatever code the data hold"),
    (["cls", "pickle"], "'pickle' would run whatever code"),
    ((), "decode is empty"),
    (3, "not 3"),
    (b"pil", "not 112"),
    ([len], "not <built-in function len>"),
])  # fmt: skip
def test_a_decode_that_cannot_be(decode, says):
    """It is refused at construction."""
    for make in (
        lambda: AISShardReader("ais://b/", decode=decode, config=ClientConfig("localhost:1")),
        lambda: AISShardSamples(IterableWrapper([]), decode=decode),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert says in str(caught.value)


def test_without_pillow():
    """It is said at construction what to install; the basics need nothing."""
    program = """
import sys
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = staticmethod(lambda name, *more: None if name == "PIL" else find(name, *more))
from aisdatapipes import AISShardReader, ConfigError
AISShardReader("ais://b/", decode=("cls", "json"))
try:
    AISShardReader("ais://b/", decode="pil")
except ConfigError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIS_ENDPOINT": "localhost:1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert "decode='pil' needs Pillow: pip install 'aisdatapipes[images]'\n" == done.stdout, done.stderr
