"""What a network was trained to see: the mean and scale that travel with its weights, as `statistics.npz` of a run's folder."""

from pathlib import Path

import numpy as np

from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.foreign import INPUTS
from alexnet_jax.weights.formats import Tensors

STATISTICS = "statistics.npz"
"""In a run's folder: float32 mean [height, width, 3] or [1, 1, 3] and scale [] or [1, 1, 3], RGB on the 0..255 scale; colour
[3, 3] where the run has colour noise."""

PREFIX = "input."
"""In a file of weights the same arrays are called input.mean, input.scale and input.colour."""


def split(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """(weights, statistics) of a file; the latter under their plain names, empty in files of other programs."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
    found = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return weights, found


def join(weights: Tensors, statistics: Tensors) -> Tensors:
    """The inverse of `split`."""
    return weights | {f"{PREFIX}{name}": numbers for name, numbers in statistics.items()}


def known(network: str) -> Tensors:
    """The statistics of another program's network, empty for ours: those are measured on the training split."""
    if network not in INPUTS:
        return {}
    channels = {"mean": INPUTS[network].mean, "scale": INPUTS[network].scale}
    return {name: np.array(numbers, np.float32)[None, None] for name, numbers in channels.items()}


def mean_image(path: Path) -> np.ndarray:
    """Caffe's mean image, float32 [height, width, 3] in RGB. Raises UsageError when the file cannot be read."""
    from alexnet_jax.weights import caffe

    try:
        return caffe.read_mean(path)
    except Exception as problem:  # protobuf's errors have no common type with ours
        raise UsageError(
            f"--mean_image={path} cannot be read: {problem}. Expected a .binaryproto that Caffe wrote, such as "
            "imagenet_mean.binaryproto."
        ) from problem


def read(run: Path) -> Tensors:
    """The statistics of a run, empty where it has none. Raises RunError when the file is damaged."""
    path = run / STATISTICS
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as problem:  # zip and numpy raise errors of their own
        raise RunError(f"{path} is damaged ({problem}). Restore it from a copy.") from problem


def write(run: Path, statistics: Tensors) -> None:
    """Write them into a run's folder."""
    np.savez(run / STATISTICS, **statistics)  # type: ignore[arg-type]
