"""An estimate of the time of trials, from finished trials or else from the speed of a matrix product."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from alexnet_jax.data.order import held_out
from alexnet_jax.data.registry import ImageCounts, class_count, image_counts
from alexnet_jax.experiment import Data, Experiment
from alexnet_jax.formatting import estimated_duration
from alexnet_jax.network import networks
from alexnet_jax.network.table import training_operations
from alexnet_jax.sweeps import trials
from alexnet_jax.sweeps.plan import Trial

SHARE = (0.2, 1.0)
"""Fraction of a matrix product's speed that a training reaches on a CPU, for narrow and for wide networks (measured: 0.3 with
--network.width=0.125, 0.85 with 0.5)."""

START = 20.0
"""Seconds of a trial outside its steps: data, compilation, evaluations."""


def estimate(todo: Sequence[Trial], done: Sequence[Trial]) -> str:
    """Return a sentence: the time of the trials `todo`, one after another, and what the estimate is based on."""
    counts = functools.cache(image_counts)  # a folder of pictures is listed once
    work = [_operations(trial.experiment, counts) for trial in todo]
    if not work:
        return "Nothing is left to train."
    speeds = [_operations(trial.experiment, counts) / seconds for trial, seconds in _timed(done)]
    if speeds:
        middle = statistics.median(speeds)
        total = sum(work) / middle
        return f"About {estimated_duration(total)} for the rest, at the speed of the {_trials(len(speeds))} done."
    speed = matrix_speed()
    fast, slow = (len(todo) * START + sum(work) / (speed * share) for share in reversed(SHARE))
    return (
        f"Between {estimated_duration(fast)} and {estimated_duration(slow)} on this machine's cores, computed from the "
        f"{speed / 1e9:.0f} GFLOP/s of a matrix product; an accelerator is faster. The first trials give a better estimate."
    )


def _timed(done: Sequence[Trial]) -> list[tuple[Trial, float]]:
    cells = [(trial, trials.cell(trial, None)) for trial in done]
    return [(trial, cell.seconds) for trial, cell in cells if cell.seconds]


def _operations(experiment: Experiment, image_counts: Callable[[Data], ImageCounts]) -> float:
    """Return the operations of a whole training."""
    table = networks.build(experiment.network, class_count(experiment.data), experiment.data.crop)
    counts = image_counts(experiment.data)
    images = counts.train - (counts.validation or held_out(counts.train, experiment.data.validation))
    return float(training_operations(table)) * images * experiment.train.epochs


def _trials(number: int) -> str:
    return "one trial that is" if number == 1 else f"{number} trials that are"


def matrix_speed(size: int = 1024, seconds: float = 0.5) -> float:
    """Return the operations per second of the fastest of several float32 matrix products in NumPy on all cores."""
    matrix = np.ones((size, size), np.float32)
    product = np.empty_like(matrix)
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(matrix, matrix, out=product)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
