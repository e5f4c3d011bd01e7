"""``demo.png``: how the trainings went, how fast they read, and what the model makes of digits it never saw."""

from __future__ import annotations

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.digits.measure import Batch, Run, predictions

_COLOURS = ("#76b900", "#1f5fa8")
_WRONG = "#c62828"
_ROWS, _COLUMNS = 4, 12
_SMOOTH = 15  # steps in the running mean of the loss
_STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True,
}  # fmt: skip


def drawn(path: str, runs: list[Run], held_out: list[Batch], where: str) -> None:
    """Writes the picture."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 7.5), layout="constrained")
        figure.suptitle(f"Handwritten digits, trained straight from {where}", fontsize=14, fontweight="bold")
        figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)  # inches; else the last row touches the edge
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 0.95))
        loss, right, rate = upper.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
        _losses(loss, runs)
        _accuracies(right, runs)
        _rates(rate, runs)
        lower.suptitle(
            f"Held-out digits, and what the model trained by {runs[-1].title} says (red: wrong)",
            fontweight="bold", fontsize=12,
        )  # fmt: skip
        _digits(lower.subplots(_ROWS, _COLUMNS), runs[-1], held_out)
        figure.savefig(path, dpi=110)


def _losses(axes: Axes, runs: list[Run]) -> None:
    for run, colour in zip(runs, _COLOURS, strict=True):
        losses = torch.tensor(run.losses)
        axes.plot(run.losses, color=colour, alpha=0.2, linewidth=0.8)
        if len(losses) >= _SMOOTH:
            mean = losses.unfold(0, _SMOOTH, 1).mean(1)
            axes.plot(range(_SMOOTH - 1, len(losses)), mean.numpy(), color=colour, label=run.title)
    axes.set(title="Loss", xlabel="step", yscale="log")
    axes.legend(frameon=False, loc="upper right")


def _accuracies(axes: Axes, runs: list[Run]) -> None:
    for run, colour in zip(runs, _COLOURS, strict=True):
        axes.plot(*zip(*run.accuracies, strict=True), color=colour, marker="o", markersize=4, label=run.title)
    axes.axhline(0.95, color="grey", linewidth=0.8, linestyle="--")
    axes.set(title="Held-out accuracy", xlabel="step")
    axes.set_ylim(top=1.0)
    axes.legend(frameon=False, loc="lower right")


def _rates(axes: Axes, runs: list[Run]) -> None:
    bars = axes.bar([run.title for run in runs], [run.rate for run in runs], color=_COLOURS, width=0.55)
    axes.bar_label(bars, [f"{run.rate:,.0f}" for run in runs], padding=2)
    axes.set(title="Read and trained, samples/s")
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")


def _digits(grid: list[list[Axes]], run: Run, held_out: list[Batch]) -> None:
    """The mistakes first, then whatever comes."""
    pixels, labels = (torch.cat(columns) for columns in zip(*held_out, strict=True))
    said = predictions(run.model, pixels)
    order = (said == labels).int().argsort(stable=True).tolist()
    for axes in (one for row in grid for one in row):
        axes.axis("off")
        if order:
            index = order.pop(0)
            wrong = bool(said[index] != labels[index])
            axes.imshow(pixels[index].reshape(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            text = f"{said[index]} (is {labels[index]})" if wrong else f"{said[index]}"
            axes.set_title(
                text, color=_WRONG if wrong else "black", fontsize=9, pad=2, loc="center",
                fontweight="bold" if wrong else "normal",
            )  # fmt: skip
