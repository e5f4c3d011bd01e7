"""scikit-learn's handwritten digits, as PNG objects and as WebDataset shards in a bucket."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import numpy as np
import urllib3
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

TEST_EVERY = 5  # every fifth digit is held out
SHARD_SAMPLES = 90
_PUTS_AT_ONCE = 8

Digit = tuple[str, int, bytes]  # key, label, PNG


def digits(limit: int | None = None) -> dict[str, list[Digit]]:
    """The digits by part, ``train`` and ``test``, in an order that mixes the labels."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))[:limit]
    parts: dict[str, list[Digit]] = {"train": [], "test": []}
    for position, index in enumerate(order):
        part = "train" if position % TEST_EVERY else "test"
        parts[part].append((f"{index:05d}", int(found.target[index]), _png(found.images[index])))
    return parts


def objects(parts: dict[str, list[Digit]]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every object: ``train/00001-7.png`` and ``train-000.tar``."""
    for part, samples in parts.items():
        yield from ((f"{part}/{key}-{label}.png", png) for key, label, png in samples)
        for number, begin in enumerate(range(0, len(samples), SHARD_SAMPLES)):
            yield f"{part}-{number:03d}.tar", _tar(samples[begin : begin + SHARD_SAMPLES])


def uploaded(endpoint: str, bucket: str, parts: dict[str, list[Digit]]) -> int:
    """Number of objects that were put into the bucket: by plain PUTs, a third of the work of the SDK's."""
    names = list(objects(parts))
    token = os.environ.get("AIS_AUTHN_TOKEN")
    http = urllib3.PoolManager(
        maxsize=_PUTS_AT_ONCE,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        ca_certs=os.environ.get("AIS_CLIENT_CA"),
    )

    def put(item: tuple[str, bytes]) -> None:
        # The proxy answers with a redirect to the target that is to keep the object.
        reply = http.request("PUT", f"{endpoint}/v1/objects/{bucket}/{item[0]}?provider=ais", body=item[1])
        if reply.status != HTTPStatus.OK:
            raise OSError(f"{item[0]} could not be put: status {reply.status}, {reply.data.decode()}")

    with ThreadPoolExecutor(_PUTS_AT_ONCE) as pool:
        done = tqdm(pool.map(put, names), "upload", total=len(names), unit=" objects", leave=False, disable=None)
        return sum(1 for _ in done)


def _png(image: np.ndarray) -> bytes:
    """8 x 8 pixels of 0 to 16, as 8-bit grey."""
    out = io.BytesIO()
    Image.fromarray((image * (255 / 16)).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _tar(samples: list[Digit]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for key, label, png in samples:
            for extension, content in (("png", png), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()
