"""The digits that scikit-learn ships: the data set that needs no download."""

import hashlib
from typing import Any

import numpy as np

from alexnet_jax.data.split import DataSet, Split, check_labels
from alexnet_jax.errors import UsageError

TEST_DIGITS = 360
"""Of 1,797, about one in five."""


def load() -> DataSet:
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
