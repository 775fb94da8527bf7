"""Draw a network's columns from its table of layers: `python -m docs.draw_columns docs/two_columns.png`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_jax.network.networks import ALEXNET
from alexnet_jax.network.table import LayerShape, Table, shapes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN, CROSSING, BOX, BANDS = "#5b6770", "#c8102e", "#ffffff", ("#e4edf6", "#f6eee0")
"""Colours of arrows within a column, of arrows between columns, of layers, and of the bands behind the columns."""

STEP, HALF = 1.6, 0.55
"""Distance between the centres of two layers, and half the width of a box."""


def draw(table: Table, path: Path) -> None:
    """Write a PNG: one row per column, one box per layer, and an arrow for each input; red arrows cross the columns."""
    from matplotlib.figure import Figure

    layers = list(shapes(table))
    heights = [1.5 * (table.columns - 1 - column) for column in range(table.columns)]
    middle = sum(heights) / len(heights)
    left, right = -HALF - 0.05, STEP * len(layers) + HALF + 0.3
    bottom, top = min(heights) - 0.66, max(heights) + 1.05
    figure = Figure(figsize=(12, 12 * (top - bottom) / (right - left)), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    for column, height in enumerate(heights):
        band = (STEP - 0.8, right - 0.05)
        axes.fill_between(band, height - 0.62, height + 0.62, color=BANDS[column % 2], linewidth=0, zorder=0)
        axes.text(band[0] + 0.08, height + 0.58, f"column {column}", fontsize=9, va="top", color=OWN)
    _box(axes, 0, middle, "image", "x".join(map(str, table.image)))
    for i, layer in enumerate(layers, start=1):
        _layer(axes, table, i, layer, heights, middle)
    axes.text(left + 0.05, top - 0.25, f"{table.name}: communication between the columns", fontsize=12, weight="bold")
    axes.text(right - 2.1 * STEP, top - 0.25, "within a column", color=OWN, fontsize=10, ha="right")
    axes.text(right - 0.05, top - 0.25, "between columns", color=CROSSING, fontsize=10, ha="right")
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
        for source in [middle] if i == 1 else heights:
            if source == height or i == 1 or crossing == "gather":
                crosses = i > 1 and source != height
                _arrow(axes, (x - STEP, source), (x, height), CROSSING if crosses else OWN)
        _box(axes, x, height, layer.spec.name, below)


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    tail, head = (start[0] + HALF, start[1]), (end[0] - HALF, end[1])
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=head, xytext=tail, arrowprops=style)


def _box(axes: "Axes", x: float, y: float, title: str, below: str) -> None:
    style: dict[str, Any] = {"boxstyle": "round,pad=0.02,rounding_size=0.08", "facecolor": BOX, "edgecolor": OWN}
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(FancyBboxPatch((x - HALF, y - 0.38), 2 * HALF, 0.76, zorder=3, **style))
    axes.text(x, y + 0.17, title, ha="center", va="center", fontsize=11, weight="bold", zorder=4)
    axes.text(x, y - 0.15, below, ha="center", va="center", fontsize=8, zorder=4, color=OWN)


if __name__ == "__main__":
    draw(ALEXNET, Path(sys.argv[1] if len(sys.argv) > 1 else "docs/two_columns.png"))
