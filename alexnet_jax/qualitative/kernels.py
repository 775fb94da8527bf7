"""`--mode=kernels`: draw the first layer's kernels by column (figure 3 of the paper) and measure how far the columns specialized.

In the paper the kernels on one GPU were largely colour-agnostic and those on the other largely colour-specific, in every run
and independent of the numbering of the GPUs (section 6.1). The colour selectivity measures this for one kernel: the share of its
squared weights that remains after the mean of the three channels is subtracted at each pixel. It is 0 for a kernel that responds
to brightness only, 1 for a kernel that responds to differences between channels only, and 2/3 on average for random weights.
"""

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax import files
from alexnet_jax.assembly import build_table, describe_trained
from alexnet_jax.columns import Columns
from alexnet_jax.formatting import text_table
from alexnet_jax.model import abstract
from alexnet_jax.modes import Request
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.qualitative import paper_figures
from alexnet_jax.qualitative.examples import output_folder
from alexnet_jax.qualitative.results import ColumnEntry, ColumnKernels, Comparison, KernelsFile
from alexnet_jax.run.restore import restore_parameters

DEAD = 0.01
"""A kernel is dead if its norm is at most this fraction of the median norm: weight decay has removed it."""

PERMUTATIONS = 9_999
"""Largest number of exchanges in the permutation test."""

NOTE = """\
Colour selectivity: the share of a kernel's squared weights that remains after the mean of the three channels is subtracted at
each pixel; 0 for brightness only, 1 for differences between channels only, 2/3 on average for random kernels. These are the
kernels of one run; only runs with other seeds show how much runs differ."""

GREY_NOTE = (
    "The digits are grey images: the colour in these kernels remains from their initial weights and was not learnt."
)


def show(request: Request) -> None:
    """Print the colour selectivity of each column and the difference of the columns; write kernels.png and kernels.json."""
    experiment = request.experiment
    set_up_devices(experiment)
    table = build_table(experiment)
    expected = abstract(table, Columns.over())
    checkpoint, parameters = restore_parameters(request.restore, request.workdir, expected)
    folder = output_folder(request.look.out, checkpoint, "figures")
    layer = table.layers[0].name
    kernels = np.asarray(parameters[layer]["kernel"], np.float64)
    alive = living(kernels)
    found = [ColumnKernels(selectivity(own[use]), int((~use).sum())) for own, use in zip(kernels, alive, strict=True)]
    comparison = compare(*(column.selectivity for column in found)) if len(found) == 2 else None
    print(f"{describe_trained(request, checkpoint, table)}\n\n{_text(layer, found, comparison)}\n\n{NOTE}")
    if experiment.data.name == "digits":
        print(GREY_NOTE)
    paper_figures.kernels(kernels, alive, found, folder / "kernels.png", f"{experiment.name}: the kernels of {layer}")
    files.write_json(folder / "kernels.json", _file(checkpoint, layer, found, comparison))
    print(f"\n{folder / 'kernels.png'}\n{folder / 'kernels.json'}")


def selectivity(kernels: np.ndarray) -> np.ndarray:
    """Return the colour selectivities [n] of kernels [n, 3, height, width], none of which is zero."""
    coloured = kernels - kernels.mean(1, keepdims=True)
    return np.square(coloured).sum((1, 2, 3)) / np.square(kernels).sum((1, 2, 3))


def living(kernels: np.ndarray) -> np.ndarray:
    """Return bool [columns, n], False for the dead ones among the kernels [columns, n, 3, height, width]."""
    norms = np.sqrt(np.square(kernels).sum((2, 3, 4)))
    return norms > DEAD * np.median(norms)


def compare(first: np.ndarray, second: np.ndarray) -> Comparison | None:
    """Return Welch's interval and a permutation test of two columns' selectivities; None if a column has fewer than two kernels.

    The test is of the absolute difference, because chance decides which column becomes the colour-specific one.
    """
    from scipy import stats

    if min(len(first), len(second)) < 2:
        return None
    limits = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)

    def distance(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        # Rounded, so that the order of summation does not separate equal differences.
        return np.round(np.abs(np.mean(one, axis) - np.mean(other, axis)), 9)

    options: dict[str, Any] = {"n_resamples": PERMUTATIONS, "alternative": "greater", "vectorized": True}
    test = stats.permutation_test((first, second), distance, rng=np.random.default_rng(0), **options)
    difference = float(np.mean(second) - np.mean(first))
    return Comparison(difference, (float(limits.low), float(limits.high)), float(test.pvalue))


def _text(layer: str, found: list[ColumnKernels], comparison: Comparison | None) -> str:
    rows = [(layer, "kernels", "dead", "mean colour selectivity", "kernels above 1/2")]
    for i, column in enumerate(found):
        number, above = len(column.selectivity) + column.dead, int((column.selectivity > 0.5).sum())
        rows.append((f"column {i}", str(number), str(column.dead), f"{column.mean:.3f}", str(above)))
    table = text_table(rows, right=range(1, len(rows[0])))
    if comparison is None:
        return table
    low, high = comparison.interval
    return (
        f"{table}\nColumn 1 minus column 0: {comparison.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} (Welch); "
        f"permutation test of the absolute difference: p = {comparison.p:.4f}"
    )


def _file(checkpoint: Path, layer: str, found: list[ColumnKernels], comparison: Comparison | None) -> KernelsFile:
    columns = [
        ColumnEntry(
            mean=own.mean if len(own.selectivity) else None, dead=own.dead, selectivity=own.selectivity.tolist()
        )
        for own in found
    ]
    return KernelsFile(
        checkpoint=str(checkpoint),
        layer=layer,
        note=NOTE,
        columns=columns,
        difference=comparison and comparison.difference,
        interval=comparison and list(comparison.interval),
        p=comparison and comparison.p,
    )
