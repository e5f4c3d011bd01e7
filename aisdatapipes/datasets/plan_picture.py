"""The picture of a plan: steps to the right, ranks downwards, workers as colours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aisdatapipes.model.errors import ConfigError
from aisdatapipes.order.permutation import Positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aisdatapipes.datasets.plan import Plan

_STEPS, _RANKS = (5, 3), (5, 2)  # shown of many: the first ones and the last ones
_COLORS = ("#a9cbe8", "#f6d19b", "#b9dfb4", "#e3b7d2", "#d8d3a8", "#b8d8d8", "#e5b9a5", "#cfc4e6")
_GREY, _INK, _AGAIN = "#d9d9d9", "#303030", "#c05020"
_NAME = 15  # characters of a name in a cell


def ends(count: int, first: int, last: int) -> list[int]:
    """The first and the last of so many, or all where only one would be left out."""
    if count <= first + last + 1:
        return list(range(count))
    return [*range(first), *range(count - last, count)]


def drawn(plan: Plan) -> Figure:
    """The figure; on top the epoch's order, below it who takes which part of it at which step."""
    matplotlib = _matplotlib()
    steps, ranks = ends(plan.steps, *_STEPS), ends(plan.world_size, *_RANKS)
    size = (max(7.0, 1.5 + 1.35 * len(steps)), 1.9 + 0.62 * max(1, len(ranks)))
    figure: Figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    top, grid = figure.subplots(2, 1, height_ratios=[1, 1.6 * max(1, len(ranks))])
    figure.suptitle(f"{plan.headline}\n{plan.remainder}", fontsize=9, x=0.01, ha="left")
    _draw_order(top, plan)
    _draw_grid(grid, plan, steps, ranks)
    return figure


def _draw_order(axes: Any, plan: Plan) -> None:
    """The positions of the epoch: those done before, those that are dealt, those that are left out."""
    begin = plan.begins.position
    dealt = min(sum(plan.counts), plan.number - begin)
    parts = [(0, begin, _GREY, "done"), (begin, dealt, "white", "dealt"),
             (begin + dealt, plan.number - begin - dealt, "#f4b6b0", "left out")]  # fmt: skip
    for first, count, color, what in parts:
        if count:
            axes.broken_barh([(first, count)], (0, 1), facecolors=color, edgecolors=_INK, linewidth=0.8, label=what)
            if count > plan.number / 12:
                axes.text(first + count / 2, 0.5, what, ha="center", va="center", fontsize=8, color=_INK)
    axes.set(xlim=(0, max(1, plan.number)), ylim=(0, 1), yticks=[])
    axes.locator_params(axis="x", integer=True)
    axes.set_title("positions in the epoch's order", fontsize=8, loc="left")
    axes.tick_params(labelsize=7)


def _draw_grid(axes: Any, plan: Plan, steps: list[int], ranks: list[int]) -> None:
    matplotlib = _matplotlib()
    workers = max(1, plan.num_workers)
    for column, step in enumerate(steps):
        items = {row.rank: row.items for row in plan.step(step)}
        for line, rank in enumerate(ranks):
            positions = plan.positions(step, rank)
            if not len(positions):
                continue
            width = 0.92 / plan.order.batch_size
            cell = matplotlib.patches.Rectangle(
                (column + 0.04, line + 0.08), width * len(positions), 0.84,
                facecolor=_COLORS[step % workers % len(_COLORS)], edgecolor=_INK, linewidth=0.8,
            )  # fmt: skip
            axes.add_patch(cell)
            first = plan.begins.position + step * plan.world_size * plan.order.batch_size
            if again := int((positions < first).sum()):  # the end of the share, which wraps around
                part = (column + 0.04 + width * (len(positions) - again), width * again)
                axes.broken_barh([part], (line + 0.08, 0.84), facecolors="none", edgecolors=_AGAIN, hatch="////")
            text = f"{told(positions)}\n{_name(items[rank])}"
            axes.text(column + 0.09, line + 0.5, text, va="center", fontsize=7, color=_INK)
    gaps = [column for column in range(1, len(steps)) if steps[column] - steps[column - 1] > 1]
    for column in gaps:
        axes.axvline(column, color=_INK, linestyle=":", linewidth=1)
    for line in range(1, len(ranks)):
        if ranks[line] - ranks[line - 1] > 1:
            axes.axhline(line, color=_INK, linestyle=":", linewidth=1)
    axes.set(xlim=(0, max(1, len(steps))), ylim=(max(1, len(ranks)), 0))
    axes.set_xticks([column + 0.5 for column in range(len(steps))], [f"step {step}" for step in steps], fontsize=8)
    axes.set_yticks([line + 0.5 for line in range(len(ranks))], [f"rank {rank}" for rank in ranks], fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    handles = [
        matplotlib.patches.Patch(facecolor=color, edgecolor=_INK, linewidth=0.8, label=f"worker {worker}")
        for worker, color in zip(range(workers), _COLORS, strict=False)
    ]
    axes.legend(handles=handles, fontsize=7, ncols=len(handles), loc="upper left", bbox_to_anchor=(0, 0), frameon=False)


def told(positions: Positions) -> str:
    """``10-14``, or ``24, 0-1`` where the order wraps around."""
    runs: list[list[int]] = []
    for position in positions.tolist():
        if runs and position == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], position]
        else:
            runs.append([position])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _name(items: list[Any]) -> str:
    name = str(items[0])
    short = name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"
    return short if len(items) == 1 else f"{short}, ..."


def _matplotlib() -> Any:
    try:
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.patches")
    except ImportError:
        text = "plot: pictures need matplotlib; install it (pip install 'aisdatapipes[plot]'), or print the plan"
        raise ConfigError(text) from None
    return importlib.import_module("matplotlib")
