"""The picture of docs/traffic.md: bytes that each layer sends in three placements, and scaling to many devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_jax.run.drawing import canvas, save
from alexnet_jax.traffic.moves import Move, sent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"two columns": "#cc3311", "data parallel": "#4477aa", "hybrid": "#228833"}

SMALLEST, LARGEST = 0.05, 400
"""Limits of the axes, in MB."""


def draw(
    path: Path,
    by_layer: dict[str, list[Move]],
    devices: Sequence[int],
    efficiency: Mapping[str, Sequence[float]],
    reported: dict[int, float],
) -> None:
    """Write a PNG: left, the MB sent forward and backward with a bar per placement and layer; right, efficiencies.

    by_layer: {placement: moves of a step}. efficiency: {placement: a value for each number in `devices`}. reported:
    {devices: efficiency}.
    """
    figure = canvas((12, 5.6), "AlexNet: bytes that one device sends per step, and scaling")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.5, 1))
    forward = figure.add_subplot(grid[0, 0])
    backward = figure.add_subplot(grid[1, 0], sharex=forward)
    _bars(forward, by_layer, "forward")
    _bars(backward, by_layer, "backward")
    forward.set_title("Two devices, 128 images per step", loc="left", fontsize=11)
    forward.legend(frameon=False, fontsize=9, loc="upper left", ncols=3)
    forward.tick_params(labelbottom=False)
    forward.text(
        0.01, 0.06, "data parallel: nothing", transform=forward.transAxes, fontsize=8, color=COLOURS["data parallel"]
    )
    _scaling(figure.add_subplot(grid[:, 1]), devices, efficiency, reported)
    save(figure, path)


def _bars(axes: "Axes", by_layer: dict[str, list[Move]], direction: str) -> None:
    layers = list(dict.fromkeys(move.layer for moves in by_layer.values() for move in moves if move.layer != "loss"))
    width = 0.8 / len(by_layer)
    for i, (name, moves) in enumerate(by_layer.items()):
        positions = [x + (i - (len(by_layer) - 1) / 2) * width for x in range(len(layers))]
        heights = [sent(m for m in moves if (m.layer, m.direction) == (layer, direction)) / 1e6 for layer in layers]
        axes.bar(positions, heights, 0.92 * width, color=COLOURS[name], label=f"{name}: {sent(moves) / 1e6:.0f} MB")
        for position, height in zip(positions, heights, strict=True):
            if height:
                text = f"{height:.0f}" if height >= 10 else f"{height:.1f}"
                axes.text(position, height * 1.1, text, ha="center", va="bottom", fontsize=7)
    axes.set_yscale("log")
    axes.set_ylim(SMALLEST, LARGEST)
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.set_xticks(range(len(layers)), layers)
    axes.set_ylabel(f"MB, {direction}")
    _plain(axes)


def _scaling(
    axes: "Axes", devices: Sequence[int], efficiency: Mapping[str, Sequence[float]], reported: dict[int, float]
) -> None:
    for name, values in efficiency.items():
        axes.plot(
            devices, [100 * v for v in values], color=COLOURS[name], marker="o", markersize=4, label=f"{name}, predicted"
        )
    points = [100 * v for v in reported.values()]
    axes.plot(list(reported), points, "kD", markersize=6, label="hybrid, reported in 2014")
    axes.set_xscale("log", base=2)
    axes.set_xticks(devices, [str(n) for n in devices])
    axes.set_ylim(0, 105)
    axes.set_xlabel("GPUs, 128 images on each")
    axes.set_ylabel("efficiency: speed-up / GPUs, %")
    axes.set_title('The network of "One weird trick" on K20s', loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    _plain(axes)


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
