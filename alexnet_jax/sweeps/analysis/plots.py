"""Pictures of a sweep, drawn without pyplot: the error of every seed, the differences, the validation curves.

`cells` are all trials by arm, in the order in which the arms are drawn. Errors are in %, differences in points.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_jax.run.drawing import canvas, save
from alexnet_jax.sweeps.analysis.comparison import Cell, Comparison, measured, paired, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE, ARM, PUBLISHED, BAND, QUIET = "#222222", "#4477aa", "#cc3311", "#dddddd", "#777777"
"""Colours of the base, of a single arm, of published effects, of the margin and of explanations."""

VERDICTS = {"worse": "#cc3311", "better": "#228833", "equivalent": "#4477aa", "undecided": "#777777"}
"""Colours and, in `forest`, words of the verdicts."""

COLOURS = ("#4477aa", "#cc3311", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#ee7733")
"""Colours of the arms in one picture of curves, after Paul Tol's bright scheme; the base is BASE."""

STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1, 1.5)))
"""Line styles, alternating between arms, for readers who cannot distinguish the colours."""

Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Epochs, and the mean, the smallest and the largest validation error over the seeds in %, each [epochs]."""


def dots(cells: Mapping[str, Sequence[Cell]], base: str, control: str | None, path: Path, title: str) -> None:
    """Write a PNG with a row per arm: the test error of every seed, joined by thin lines to the base with equal seeds.

    The seeds of the base are repeated in every row as open dots. Bars are means. Labels give the number of finished trials.
    Missing parent folders are made.
    """
    names = [base, *(name for name in cells if name != base)]
    figure, axes = _rows(title, [f"{name} ({len(points(cells[name]))} of {len(cells[name])})" for name in names])
    for row, name in enumerate(names):
        _dots_of_arm(axes, row, cells[base], cells[name], name == base, name == control)
    values = np.concatenate([points(found) for found in cells.values()])
    if len(values) and 0 < 3 * np.min(values) < np.max(values):
        axes.set_xscale("log")  # an arm that learnt nothing would squeeze all others into one dot
        for axis_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            axis_formatter("{x:g}")
    axes.set_xlabel("top-1 error on the test images, % (filled: the arm's seeds; open: the base's; bar: mean)")
    _save(figure, axes, path, len(values) > 0)


def forest(
    comparisons: Sequence[Comparison], margin: float, effects: Mapping[str, float | None], path: Path, title: str
) -> None:
    """Write a PNG with a row per comparison: the mean paired difference, its interval and the published difference.

    The bar is the 95 % interval; for an equivalent arm the 90 % interval, which decides that verdict, with the rest of the
    95 % interval thin. `margin` (points) is drawn as a band, `effects` (points by arm; None where unknown) as open diamonds.
    """
    figure, axes = _rows(title, [f"{found.arm} (n = {len(found.seeds)})" for found in comparisons])
    axes.axvspan(-margin, margin, color=BAND, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0, color=BASE, linewidth=1)
    position: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    ends = [effect for found in comparisons if (effect := effects.get(found.arm)) is not None]
    for row, found in enumerate(comparisons):
        effect, color = effects.get(found.arm), VERDICTS[found.verdict]
        words = "no pair yet" if found.difference is None else found.verdict
        axes.annotate(words, (1, row), (6, 0), color=color, fontsize=9, annotation_clip=False, **position)
        if effect is not None:
            axes.plot(effect, row, "D", color=PUBLISHED, markerfacecolor="none", markersize=8, zorder=4)
        if found.difference is not None:
            low, high = found.interval or (found.difference, found.difference)
            inner = found.equivalence_interval if found.verdict == "equivalent" else None
            axes.plot([low, high], [row, row], color=color, linewidth=0.8 if inner else 2, solid_capstyle="butt")
            if inner:
                axes.plot(inner, [row, row], color=color, linewidth=3, solid_capstyle="butt")
            axes.plot(found.difference, row, "o", color=color, markersize=6)
            ends += [low, high]
    if 0 < 30 * margin < max(map(abs, ends), default=0):
        # One arm that learnt nothing, or an interval from two seeds, would squeeze all others into the zero line.
        axes.set_xscale("symlog", linthresh=5 * margin)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(f"beyond ±{5 * margin:g} points the axis is logarithmic", loc="left", fontsize=9, color=QUIET)
    axes.set_xlabel(
        "points of top-1 error, arm minus base: left better, right worse\n"
        f"(bar: 95 % t interval over seeds, thick if equivalent: 90 %; band: ±{margin:g} points; diamond: published)"
    )
    _save(figure, axes, path, bool(comparisons))


def curves(cells: Mapping[str, Sequence[Cell]], base: str, path: Path, title: str) -> None:
    """Write a PNG of validation error against epoch: the mean over the finished trials of each arm, and the range as a band.

    The base and up to seven arms share one picture, whose right half shows the later epochs. More arms get a small picture
    each, with the base in black.
    """
    found = {name: curve for name in cells if (curve := _curve(cells[name])) is not None}
    arms = [name for name in found if name != base]
    draw = _curves_together if len(arms) <= len(COLOURS) else _curves_apart
    draw({name: found[name] for name in ([base] if base in found else []) + arms}, base, path, title)


def _curves_together(found: dict[str, Curve], base: str, path: Path, title: str) -> None:
    from matplotlib.ticker import MaxNLocator  # imported only to draw, like all of matplotlib

    figure = canvas((11, 5.2), title)
    whole, late = figure.subplots(1, 2)
    arms = [name for name in found if name != base]
    for axes in (whole, late):
        for name in found:
            index = arms.index(name) if name in arms else 0
            color, style = (COLOURS[index], STYLES[index % len(STYLES)]) if name in arms else (BASE, "-")
            _draw_curve(axes, found[name], color, style, name)
        axes.set_xlabel("epoch (line: mean over seeds; band: range over seeds)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    whole.set_ylabel("top-1 error on the validation images, %")
    late.set_title("from a third of the training on", loc="left", fontsize=10)
    if found:
        _zoom(late, list(found.values()))
        handles, names = whole.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, whole, path, bool(found))


def _curves_apart(found: dict[str, Curve], base: str, path: Path, title: str) -> None:
    arms = [name for name in found if name != base]
    rows = math.ceil(len(arms) / 4)
    figure = canvas((11, 0.8 + 2.1 * rows), title)
    grid = figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, arms, strict=False):
        if base in found:
            _draw_curve(axes, found[base], BASE, "-", base)
        _draw_curve(axes, found[name], ARM, "-", name)
        axes.set_title(name, fontsize=9, color=ARM)
        _tidy(axes)
    for axes in grid.flat[len(arms) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(arms) - 4) : len(arms)]:
        axes.tick_params(labelbottom=True)
    _zoom(grid[0, 0], list(found.values()))
    for axes, name in zip(grid.flat, arms, strict=False):
        if (last := found[name][1][-1]) > axes.get_ylim()[1]:
            axes.text(0.5, 0.85, f"above: {last:.0f} % at the end", transform=axes.transAxes, ha="center", color=ARM)
    figure.supxlabel(f"epoch, from a third of the training on (black: {base})", fontsize=10)
    figure.supylabel("top-1 error on the validation images, %", fontsize=10)
    _save(figure, grid[0, 0], path, True)


def _draw_curve(axes: "Axes", curve: Curve, color: str, style: Any, name: str) -> None:
    epochs, mean, low, high = curve
    axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, mean, color=color, linestyle=style, linewidth=1.6, marker=marker, label=name)


def _zoom(axes: "Axes", found: list[Curve]) -> None:
    """Restrict axes to the last two thirds of the epochs, where differences between arms are visible.

    An arm whose last error is more than three times the best arm's, which learnt nothing, may lie outside.
    """
    first = max(epochs[-1] for epochs, *_ in found) / 3
    best = min(mean[-1] for _, mean, *_ in found)
    kept = [(curve, late) for curve in found if np.any(late := curve[0] >= first) and curve[1][-1] <= 3 * best]
    low = min(np.min(curve[2][late]) for curve, late in kept)
    high = max(np.max(curve[3][late]) for curve, late in kept)
    room = 0.05 * (high - low) or 1
    axes.set_xlim(left=first)
    axes.set_ylim(max(0, low - room), high + room)


def _curve(cells: Sequence[Cell]) -> Curve | None:
    """Return the curve of an arm; None if no trial was finished or validated."""
    errors: dict[float, list[float]] = {}
    for cell in cells:
        for line in cell.metrics if measured(cell) else ():
            if line["kind"] == "validation" and line.get("top1_error") is not None:
                errors.setdefault(round(line["epoch"], 3), []).append(100 * line["top1_error"])
    if not errors:
        return None
    epochs = sorted(errors)
    mean, low, high = (np.array([f(errors[epoch]) for epoch in epochs]) for f in (np.mean, np.min, np.max))
    return np.array(epochs), mean, low, high


def _dots_of_arm(
    axes: "Axes", row: int, base: Sequence[Cell], arm: Sequence[Cell], is_base: bool, control: bool
) -> None:
    color, below = (BASE, row) if is_base else (ARM, row + 0.2)
    if not is_base:
        for pair in () if control else paired(base, arm):  # the control's seeds are not paired
            axes.plot(points(pair), [row - 0.2, below], color=QUIET, linewidth=0.6, zorder=1)
        upper = points(base)
        open_dots: dict[str, Any] = {
            "color": QUIET,
            "markerfacecolor": "white",
            "markersize": 4,
            "markeredgewidth": 0.8,
        }
        axes.plot(upper, np.full(len(upper), row - 0.2), "o", zorder=2, **open_dots)
    values = points(arm)
    axes.plot(
        values, np.full(len(values), below), "o", color=color, alpha=0.7, markersize=5, markeredgewidth=0, zorder=3
    )
    if len(values):
        axes.plot([np.mean(values)] * 2, [below - 0.17, below + 0.17], color=color, linewidth=2, zorder=4)


def _rows(title: str, names: list[str]) -> tuple[Any, "Axes"]:
    """Return a figure and its axes with a row for each name, the first on top; every second row is shaded."""
    figure = canvas((9, 1.7 + 0.42 * max(len(names), 2)), title)
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    for row in range(1, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f5f5f5", linewidth=0, zorder=-1)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _save(figure: Any, axes: "Axes", path: Path, any_data: bool) -> None:
    for each in figure.axes:
        _tidy(each)
    if not any_data:
        axes.text(0.5, 0.5, "nothing finished yet", transform=axes.transAxes, ha="center", va="center", color=QUIET)
    save(figure, path)
