"""Figures 3 and 4 of the paper, drawn for a trained network."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_jax.formatting import percent
from alexnet_jax.qualitative.examples import UNKNOWN
from alexnet_jax.qualitative.results import ColumnKernels, Neighbours, Prediction
from alexnet_jax.run.drawing import canvas, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, OTHER, INK, QUIET = "#ee8877", "#aaccee", "#222222", "#777777"
"""Colours of the correct class (red, as in the paper), of other classes, of text, and of secondary text."""


def kernels(weights: np.ndarray, alive: np.ndarray, columns: Sequence[ColumnKernels], path: Path, title: str) -> None:
    """Write a PNG with a block of kernels per column and, to its right, the sorted colour selectivities of the kernels.

    weights: [columns, kernels, 3, height, width]. alive: bool [columns, kernels]. Each kernel is scaled separately, as
    1/2 + w / (2 max |w|) in each channel, so that zero is grey and hues are kept. Dead kernels are grey.
    """
    blocks = [mosaic(np.where(use[:, None, None, None], own, 0)) for own, use in zip(weights, alive, strict=True)]
    height, width, _ = blocks[0].shape
    rows = len(blocks)
    figure = canvas((12, 0.8 + rows * (0.3 + max(1, 9.2 * height / width))), title)
    grid = figure.subplots(rows, 2, width_ratios=(4, 1), squeeze=False)
    for i, (block, column) in enumerate(zip(blocks, columns, strict=True)):
        _picture(grid[i, 0], block)
        grid[i, 0].set_title(f"column {i}", loc="left", fontsize=10)
        _selectivities(grid[i, 1], column)
    grid[-1, 1].set_xlabel("colour selectivity")
    save(figure, path)


def mosaic(weights: np.ndarray) -> np.ndarray:
    """Return kernels [n, 3, height, width] as one image, float [height, width, 3] from 0 to 1, with white lines between them."""
    number, _, height, width = weights.shape
    rows = math.ceil(number / 16)  # sixteen per row, as in the paper
    across = math.ceil(number / rows)
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    tiles = 0.5 + weights / np.where(largest > 0, 2 * largest, 1)
    picture = np.ones((rows * (height + 1) - 1, across * (width + 1) - 1, 3))
    for i, tile in enumerate(tiles):
        top, left = i // across * (height + 1), i % across * (width + 1)
        picture[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    return picture


def _selectivities(axes: "Axes", column: ColumnKernels) -> None:
    values = np.sort(column.selectivity)
    axes.plot(values, np.arange(len(values)), "o", color=INK, markersize=3.5)
    axes.axvline(column.mean, color=RIGHT, linewidth=1.5)
    axes.set_title(f"mean {column.mean:.2f}", loc="left", fontsize=10)
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def predictions(found: Sequence[Prediction], names: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: four images per row, below each its most probable classes as bars, the correct class in red."""
    across = min(4, len(found))
    rows = math.ceil(len(found) / across)
    figure = canvas((2.6 * across + 0.4, 0.6 + 3.9 * rows), title)
    grid = figure.subplots(2 * rows, across, height_ratios=(2.2, 1.3) * rows, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, each in enumerate(found):
        above, below = grid[2 * (i // across), i % across], grid[2 * (i // across) + 1, i % across]
        _picture(above, each.image)
        above.set_title(_heading(each, names), fontsize=9)
        colours = [RIGHT if index == each.label else OTHER for index in each.classes]
        rows_of_bars = np.arange(len(each.classes))
        below.barh(rows_of_bars, each.probabilities, color=colours, height=0.85)
        for row, index, share in zip(rows_of_bars, each.classes, each.probabilities, strict=True):
            below.text(0.02, row, _short(names[int(index)]), va="center", fontsize=8, color=INK)
            below.text(1, row, percent(share, 1), va="center", ha="right", fontsize=7, color=QUIET)
        below.set_xlim(0, 1)
        below.set_ylim(len(rows_of_bars) - 0.4, -0.6)
    save(figure, path)


def neighbours(found: Sequence[Neighbours], names: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: a row per image with its nearest training images and, below them, their distances."""
    across = 1 + len(found[0].images)
    figure = canvas((1.5 * across + 0.4, 0.7 + 1.85 * len(found)), title)
    widths: Any = (1.15, *(1 for _ in found[0].images))
    grid = figure.subplots(len(found), across, width_ratios=widths, squeeze=False)
    for row, each in zip(grid, found, strict=True):
        _picture(row[0], each.image)
        row[0].set_title(_heading(each, names), fontsize=9, fontweight="bold", color=INK)
        for axes, image, label, distance in zip(row[1:], each.images, each.labels, each.distances, strict=True):
            _picture(axes, image)
            axes.set_title(_short(names[label]), fontsize=8, color=INK if label in (each.label, UNKNOWN) else QUIET)
            axes.set_xlabel(f"{distance:.3g}", fontsize=7)
    save(figure, path)


def _picture(axes: "Axes", image: np.ndarray) -> None:
    axes.set_axis_on()
    axes.imshow(image, interpolation="nearest")
    axes.set_anchor("W")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _heading(found: Prediction | Neighbours, names: Sequence[str]) -> str:
    """Return the class of a test image, or the end of a picture's file name."""
    return Path(found.name).name[-26:] if found.label == UNKNOWN else _short(names[found.label])


def _short(name: str) -> str:
    """Return the first synonym of a class name, shortened."""
    return textwrap.shorten(name.split(",")[0], 26, placeholder="...")
