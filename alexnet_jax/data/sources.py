"""Data sets as arrays: CIFAR-10 through tensorflow-datasets, and the digits that scikit-learn ships.

`load` is all that the rest of the program uses. What it returns was checked: shapes, dtypes, counts, every label.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_jax.data import cache, tfds_sets
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data


@dataclass(frozen=True)
class Split:
    """The examples of one split, in the data set's own order."""

    images: np.ndarray
    """uint8 [n, height, width, 3]"""
    labels: np.ndarray
    """int32 [n]"""


@dataclass(frozen=True)
class DataSet:
    """A whole data set in memory."""

    name: str
    title: str
    """A line for reports: what the data is and where it comes from."""
    classes: tuple[str, ...]
    train: Split
    test: Split
    fingerprint: str
    """Hexadecimal; differs where the data differs."""


def load(data: Data, *, log: Callable[[str], None] = print) -> DataSet:
    """The data set that `data` names; `log` is told what takes long.

    Raises DataNotFoundError (neither there nor downloadable), UsageError (a folder that is not there, imagenet2012),
    RunError (damaged data, a label out of range).
    """
    if data.name == "digits":
        return _load_digits()
    if data.name == "cifar10":
        return _load_cifar10(data, log)
    raise UsageError(
        f"--data.name={data.name}: a network for it can be summarized (--mode=summary), but the input pipeline for "
        f"{data.name} is not part of this version yet."
    )


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raise RunError unless every label is an integer of 0 .. classes-1; `where` names the labels in the message.

    jax would turn a label out of range into NaN or a silent zero loss, and -1 into the last class.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise RunError(f"The labels of {where} are {labels.dtype}, expected integers.")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        index = int(wrong[0])
        raise RunError(
            f"Label {index} of {where} is {labels[index]}, expected 0 to {classes - 1} "
            f"({wrong.size:,} of {labels.size:,} labels are out of range)."
        )


def _load_cifar10(data: Data, log: Callable[[str], None]) -> DataSet:
    """CIFAR-10 from the cache of decoded images, else decoded from its records and cached."""
    prepared = tfds_sets.find(tfds_sets.data_folder(data.dir), log)
    path = cache.cache_folder() / f"{data.name}-{prepared.fingerprint}.npz"
    expected = {}
    for split, count in prepared.counts.items():
        expected |= {f"{split}_images": ((count, *tfds_sets.SHAPE), "uint8"), f"{split}_labels": ((count,), "int32")}
    arrays = cache.read(path, expected, log)
    if arrays is None:
        log(f"CIFAR-10 is decoded from {prepared.folder}, 10 to 20 s; later starts read {path}.")
        arrays = tfds_sets.decode(prepared, log)
        for split in prepared.counts:
            labels = arrays[f"{split}_labels"]
            check_labels(labels, len(prepared.classes), f"the split {split!r} in {prepared.folder}")
            arrays[f"{split}_labels"] = labels.astype(np.int32)
        cache.write(path, arrays, log)
    for split in prepared.counts:
        check_labels(arrays[f"{split}_labels"], len(prepared.classes), f"the split {split!r} in {path}")
    jpeg = ", JPEG re-encoded" if prepared.jpeg else ""
    return DataSet(
        name=data.name,
        title=f"CIFAR-10 (tfds {data.name} {prepared.version}{jpeg})",
        classes=prepared.classes,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        fingerprint=prepared.fingerprint,
    )


TEST_DIGITS = 360
"""Of 1,797, about one in five."""


def _load_digits() -> DataSet:
    """scikit-learn's digits, 8x8 enlarged to 32x32x3; the test split is the same in every run.

    Raises UsageError where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(f"--data.name=digits needs scikit-learn ({error}): pip install scikit-learn") from error
    bunch: Any = load_digits()
    images, labels = _enlarge(bunch.images), bunch.target
    check_labels(labels, 10, "scikit-learn's digits")
    labels = labels.astype(np.int32)
    # RandomState: its streams are frozen, those of default_rng may change with NumPy's version.
    order = np.random.RandomState(0).permutation(len(labels))
    test, train = order[:TEST_DIGITS], order[TEST_DIGITS:]
    return DataSet(
        name="digits",
        title=f"scikit-learn digits, {len(labels):,} images enlarged to 32x32x3",
        classes=tuple(str(name) for name in bunch.target_names),
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        fingerprint=hashlib.sha256(images.tobytes() + labels.tobytes() + order.tobytes()).hexdigest()[:16],
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """[n, 8, 8] values 0..16 -> uint8 [n, 32, 32, 3] values 0..255: bilinear, three equal channels."""
    centres = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))  # [32, 8], rows sum to 1
    large = np.rint(weights @ images @ weights.T * (255 / 16)).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=-1)
