"""Train a classifier of digits on the WebDataset shards of a bucket, read by `AISShardReader`.

python -m examples.train_shards http://localhost:8080 digits

The shards are ``train-*.tar`` and ``test-*.tar``; each sample is a ``.png`` and a ``.cls`` with the label in digits.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from aisdatapipes import AISShardReader, ClientConfig


def collated(samples):
    """(pixels, labels) of a batch of samples."""
    pixels = torch.stack([fields["png"].flatten() for _, fields in samples])
    return pixels, torch.tensor([fields["cls"] for _, fields in samples])


def digits(endpoint, bucket, part, **options):
    """The dataset: grey pictures as tensors of numbers from 0 to 1, and labels as int."""
    url = f"ais://{bucket}/{part}-"
    return AISShardReader(url, config=ClientConfig(endpoint), fields=("png", "cls"), decode="torchl", **options)


def train(endpoint, bucket, epochs=10, workers=2):
    """After each epoch: the model, and the loss of every step in it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a model this small gains nothing by more, and the cores are for the workers
    shards = digits(endpoint, bucket, "train", shuffle=True)
    loader = DataLoader(shards, batch_size=32, collate_fn=collated, num_workers=workers, persistent_workers=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        losses = []
        # `iter`: without indexes nobody knows how many samples there are in shards before they are read.
        for pixels, labels in tqdm(iter(loader), desc=f"epoch {epoch + 1}", unit=" steps", leave=False, disable=None):
            loss = nn.functional.cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield model, losses


if __name__ == "__main__":
    for epoch, (_, losses) in enumerate(train(*sys.argv[1:3]), 1):
        print(f"epoch {epoch}: {len(losses)} steps, mean loss {sum(losses) / len(losses):.3f}")
