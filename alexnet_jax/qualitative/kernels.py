"""`--mode=kernels`: the first layer's kernels, one block per column as in figure 3 of the paper, and how far they specialized.

On the paper's two GPUs the kernels of one became largely colour-agnostic, those of the other largely colour-specific, in
every run and whichever way the GPUs were numbered. Colour selectivity puts a number on it, kernel by kernel: the share of
a kernel's energy (the sum of its squared weights) that is left when at each pixel the mean of the three channels is taken
away. It is 0 for a kernel that sees brightness alone, 1 for one that sees only differences between channels, and 2/3 on
average for random weights, such as an untrained network's.
"""

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax import columns
from alexnet_jax.experiment import CLASSES
from alexnet_jax.model import abstract
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.qualitative import paper_figures
from alexnet_jax.qualitative.examples import output_folder
from alexnet_jax.qualitative.results import ColumnEntry, ColumnKernels, Comparison, KernelsFile
from alexnet_jax.run.restore import restore_parameters
from alexnet_jax.run.workdir import Workdir

DEAD = 0.01
"""Of the median norm of all kernels: one below it was given up in training, and what it looks like means nothing."""

PERMUTATIONS = 9_999

NOTE = """\
Colour selectivity: the share of a kernel's squared weights that is left when at each pixel the mean of the three channels is
taken away: 0 sees brightness alone, 1 only differences between channels; random kernels have 2/3 on average. These are the
kernels of one run; how much runs differ, only runs with other seeds can tell."""

GREY_NOTE = (
    "Digits are grey: what lies off the grey axis in these kernels is left from their initial weights, not learnt."
)


def show(request: Request) -> None:
    """Print the selectivity of each column and their difference; write kernels.png and kernels.json."""
    experiment = request.experiment
    set_up_devices(experiment)
    table = networks.build(experiment.network, CLASSES[experiment.data.name])
    expected = abstract(table, columns.make_mesh())
    checkpoint, parameters = restore_parameters(request.restore, request.workdir, expected)
    folder = output_folder(request.look.out, checkpoint, "figures")
    layer = table.layers[0].name
    kernels = np.asarray(parameters[layer]["kernel"], np.float64)
    alive = living(kernels)
    found = [ColumnKernels(selectivity(own[use]), int((~use).sum())) for own, use in zip(kernels, alive, strict=True)]
    comparison = compare(*(column.selectivity for column in found)) if len(found) == 2 else None
    print(f"Checkpoint: {checkpoint}\n\n{_text(layer, found, comparison)}\n\n{NOTE}")
    if experiment.data.name == "digits":
        print(GREY_NOTE)
    paper_figures.kernels(kernels, alive, found, folder / "kernels.png", f"{experiment.name}: the kernels of {layer}")
    Workdir(folder).write("kernels.json", dict(_file(checkpoint, layer, found, comparison)))
    print(f"\n{folder / 'kernels.png'}\n{folder / 'kernels.json'}")


def selectivity(kernels: np.ndarray) -> np.ndarray:
    """Colour selectivity [n] of kernels [n, 3, height, width], none of them zero."""
    coloured = kernels - kernels.mean(1, keepdims=True)
    return np.square(coloured).sum((1, 2, 3)) / np.square(kernels).sum((1, 2, 3))


def living(kernels: np.ndarray) -> np.ndarray:
    """Which kernels [columns, n, 3, height, width] have a norm worth looking at: bool [columns, n]."""
    norms = np.sqrt(np.square(kernels).sum((2, 3, 4)))
    return norms > DEAD * np.median(norms)


def compare(first: np.ndarray, second: np.ndarray) -> Comparison | None:
    """Welch's interval and a permutation test of two columns' selectivities; None where one has fewer than two kernels.

    Which column becomes the colourful one is left to chance, so the test is of the absolute difference.
    """
    from scipy import stats

    if min(len(first), len(second)) < 2:
        return None
    limits = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)

    def apart(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        # Rounded, since the order of summing must not tell equal differences apart.
        return np.round(np.abs(np.mean(one, axis) - np.mean(other, axis)), 9)

    options: dict[str, Any] = {"n_resamples": PERMUTATIONS, "alternative": "greater", "vectorized": True}
    test = stats.permutation_test((first, second), apart, rng=np.random.default_rng(0), **options)
    difference = float(np.mean(second) - np.mean(first))
    return Comparison(difference, (float(limits.low), float(limits.high)), float(test.pvalue))


def _text(layer: str, found: list[ColumnKernels], comparison: Comparison | None) -> str:
    rows = [f"{layer}     kernels   dead   mean colour selectivity   kernels above 1/2"]
    for i, column in enumerate(found):
        number, above = len(column.selectivity) + column.dead, int((column.selectivity > 0.5).sum())
        rows.append(f"column {i}   {number:5d}  {column.dead:5d}   {column.mean:23.3f}   {above:17d}")
    if comparison is not None:
        low, high = comparison.interval
        rows.append(
            f"Column 1 minus column 0: {comparison.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} (Welch); "
            f"permutation test of the absolute difference: p = {comparison.p:.4f}"
        )
    return "\n".join(rows)


def _file(checkpoint: Path, layer: str, found: list[ColumnKernels], comparison: Comparison | None) -> KernelsFile:
    columns = [
        ColumnEntry(mean=own.mean if len(own.selectivity) else None, dead=own.dead, selectivity=own.selectivity.tolist())
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
