"""The learning curves of a run, drawn from its metrics.jsonl."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_jax.formatting import percent
from alexnet_jax.run.drawing import BLUE, GREEN, GREY, RED, canvas, save
from alexnet_jax.run.records import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VALIDATION, TEST, RATE = BLUE, RED, GREEN, GREY


def draw_learning_curves(metrics: Sequence[Line], path: Path, title: str, data_title: str, views: int = 1) -> None:
    """Write a PNG of losses (left), errors in % (right) and the learning rate (below the errors) against the epoch.

    `metrics` are the lines of `metrics.read_metrics`; any kind of line may be missing. Missing parent folders are made.
    views: number of views of each test image; the labels name it unless it is one, as in validations.
    """
    figure = canvas((11, 4.8), "\n".join([title, *textwrap.wrap(data_title, 120)]))
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1))
    losses = figure.add_subplot(grid[:, 0])
    errors = figure.add_subplot(grid[0, 1])
    rate = figure.add_subplot(grid[1, 1], sharex=errors)
    _draw_losses(losses, metrics)
    _draw_errors(errors, metrics, views)
    _draw_rate(rate, metrics)
    for axes in (losses, errors, rate):
        _finish(axes, metrics)
    errors.tick_params(labelbottom=False)
    losses.set_xlabel("epoch")
    rate.set_xlabel("epoch")
    save(figure, path)


def _draw_losses(axes: "Axes", metrics: Sequence[Line]) -> None:
    epochs, values = _series(metrics, "train", "loss")
    _curve(axes, epochs, values, TRAIN, label="training, single steps", alpha=0.3, linewidth=0.8)
    epochs, values = _series(metrics, "train", "mean_loss")
    _curve(axes, epochs, _smooth(values), TRAIN, label="training, mean")
    epochs, values = _series(metrics, "validation", "loss")
    _curve(axes, epochs, values, VALIDATION, label="validation")
    axes.set_title("Loss", loc="left", fontsize=11)
    axes.set_ylabel("cross-entropy per image (nats)")


def _draw_errors(axes: "Axes", metrics: Sequence[Line], views: int) -> None:
    epochs, values = _series(metrics, "validation", "top1_error")
    one, many = (", central view", f", mean of {views} views") if views > 1 else ("", "")
    _curve(axes, epochs, [100 * value for value in values], VALIDATION, label=f"validation{one}")
    epochs, values = _series(metrics, "test", "top1_error")
    if values:
        last = 100 * values[-1]
        axes.axhline(last, color=TEST, linewidth=0.9, linestyle="--")
        label = f"test{many}: {percent(values[-1])}"
        axes.plot(epochs[-1:], [last], color=TEST, linestyle="", marker="D", markersize=6, label=label)
    axes.set_title("Top-1 error", loc="left", fontsize=11)
    axes.set_ylabel("% of images")


def _draw_rate(axes: "Axes", metrics: Sequence[Line]) -> None:
    epochs, values = _series(metrics, "train", "learning_rate")
    _curve(axes, epochs, values, RATE, linewidth=1.2)
    # A linear axis hides rates that fall by factors of ten; a logarithmic axis cannot show a rate of zero.
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set_ylabel("rate")


def _curve(axes: "Axes", epochs: list[float], values: list[float], color: str, **style: Any) -> None:
    """Draw a line. Few points get dots, without which a single point would be invisible."""
    if epochs:
        marker = "o" if len(epochs) <= 30 else ""
        looks: dict[str, Any] = {"linewidth": 1.6} | style
        axes.plot(epochs, values, color=color, marker=marker, markersize=4, **looks)


def _finish(axes: "Axes", metrics: Sequence[Line]) -> None:
    last = max((line["epoch"] for line in metrics), default=0)
    axes.set_xlim(0, 1.03 * last if last else 1)
    axes.spines[["top", "right"]].set_visible(False)
    if not axes.get_lines():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", va="center", color=RATE)
        return
    axes.grid(alpha=0.25, linewidth=0.6)
    if axes.get_yscale() == "linear":
        # An axis that does not start at zero would show noise in the last digit as large.
        axes.set_ylim(0, 1.08 * max(float(np.max(line.get_ydata())) for line in axes.get_lines()) or 1)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _series(metrics: Sequence[Line], kind: str, key: str) -> tuple[list[float], list[float]]:
    """Return the epochs and values of one kind of line, except where the value is missing, null or not finite."""
    found = [(line["epoch"], line.get(key)) for line in metrics if line["kind"] == kind]
    points = [(epoch, value) for epoch, value in found if value is not None and math.isfinite(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _smooth(values: list[float]) -> list[float]:
    """Return the centred moving mean over a fiftieth of the values. The window shrinks at both ends."""
    half = len(values) // 100
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
