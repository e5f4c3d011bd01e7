"""Train a classifier of digits on the PNG objects of a bucket, read by DataPipes.

python -m examples.train_pipes http://localhost:8080 digits

The names are ``train/00001-7.png`` and ``test/00002-3.png``: the label stands behind the dash.
"""

import sys

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper
from tqdm import tqdm

import aisdatapipes  # noqa: F401 - every pipe now has list_files_by_ais and load_files_by_ais


def decoded(item):
    """(pixels, label) of an object."""
    url, stream = item
    pixels = np.asarray(Image.open(stream), dtype=np.float32) / 255
    return torch.from_numpy(pixels.ravel()), int(url.name.rpartition("-")[2][0])


def digits(endpoint, bucket, part):
    """The pipe: list, shuffle, a share for each worker, load, decode."""
    urls = IterableWrapper([f"ais://{bucket}/{part}/"]).list_files_by_ais(url=endpoint)
    return urls.shuffle(buffer_size=10_000).sharding_filter().load_files_by_ais(url=endpoint).map(decoded)


def train(endpoint, bucket, epochs=10, workers=2):
    """After each epoch: the model, and the loss of every step in it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a model this small gains nothing by more, and the cores are for the workers
    loader = DataLoader(
        digits(endpoint, bucket, "train"), batch_size=32, shuffle=True, num_workers=workers, persistent_workers=True
    )
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        losses = []
        for pixels, labels in tqdm(loader, desc=f"epoch {epoch + 1}", unit=" steps", leave=False, disable=None):
            loss = nn.functional.cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield model, losses


if __name__ == "__main__":
    for epoch, (_, losses) in enumerate(train(*sys.argv[1:3]), 1):
        print(f"epoch {epoch}: {len(losses)} steps, mean loss {sum(losses) / len(losses):.3f}")
