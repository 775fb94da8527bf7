"""What a network was trained to see travels with its weights: the mean and scale that a run keeps in its statistics.npz."""

from pathlib import Path

import numpy as np

from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.network.foreign import INPUTS
from alexnet_jax.weights import caffe
from alexnet_jax.weights.formats import Tensors

MEAN, SCALE, COLOUR = "input.mean", "input.scale", "input.colour"
"""Their names in a file of weights: float32 [height, width, 3] or [1, 1, 3]; [] or [1, 1, 3]; [3, 3] if there is noise."""


def separate_statistics(tensors: Tensors, source: str) -> tuple[Tensors, Statistics | None]:
    """(weights, statistics) of a file; None in files of other programs. Raises UsageError when they have no such shapes."""
    weights = {name: tensor for name, tensor in tensors.items() if name not in (MEAN, SCALE, COLOUR)}
    if len(weights) == len(tensors):
        return weights, None
    mean, scale = (tensors.get(name, np.zeros(0)) for name in (MEAN, SCALE))
    if mean.ndim != 3 or mean.shape[-1] != 3 or scale.shape not in ((), (1, 1, 3)):
        raise UsageError(
            f"{source}: {MEAN} is {list(mean.shape)} and {SCALE} {list(scale.shape)}; expected [height, width, 3] and a number "
            "or [1, 1, 3] (docs/weights.md)."
        )
    return weights, Statistics(mean, scale if scale.ndim else float(scale), tensors.get(COLOUR))


def with_statistics(weights: Tensors, stats: Statistics | None) -> Tensors:
    """Return the tensors of a file: the inverse of `separate_statistics`."""
    if stats is None:
        return weights
    colour = {} if stats.colour is None else {COLOUR: stats.colour}
    return weights | {MEAN: stats.mean, SCALE: np.asarray(stats.scale, np.float32)} | colour


def statistics_of(network: str) -> Statistics | None:
    """The statistics of another program's network, None for ours: those are measured on the training split."""
    if network not in INPUTS:
        return None
    mean, scale = (np.array(x, np.float32)[None, None] for x in (INPUTS[network].mean, INPUTS[network].scale))
    return Statistics(mean, scale)


def mean_image(path: Path) -> np.ndarray:
    """Caffe's mean image, float32 [height, width, 3] in RGB. Raises UsageError when the file cannot be read."""
    try:
        return caffe.read_mean(path)
    except Exception as problem:  # protobuf's errors have no common type with ours
        raise UsageError(
            f"--mean_image={path} cannot be read: {problem}. Expected a .binaryproto that Caffe wrote, such as "
            "imagenet_mean.binaryproto."
        ) from problem
