"""Train with PyTorch Lightning, be killed, and go on at the next sample, on as many ranks as there are then.

AIS_ENDPOINT=http://localhost:8080 torchrun --nproc-per-node 2 -m examples.lightning_resume ais://digits/train/ folder
"""

import os
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from aisdatapipes import AISIterDataset
from examples.resume import collated


class Order(Callback):
    """The place in the data, in every checkpoint: behind what was trained on, whatever was fetched since."""

    def __init__(self, dataset):
        self.dataset, self.steps = dataset, 0

    def on_train_epoch_start(self, *_):
        self.steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def state_dict(self):
        return self.dataset.state_dict(batches=self.steps)

    def load_state_dict(self, state):
        self.dataset.load_state_dict(state)


class Batches:
    """The loader without its length, by which Lightning ends an epoch too early that is resumed on more ranks."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, _):
        _, pixels, labels = batch
        return nn.functional.cross_entropy(self.layers(pixels), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def train(loader, folder, save_every=5, **options):
    """The trainer, when it has ended."""
    saving = ModelCheckpoint(folder, "last", every_n_train_steps=save_every, enable_version_counter=False)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    callbacks = [Order(loader.dataset), saving]
    trainer = Trainer(accelerator="cpu", strategy="ddp", devices=ranks, callbacks=callbacks, logger=False, **options)
    last = Path(folder, "last.ckpt")
    trainer.fit(Classifier(), Batches(loader), ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(last)
    return trainer


if __name__ == "__main__":
    digits = AISIterDataset(sys.argv[1], shuffle=True, batch_size=16)
    train(DataLoader(digits, 16, collate_fn=collated, num_workers=2), sys.argv[2], max_epochs=10)
