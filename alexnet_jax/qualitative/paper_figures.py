"""Figures 3 and 4 of the paper, drawn of our networks: PNG files, without pyplot."""

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
"""Colours of the right class (red, as in the paper), of other classes, of what is written, and of what matters less."""


def kernels(weights: np.ndarray, alive: np.ndarray, columns: Sequence[ColumnKernels], path: Path, title: str) -> None:
    """Write a PNG: a block of kernels for each column, and beside it the kernels' colour selectivities in rising order.

    weights [columns, kernels, 3, height, width]. Each kernel is scaled by itself, 1/2 + w / (2 max |w|) for red, green and
    blue, so that grey is zero and colours stay what they are; a dead one (where `alive` [columns, kernels] is False) is grey.
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
    """Kernels [n, 3, height, width] side by side, float [rows, columns, 3] from 0 to 1: zero is grey, between them is white."""
    number, _, height, width = weights.shape
    rows = math.ceil(number / 16)  # sixteen to a row, as the paper has them
    across = math.ceil(number / rows)
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    tiles = 0.5 + weights / np.where(largest > 0, 2 * largest, 1)
    whole = np.ones((rows * (height + 1) - 1, across * (width + 1) - 1, 3))
    for i, tile in enumerate(tiles):
        top, left = i // across * (height + 1), i % across * (width + 1)
        whole[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    return whole


def _selectivities(axes: "Axes", column: ColumnKernels) -> None:
    values = np.sort(column.selectivity)
    axes.plot(values, np.arange(len(values)), "o", color=INK, markersize=3.5)
    axes.axvline(column.mean, color=RIGHT, linewidth=1.5)
    axes.set_title(f"mean {column.mean:.2f}", loc="left", fontsize=10)
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def predictions(found: Sequence[Prediction], names: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: each image over its likeliest classes as bars of probability, four to a row; the right class in red."""
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
        places = np.arange(len(each.classes))
        below.barh(places, each.probabilities, color=colours, height=0.85)
        for place, index, share in zip(places, each.classes, each.probabilities, strict=True):
            below.text(0.02, place, _short(names[int(index)]), va="center", fontsize=8, color=INK)
            below.text(1, place, percent(share, 1), va="center", ha="right", fontsize=7, color=QUIET)
        below.set_xlim(0, 1)
        below.set_ylim(len(places) - 0.4, -0.6)
    save(figure, path)


def neighbours(found: Sequence[Neighbours], names: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: a row for each image, which stands first, with its nearest training images; distances are below them."""
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


def _heading(asked: Prediction | Neighbours, names: Sequence[str]) -> str:
    """The class of a test image, or the end of a picture's name."""
    return Path(asked.name).name[-26:] if asked.label == UNKNOWN else _short(names[asked.label])


def _short(name: str) -> str:
    """The first words of a class: ImageNet's are lists of synonyms."""
    return textwrap.shorten(name.split(",")[0], 26, placeholder="...")
