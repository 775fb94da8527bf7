"""The picture of a network in columns, drawn from its table: python -m docs.draw_columns docs/two_columns.png."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_jax.network.networks import ALEXNET
from alexnet_jax.network.table import LayerShape, Table, shapes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN, CROSSING, BOX, DEVICES = "#5b6770", "#c8102e", "#ffffff", ("#e4edf6", "#f6eee0")
"""Colours of arrows inside a column, of arrows between columns, of layers, and of the columns' devices."""

STEP, HALF = 1.6, 0.55
"""Distance between two layers, and half the width of a box."""


def draw(table: Table, path: Path) -> None:
    """Write a PNG: one row per column, one box per layer, an arrow wherever a layer reads, red where it crosses."""
    from matplotlib.figure import Figure

    layers = list(shapes(table))
    heights = [1.5 * (table.columns - 1 - column) for column in range(table.columns)]
    middle = sum(heights) / len(heights)
    right = STEP * (len(layers) + 1)
    figure = Figure(figsize=(12, 1.4 + 1.5 * table.columns), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-0.9, right + 0.2)
    axes.set_ylim(min(heights) - 0.75, max(heights) + 1.2)
    for column, height in enumerate(heights):
        band = (STEP - 0.8, right - STEP + 0.8)
        axes.fill_between(band, height - 0.62, height + 0.62, color=DEVICES[column % 2], linewidth=0, zorder=0)
        axes.text(band[0] + 0.08, height + 0.5, f"column {column}", fontsize=9, va="top", color=OWN)
    _box(axes, 0, middle, "image", "x".join(map(str, table.image)))
    for i, layer in enumerate(layers, start=1):
        _layer(axes, table, i, layer, heights, middle)
    axes.text(right - 2.2 * STEP, max(heights) + 0.85, "between columns", color=CROSSING, fontsize=10)
    axes.text(right - 4.2 * STEP, max(heights) + 0.85, "within a column", color=OWN, fontsize=10)
    axes.text(-0.6, max(heights) + 0.85, f"{table.name}: where the columns talk", fontsize=12, weight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _layer(axes: "Axes", table: Table, i: int, layer: LayerShape, heights: list[float], middle: float) -> None:
    x, crossing = STEP * i, layer.spec.crossing
    size = layer.outputs[0]
    below = f"{size:,} units" if len(layer.outputs) == 1 else f"{size} maps\n{layer.outputs[1]}x{layer.outputs[2]}"
    if crossing == "sum":
        for height in heights:
            _arrow(axes, (x - STEP, height), (x, middle), CROSSING if table.columns > 1 else OWN)
        _box(axes, x, middle, layer.spec.name, below)
        return
    for height in heights:
        for other in [middle] if i == 1 else heights:
            if other == height or i == 1 or crossing == "gather":
                between = i > 1 and other != height
                _arrow(axes, (x - STEP, other), (x, height), CROSSING if between else OWN)
        _box(axes, x, height, layer.spec.name, below)


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    tail, head = (start[0] + HALF, start[1]), (end[0] - HALF, end[1])
    axes.annotate("", xy=head, xytext=tail, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.6})


def _box(axes: "Axes", x: float, y: float, title: str, below: str) -> None:
    style: dict[str, Any] = {"boxstyle": "round,pad=0.02,rounding_size=0.08", "facecolor": BOX, "edgecolor": OWN}
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(FancyBboxPatch((x - HALF, y - 0.38), 2 * HALF, 0.76, zorder=3, **style))
    axes.text(x, y + 0.17, title, ha="center", va="center", fontsize=11, weight="bold", zorder=4)
    axes.text(x, y - 0.15, below, ha="center", va="center", fontsize=8, zorder=4, color=OWN)


if __name__ == "__main__":
    draw(ALEXNET, Path(sys.argv[1] if len(sys.argv) > 1 else "docs/two_columns.png"))
