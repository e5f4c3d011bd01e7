"""scikit-learn's handwritten digits, as PNG objects and as WebDataset shards in a bucket."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import numpy as np
import urllib3
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from aisdatapipes import ShardWriter

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


def uploaded(endpoint: str, bucket: str, parts: dict[str, list[Digit]]) -> int:
    """Number of objects that were put into the bucket: ``train/00001-7.png`` and so on, and ``train-000.tar``."""
    return _objects(endpoint, bucket, parts) + sum(len(_shards(endpoint, bucket, part, parts[part])) for part in parts)


def _shards(endpoint: str, bucket: str, part: str, samples: list[Digit]) -> list[str]:
    """URLs of the shards of a part."""
    with ShardWriter(f"ais://{bucket}/{part}-%03d.tar", maxcount=SHARD_SAMPLES, config=endpoint) as writer:
        for key, label, png in samples:
            writer.write({"__key__": key, "png": png, "cls": label})
    return writer.shards


def _objects(endpoint: str, bucket: str, parts: dict[str, list[Digit]]) -> int:
    """Number of PNGs that were put into the bucket: by plain PUTs, a third of the work of the SDK's."""
    names = [(f"{part}/{key}-{label}.png", png) for part in parts for key, label, png in parts[part]]
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
