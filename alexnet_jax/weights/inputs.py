"""The mean, scale and colour components that a network was trained with, stored with its weights in a file."""

from pathlib import Path

import numpy as np

from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.network.foreign import INPUTS
from alexnet_jax.weights import caffe
from alexnet_jax.weights.formats import Tensors

MEAN, SCALE, COLOUR = "input.mean", "input.scale", "input.colour"
"""Names of the tensors: mean [height, width, 3] or [1, 1, 3]; scale [] or [1, 1, 3]; colour [3, 3], optional. All float32."""


def separate_statistics(tensors: Tensors, source: str) -> tuple[Tensors, Statistics | None]:
    """Return (weights, statistics) of a file, None for files without them. Raises UsageError if their shapes are wrong."""
    weights = {name: tensor for name, tensor in tensors.items() if name not in (MEAN, SCALE, COLOUR)}
    if len(weights) == len(tensors):
        return weights, None
    mean, scale = (tensors.get(name, np.zeros(0)) for name in (MEAN, SCALE))
    if mean.ndim != 3 or mean.shape[-1] != 3 or scale.shape not in ((), (1, 1, 3)):
        raise UsageError(
            f"{source}: {MEAN} has the shape {list(mean.shape)} and {SCALE} {list(scale.shape)}; expected [height, width, 3] "
            "and [] or [1, 1, 3] (docs/weights.md)."
        )
    return weights, Statistics(mean, scale if scale.ndim else float(scale), tensors.get(COLOUR))


def with_statistics(weights: Tensors, stats: Statistics | None) -> Tensors:
    """Return the tensors of a file: the inverse of `separate_statistics`."""
    if stats is None:
        return weights
    colour = {} if stats.colour is None else {COLOUR: stats.colour}
    return weights | {MEAN: stats.mean, SCALE: np.asarray(stats.scale, np.float32)} | colour


def statistics_of(network: str) -> Statistics | None:
    """Return the published statistics of another program's network, None for networks of this program."""
    if network not in INPUTS:
        return None
    mean, scale = (np.array(x, np.float32)[None, None] for x in (INPUTS[network].mean, INPUTS[network].scale))
    return Statistics(mean, scale)


def mean_image(path: Path) -> np.ndarray:
    """Return Caffe's mean image, float32 [height, width, 3] in RGB. Raises UsageError if the file cannot be read."""
    try:
        return caffe.read_mean(path)
    except Exception as problem:  # protobuf has its own errors
        raise UsageError(
            f"--mean_image={path} cannot be read: {problem}. Expected a .binaryproto file written by Caffe, such as "
            "imagenet_mean.binaryproto."
        ) from problem
