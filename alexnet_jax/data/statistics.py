"""What is measured on the training images: their mean, their deviation, the principal components of their colours."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.data import cache, loader
from alexnet_jax.data.split import Split, Stream
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Data


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that a flax module can hold it
class Statistics:
    """What is subtracted from and divided out of every image; measured on the training split alone."""

    mean: np.ndarray  # float32 [height, width, 3] (per pixel) or [1, 1, 3] (per channel), on the 0..255 scale
    scale: float | np.ndarray  # one number, 1 for the 0..255 scale; or float32 [1, 1, 3], with imported weights
    colour: np.ndarray | None = (
        None  # float32 [3, 3]: principal components of the colours, as long as the noise needs them
    )


@dataclass(frozen=True)
class Moments:
    """Sums over images uint8 [n, height, width, 3], from which all statistics follow; whole numbers, so exact."""

    count: int
    total: np.ndarray  # int64 [height, width, 3]
    products: np.ndarray  # float64 [3, 3]: of the channels, over all pixels

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


def moments(images: np.ndarray) -> Moments:
    """Of some images uint8 [n, height, width, 3]."""
    pixels = images.reshape(-1, 3).astype(np.float64)
    return Moments(len(images), images.sum(0, dtype=np.int64), pixels.T @ pixels)


def measure(split: Split | Stream, data: Data, log: Callable[[str], None] = print) -> Statistics:
    """The statistics that `data` asks for; a stream is read once, and what was found kept in the cache."""
    found = _of_stream(split, data.workers, log) if isinstance(split, Stream) else _sum(_chunks(split.images))
    mean = found.total / found.count
    mean = mean if data.mean == "pixel" else mean.mean((0, 1), keepdims=True)
    scale = 1.0 if data.scale == "none" else _deviation(found, mean)
    return Statistics(mean.astype(np.float32), scale, None if data.colour == "none" else _colours(found, data.colour))


def _deviation(found: Moments, mean: np.ndarray) -> float:
    """Around the mean, over all pixels and channels: sum (x - m)^2 = sum x^2 - 2 sum m x + sum m^2."""
    numbers = found.count * found.total.size
    squares = np.trace(found.products) - (2 * mean * found.total - found.count * mean**2).sum()
    return float(np.sqrt(squares / numbers))


def _colours(found: Moments, reading: str) -> np.ndarray:
    """[channel, component] of the pixels' covariance over the set.

    original: eigenvectors times the roots of their eigenvalues. paper: times the eigenvalues of colours of 0..1, which on the
    scale of 0..255 are a 255th of those found there.
    """
    pixels = found.count * found.total[..., 0].size
    centre = found.total.sum((0, 1)) / pixels
    values, vectors = np.linalg.eigh(found.products / pixels - np.outer(centre, centre))
    values = np.maximum(values, 0)
    return (vectors * (np.sqrt(values) if reading == "original" else values / 255)).astype(np.float32)


# --- sums over a whole split -----------------------------------------------------------------------------------------


def _sum(chunks: Iterator[np.ndarray]) -> Moments:
    total = moments(next(chunks))
    for chunk in chunks:
        total += moments(chunk)
    return total


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """A whole set does not fit as float64."""
    return iter(np.array_split(images, max(1, len(images) // 1000)))


STREAM_BATCH = 64


def _of_stream(stream: Stream, workers: int | None, log: Callable[[str], None]) -> Moments:
    key = hashlib.sha256(f"{stream.fingerprint} {stream.side}".encode() + stream.indices.tobytes()).hexdigest()[:16]
    path = files.cache_folder() / f"moments-{key}.npz"
    expected: cache.Expected = {
        "count": ((), "int64"),
        "total": (stream.image, "int64"),
        "products": ((3, 3), "float64"),
    }
    arrays = cache.read(path, expected, log)
    if arrays is None:
        log(f"The mean of {len(stream):,} training images is measured once; later starts read {path}.")
        found = _read_through(stream, loader.cores() if workers is None else workers)
        arrays = {"count": np.int64(found.count), "total": found.total, "products": found.products}
        cache.write(path, arrays, log)
    return Moments(int(arrays["count"]), arrays["total"], arrays["products"])


def _read_through(stream: Stream, workers: int) -> Moments:
    source = loader.Evaluation(stream, STREAM_BATCH, np.arange(STREAM_BATCH))
    few = len(stream) < 20 * STREAM_BATCH  # not worth the start of processes
    with (
        contextlib.closing(loader.batches(source, 0 if few else workers)) as batches,
        tqdm(total=len(stream), desc="mean image", unit=" images", disable=None, leave=False) as bar,
    ):

        def images() -> Iterator[np.ndarray]:
            for batch in batches:
                left = batch["images"][: len(stream) - bar.n]
                yield left
                bar.update(len(left))

        return _sum(images())


# --- in the run's folder ---------------------------------------------------------------------------------------------


def save(stats: Statistics, path: Path) -> None:
    """Write the statistics into the folder of the run whose parameters were trained with them."""
    colour = {} if stats.colour is None else {"colour": stats.colour}
    files.write_arrays(path, {"mean": stats.mean, "scale": np.asarray(stats.scale, np.float64), **colour})


def restore(path: Path) -> Statistics | None:
    """Those of a run, None where it has none. Raises RunError for a damaged file."""
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
    except Exception as problem:  # a damaged zip file raises nearly everything
        raise RunError(f"{path} is damaged ({type(problem).__name__}: {problem}). Restore it from a copy.") from problem
