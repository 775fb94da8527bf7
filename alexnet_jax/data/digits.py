"""The digits that scikit-learn ships, a data set without a download. A data set in memory is added as this one is."""

from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_jax.data.dataset import DataSet, MemorySplit, check_labels, fingerprint
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data

TEST_DIGITS = 360
"""Number of test digits, about a fifth of 1,797."""


def load(_options: Data, _log: Callable[[str], None] = print) -> DataSet:
    """Return scikit-learn's digits, enlarged from 8x8 to 32x32x3. The test split is the same in every run.

    Raises UsageError if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(f"--data.name=digits needs scikit-learn ({error}): pip install scikit-learn") from error
    bunch: Any = load_digits()
    images, labels = enlarge(bunch.images), bunch.target
    check_labels(labels, 10, "scikit-learn's digits")
    labels = labels.astype(np.int32)
    # RandomState: its streams are frozen, those of default_rng may change with NumPy's version.
    order = np.random.RandomState(0).permutation(len(labels))
    test, train = order[:TEST_DIGITS], order[TEST_DIGITS:]
    return DataSet(
        name="digits",
        title=f"scikit-learn digits, {len(labels):,} images enlarged to 32x32x3",
        classes=tuple(str(name) for name in bunch.target_names),
        train=MemorySplit(images[train], labels[train]),
        test=MemorySplit(images[test], labels[test]),
        fingerprint=fingerprint(array.tobytes() for array in (images, labels, order)),
    )


def enlarge(images: np.ndarray) -> np.ndarray:
    """Interpolate images float [n, 8, 8] from 0..16 bilinearly to uint8 [n, 32, 32, 3] from 0..255, with equal channels."""
    centres = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))  # [32, 8], rows sum to 1
    large = np.rint(weights @ images @ weights.T * (255 / 16)).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=-1)
