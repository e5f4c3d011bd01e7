"""Tables and pictures of the pages on speed, out of benchmarks/results; and the one of docs/order.md.

python -m benchmarks.plots
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from aisdatapipes import Plan
from aisdatapipes.order.plan import Order
from aisdatapipes.order.state import OrderState
from benchmarks.measure import RESULTS, spread

DOCS = Path(__file__).parent.parent / "docs"
PAGES = (DOCS / "performance.md", DOCS / "shards_speed.md")
# A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
OURS, THEIRS, OTHERS = "#1f6fb4", "#c05020", "#999999"

Result = dict[str, Any]


def results() -> dict[str, Result]:
    """What was measured last, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def filled(text: str, found: dict[str, Result]) -> str:
    """The page with every table made anew; one that was not measured is left as it is."""
    return TABLE.sub(lambda m: m[1] + (table(found[m[2]]) if m[2] in found else m[3]) + m[4], text)


def table(result: Result) -> str:
    """Rows of one benchmark, and which targets are met."""
    rows = {name: {head: row[head] for head in row if head != "content"} for name, row in result["rows"].items()}
    every = dict.fromkeys(head for row in rows.values() for head in row)
    heads = [head for head in every if _says_something(head, rows)]
    lines = [f"| |{'|'.join(heads)}|", f"|---|{'--:|' * len(heads)}"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(spread(row[head]) if head in row else '' for head in heads)} |")
    machine, versions = result["machine"], result["versions"]
    lines += ["", *(f"* {target}" for target in result["targets"]), ""]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines.append(
        f"{result['server']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, "
        f"{machine['system']}; {packages}; {result['date']}; median (lowest-highest) of {result['rounds']}."
    )
    return "\n".join(lines) + "\n"


def _says_something(head: str, rows: dict[str, dict[str, Any]]) -> bool:
    return any(value for row in rows.values() for value in row.get(head, []))


def draw(found: dict[str, Result]) -> list[Path]:
    """The pictures of what has been measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    made = []
    if bars := [found[name] for name in ("objects", "medium", "shards", "samples") if name in found]:
        made.append(_bars(bars, DOCS / "rates.png"))
    for name, x in (("latency", "ms of latency added"), ("workers", "workers")):
        if name in found:
            made.append(_lines(found[name], x, DOCS / f"{name}.png"))
    if "blocks" in found:
        made.append(_mixed(found["blocks"], DOCS / "blocks.png"))
    return [*made, _deal(DOCS / "order.png")]


def _deal(path: Path) -> Path:
    """A plan that is small enough to be seen whole, with a remainder."""
    order = Order(shuffle=True, seed=7, batch_size=4)
    begins = OrderState("0" * 16, order.state_seed, 0)
    Plan(order, begins, 21, 2, 2, "objects", lambda items: [f"{item:03d}.jpg" for item in items.tolist()]).plot(path)
    return path


def _bars(some: list[Result], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(some), 1, figsize=(9, 0.42 * sum(len(one["rows"]) + 2 for one in some)), layout="constrained",
        height_ratios=[len(one["rows"]) + 1 for one in some],
    )  # fmt: skip
    for result, ax in zip(some, list(axes) if len(some) > 1 else [axes], strict=True):
        names = list(result["rows"])[::-1]
        values = [result["rows"][name]["samples/s"] for name in names]
        middle = [statistics.median(value) for value in values]
        low = [m - min(value) for m, value in zip(middle, values, strict=True)]
        high = [max(value) - m for m, value in zip(middle, values, strict=True)]
        ax.barh(names, middle, xerr=[low, high], color=[_color(name) for name in names], error_kw={"linewidth": 0.8})
        ax.set_title(result["question"], loc="left", fontsize=10)
        ax.set_xlabel("samples/s")
        ax.tick_params(labelsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _lines(result: Result, x: str, path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    series: dict[str, list[tuple[float, list[float]]]] = {}
    for name, row in result["rows"].items():
        number = re.search(r"\d+", name)
        if number is not None:
            label = re.sub(r"(\d+ ms, |, \d+ workers)", "", name)
            series.setdefault(label, []).append((float(number[0]), row["samples/s"]))
    for label, points in series.items():
        at = [point[0] for point in points]
        middle = [statistics.median(point[1]) for point in points]
        ax.plot(at, middle, marker="o", label=label)
        ax.fill_between(at, [min(point[1]) for point in points], [max(point[1]) for point in points], alpha=0.15)
    ax.set(yscale="log", xlabel=x, ylabel="samples/s")
    ax.set_title(result["question"], loc="left", fontsize=10)
    ax.legend(fontsize=8)
    ax.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _mixed(result: Result, path: Path) -> Path:
    """Randomness to the right, speed upwards, a panel for each size of samples."""
    from matplotlib import pyplot as plt

    panels: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, row in result["rows"].items():
        size, _, how = name.partition(", ")
        panels.setdefault(size, {})[how] = row
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.6), layout="constrained", squeeze=False)
    for (size, rows), ax in zip(panels.items(), axes[0], strict=True):
        for how, row in rows.items():
            x, y = statistics.median(row["von Neumann's ratio"]), statistics.median(row["samples/s"])
            color = OTHERS if "webdataset" in how else OURS
            ax.errorbar(x, y, [[y - min(row["samples/s"])], [max(row["samples/s"]) - y]], marker="o", color=color)
            left = x > 1  # of the point there is more room
            ax.annotate(
                how, (x, y), (-6 if left else 6, 0), textcoords="offset points", fontsize=7, va="center",
                ha="right" if left else "left",
            )  # fmt: skip
        ax.set(xlabel="von Neumann's ratio (2: by chance)", ylabel="samples/s", xlim=(-0.1, 2.3))
        ax.set_ylim(bottom=0)
        ax.set_title(f"samples of {size}", loc="left", fontsize=10)
        ax.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _color(name: str) -> str:
    return OURS if name.startswith("aisdatapipes") else THEIRS if name.startswith("aistore") else OTHERS


def main() -> None:
    found = results()
    for page in PAGES:
        page.write_text(filled(page.read_text(), found))
    for path in draw(found):
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
