"""One training, with the clock on it: what it read, how long it took, how good it got."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Run:
    """A training that was watched.

    ``seconds`` is all that happened between the start and the last step: start of the workers, listing, reading,
    decoding, forward and backward. What the demo itself does between epochs (held-out accuracy) is not in it.
    """

    title: str
    samples_per_epoch: int
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    accuracies: list[tuple[int, float]] = field(default_factory=list)  # (step, share that is right)
    model: nn.Module = field(default_factory=nn.Identity)

    @property
    def samples(self) -> int:
        return self.samples_per_epoch * len(self.accuracies)

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds

    @property
    def accuracy(self) -> float:
        """On the held-out digits, at the end."""
        return self.accuracies[-1][1]


def watched(run: Run, training: Iterator[tuple[nn.Module, list[float]]], held_out: list[Batch]) -> Run:
    """``run``, when ``training`` has ended; a line is printed after each epoch."""
    while True:
        began = time.perf_counter()
        epoch = next(training, None)
        seconds = time.perf_counter() - began
        run.seconds += seconds  # after the last epoch: that of ending the workers
        if epoch is None:
            return run
        run.model, losses = epoch
        run.losses += losses
        run.accuracies.append((len(run.losses), accuracy(run.model, held_out)))
        print(
            f"  epoch {len(run.accuracies):2d}: loss {sum(losses) / len(losses):.3f}, "
            f"held-out accuracy {run.accuracy:.3f}, {run.samples_per_epoch / seconds:,.0f} samples/s",
            flush=True,
        )


def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Share of the digits in ``batches`` that the model gets right."""
    right = [predictions(model, pixels) == labels for pixels, labels in batches]
    return torch.cat(right).float().mean().item()


def predictions(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The most likely digit of each row."""
    with torch.no_grad():
        return model(pixels).argmax(1)
