"""Check the digits of scikit-learn: images, labels, the fixed split, and the error without scikit-learn."""

import hashlib
import sys

import numpy as np
import pytest

from alexnet_jax.data import digits
from alexnet_jax.data.registry import load
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data


def test_digits_are_images_like_the_others():
    data = load(Data(name="digits"))
    assert data.title == "scikit-learn digits, 1,797 images enlarged to 32x32x3"
    assert data.classes == tuple("0123456789")
    assert (data.train.images.shape, data.test.images.shape) == ((1437, 32, 32, 3), (360, 32, 32, 3))
    for split in (data.train, data.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert (split.images.min(), split.images.max()) == (0, 255)
        np.testing.assert_array_equal(split.images[..., 0], split.images[..., 1])
        np.testing.assert_array_equal(split.images[..., 0], split.images[..., 2])
        assert np.bincount(split.labels, minlength=10).min() > len(split.labels) / 15


def test_every_digit_keeps_its_label_and_is_in_one_split():
    from sklearn.datasets import load_digits

    original, data = load_digits(), load(Data(name="digits"))
    large = digits.enlarge(original.images)
    expected = {image.tobytes(): label for image, label in zip(large, original.target, strict=True)}
    assert len(expected) == 1797
    found = {}
    for split in (data.train, data.test):
        found |= {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    assert found == expected


def test_digits_split_is_the_same_in_every_run_whatever_the_seed():
    first = load(Data(name="digits"))
    np.random.seed(5)
    second = load(Data(name="digits"))
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert first.fingerprint == second.fingerprint
    # A recorded value: results on the test split are comparable only if the split never changes.
    assert hashlib.sha256(first.test.labels.tobytes()).hexdigest()[:8] == "90b64c94"


def test_enlarging_is_bilinear():
    ramp = np.tile(np.arange(8.0), (8, 1))[None]
    row = digits.enlarge(ramp)[0, 16, :, 0]
    assert np.all(np.diff(row.astype(int)) >= 0)
    expected = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7) * 255 / 16
    np.testing.assert_array_equal(row, np.rint(expected))


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match="pip install scikit-learn"):
        load(Data(name="digits"))
