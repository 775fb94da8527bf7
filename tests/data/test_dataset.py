"""Check that `check_labels` names the first label out of range."""

import numpy as np
import pytest

from alexnet_jax.data.dataset import check_labels
from alexnet_jax.errors import RunError


def test_check_labels_takes_what_fits():
    check_labels(np.array([0, 9, 4], np.int32), 10, "a test")
    check_labels(np.array([], np.int64), 10, "a test")


@pytest.mark.parametrize(("labels", "message"), [
    ([3, -1, 2], r"Label 1 of the split 'x' is -1, expected 0 to 9 \(1 of 3 labels"),
    ([10, 3, 11], r"Label 0 of the split 'x' is 10, expected 0 to 9 \(2 of 3 labels"),
    ([1.0, 2.0], r"labels of the split 'x' are float64, expected integers"),
])  # fmt: skip
def test_check_labels_names_the_first_wrong_one(labels, message):
    with pytest.raises(RunError, match=message):
        check_labels(np.array(labels), 10, "the split 'x'")
