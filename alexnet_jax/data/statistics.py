"""Statistics of the training images: their mean, their standard deviation, and the principal components of their colours."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.data import array_cache, loader
from alexnet_jax.data.array_cache import Expected
from alexnet_jax.data.dataset import DiskSplit, Split, fingerprint
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Data


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that a flax module can hold it
class Statistics:
    """What normalizes every image, measured on the training split alone."""

    mean: np.ndarray
    """float32 [height, width, 3] (per pixel) or [1, 1, 3] (per channel), on the scale of 0..255."""
    scale: float | np.ndarray
    """Divisor of the difference from the mean; with imported weights it may be float32 [1, 1, 3]."""
    colour: np.ndarray | None = None
    """float32 [3, 3], [channel, component]: principal components of the colours, with the lengths that the noise needs."""


@dataclass(frozen=True)
class Moments:
    """Sums over images uint8 [n, height, width, 3], from which all statistics follow. They are integers, and therefore exact."""

    count: int
    total: np.ndarray  # int64 [height, width, 3]
    products: np.ndarray  # float64 [3, 3]: products of channels, over all pixels

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


def moments(images: np.ndarray) -> Moments:
    """Return the sums over images uint8 [n, height, width, 3]."""
    pixels = images.reshape(-1, 3).astype(np.float64)
    return Moments(len(images), images.sum(0, dtype=np.int64), pixels.T @ pixels)


def measure(split: Split, options: Data, log: Callable[[str], None] = print) -> Statistics:
    """Return the statistics that `options` needs. The sums over a split on disk are cached."""
    if isinstance(split, DiskSplit):
        found = _moments_on_disk(split, options.workers, log)
    else:
        found = _sum(_chunks(split.images))
    mean = found.total / found.count
    mean = mean if options.mean == "pixel" else mean.mean((0, 1), keepdims=True)
    scale = 1.0 if options.scale == "none" else _deviation(found, mean)
    colour = None if options.colour == "none" else _components(found, options.colour)
    return Statistics(mean.astype(np.float32), scale, colour)


def _deviation(found: Moments, mean: np.ndarray) -> float:
    """Return the standard deviation around the mean: sum (x - m)^2 = sum x^2 - 2 sum m x + sum m^2."""
    numbers = found.count * found.total.size
    squares = np.trace(found.products) - (2 * mean * found.total - found.count * mean**2).sum()
    return float(np.sqrt(squares / numbers))


def _components(found: Moments, reading: str) -> np.ndarray:
    """Return the eigenvectors [channel, component] of the covariance of all pixels, scaled for the noise.

    original: multiplied by the square roots of the eigenvalues. paper: multiplied by the eigenvalues of colours from 0 to 1;
    these are the eigenvalues on the scale of 0..255, divided by 255 twice and multiplied by 255 to return to that scale.
    """
    pixels = found.count * found.total[..., 0].size
    centre = found.total.sum((0, 1)) / pixels
    values, vectors = np.linalg.eigh(found.products / pixels - np.outer(centre, centre))
    values = np.maximum(values, 0)
    return (vectors * (np.sqrt(values) if reading == "original" else values / 255)).astype(np.float32)


# --- sums over a split -----------------------------------------------------------------------------------------------


def _sum(chunks: Iterator[np.ndarray]) -> Moments:
    total = moments(next(chunks))
    for chunk in chunks:
        total += moments(chunk)
    return total


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield parts of a data set, which would not fit into memory as float64."""
    return iter(np.array_split(images, max(1, len(images) // 1000)))


BATCH = 64
"""Number of pictures that are decoded together while the statistics are measured."""


def _moments_on_disk(split: DiskSplit, workers: int | None, log: Callable[[str], None]) -> Moments:
    key = fingerprint([f"{split.fingerprint} {split.side}".encode(), split.indices.tobytes()])
    path = files.cache_folder() / f"moments-{key}.npz"
    expected = {
        "count": Expected((), "int64"),
        "total": Expected(split.image, "int64"),
        "products": Expected((3, 3), "float64"),
    }
    arrays = array_cache.read(path, expected, log)
    if arrays is None or arrays["count"] != len(split):
        log(f"The mean of {len(split):,} training images is measured once; later starts read {path}.")
        found = _read_all(split, loader.cores() if workers is None else workers)
        arrays = {"count": np.int64(found.count), "total": found.total, "products": found.products}
        array_cache.write(path, arrays, log)
    return Moments(int(arrays["count"]), arrays["total"], arrays["products"])


def _read_all(split: DiskSplit, workers: int) -> Moments:
    steps = loader.Evaluation(split, BATCH, np.arange(BATCH))
    few = len(split) < 20 * BATCH  # starting processes would take longer
    with (
        contextlib.closing(loader.batches(steps, 0 if few else workers)) as batches,
        tqdm(total=len(split), desc="mean image", unit=" images", disable=None, leave=False) as bar,
    ):

        def images() -> Iterator[np.ndarray]:
            for number, batch in enumerate(batches):
                counted = batch.images[steps.counted(number)]
                yield counted
                bar.update(len(counted))

        return _sum(images())


# --- in the run's folder ---------------------------------------------------------------------------------------------


def save(stats: Statistics, path: Path) -> None:
    """Write the statistics to the folder of the run whose parameters are trained with them."""
    colour = {} if stats.colour is None else {"colour": stats.colour}
    files.write_arrays(path, {"mean": stats.mean, "scale": np.asarray(stats.scale, np.float64), **colour})


def restore(path: Path) -> Statistics | None:
    """Return the statistics of a run, None if the file does not exist. Raises RunError if it is damaged."""
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            scale = stored["scale"]
            return Statistics(
                stored["mean"],
                float(scale) if scale.ndim == 0 else scale.astype(np.float32),
                stored.get("colour"),
            )
    except Exception as problem:  # a damaged zip file raises nearly every type
        raise RunError(
            f"{path} is damaged ({type(problem).__name__}: {problem}). Restore it from a copy, or delete it: the numbers are "
            "then measured again, or read from the run that this one started from."
        ) from problem
