"""Train on some ranks, be killed, and go on at the next sample, on as many ranks as there are then.

AIS_ENDPOINT=http://localhost:8080 torchrun --nproc-per-node 2 -m examples.resume ais://digits/train/ checkpoint.pt
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset


def collated(samples):
    """(names, pixels, labels) of a batch of ``(name, content)``; a name is ``train/00001-7.png``."""
    names, contents = zip(*samples, strict=True)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(png)), np.float32).ravel() for png in contents]) / 255
    return names, torch.from_numpy(pixels), torch.tensor([int(name.rpartition("-")[2][0]) for name in names])


def train(loader, path, epochs=10, save_every=5):
    """After each epoch: its number, the steps that were made in it, and the last one's loss."""
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer, dataset = torch.optim.Adam(model.parameters(), lr=3e-3), loader.dataset
    if path.exists():
        for part, state in zip((model, optimizer, dataset), torch.load(path, weights_only=True), strict=True):
            part.load_state_dict(state)
    for epoch in range(dataset.state_dict()["epoch"], epochs):
        dataset.set_epoch(epoch)  # the one that was loaded keeps its position
        for step, (_, pixels, labels) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % save_every == 0:
                save(path, model, optimizer, dataset.state_dict(batches=step))  # steps of this loop, not of the epoch
        save(path, model, optimizer, dataset.state_dict(epoch=epoch + 1))
        yield epoch, step, loss.item()


def save(path, model, optimizer, order):
    """Whoever kills this, the checkpoint is the old one or the new one; ``order`` is the same on every rank."""
    if dist.get_rank() == 0:
        torch.save((model.state_dict(), optimizer.state_dict(), order), path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    digits = AISIterDataset(sys.argv[1], shuffle=True, batch_size=16)
    for done in train(DataLoader(digits, 16, collate_fn=collated, num_workers=2), Path(sys.argv[2])):
        print("epoch {}: {} steps, loss {:.3f}".format(*done), flush=True)
    dist.destroy_process_group()
