"""Which examples a step sees: permutations that depend on seed and step alone, and a validation split that never moves."""

import numpy as np
import pytest

from alexnet_jax.columns import Columns
from alexnet_jax.data.dataset import DataSet, MemorySplit
from alexnet_jax.data.order import evaluation_batches, hold_out, steps_per_epoch, training_batch
from alexnet_jax.data.pipeline import put
from alexnet_jax.errors import UsageError

EXAMPLES, BATCH = 103, 10
PER_EPOCH = EXAMPLES // BATCH


def epoch(number, seed=0):
    return np.concatenate([training_batch(number * PER_EPOCH + i, EXAMPLES, BATCH, seed) for i in range(PER_EPOCH)])


def test_an_epoch_shows_each_example_once_without_the_rest():
    for number in range(5):
        order = epoch(number)
        assert len(order) == len(set(order.tolist())) == PER_EPOCH * BATCH
        assert order.min() >= 0 and order.max() < EXAMPLES and order.dtype == np.int32


def test_an_epoch_that_divides_is_a_whole_permutation():
    order = np.concatenate([training_batch(7 * 4 + i, 100, 25, seed=3) for i in range(4)])
    np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert not np.array_equal(order, np.arange(100))


def test_examples_left_out_of_one_epoch_come_in_another():
    left_out = [set(range(EXAMPLES)) - set(epoch(number).tolist()) for number in range(20)]
    assert not set.intersection(*left_out)


def test_epochs_differ_and_seeds_differ():
    orders = [epoch(0), epoch(1), epoch(2), epoch(0, seed=1), epoch(1, seed=1), epoch(0, seed=2**32 - 1)]
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_a_step_is_the_same_whatever_came_before_it():
    straight = [training_batch(step, EXAMPLES, BATCH, 7).copy() for step in range(35)]
    for step in (34, 3, 12, 0, 25, 11, 12):  # as runs that were stopped and continued anywhere would ask
        training_batch(900, EXAMPLES, BATCH, 8)
        np.testing.assert_array_equal(training_batch(step, EXAMPLES, BATCH, 7), straight[step])


def test_every_example_has_an_equal_chance_to_come_first():
    first = [training_batch(number * 4, 20, 5, seed=0)[0] for number in range(2000)]
    counts = np.bincount(first, minlength=20)
    assert ((counts - 100) ** 2 / 100).sum() < 19 + 5 * np.sqrt(2 * 19)


@pytest.mark.parametrize(
    ("examples", "batch", "expected"), [(100, 10, 10), (109, 10, 10), (10, 10, 1), (45_000, 128, 351)]
)
def test_steps_per_epoch_counts_whole_batches(examples, batch, expected):
    assert steps_per_epoch(examples, batch) == expected


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="--train.batch=128: expected at most the 100 training images"):
        steps_per_epoch(100, 128)


@pytest.mark.parametrize("batch", [1, 64, 128, 333, 700, 1000])
@pytest.mark.parametrize("examples", [1, 128, 700])
def test_evaluation_covers_every_example_once_in_equal_batches(examples, batch):
    counted = []
    for indices, counts in evaluation_batches(examples, batch):
        assert len(indices) == len(counts) == batch
        assert indices.max() < examples  # what fills up the last batch is there to be read
        counted += indices[counts].tolist()
    assert counted == list(range(examples))


def a_data_set(n=500, title="a set"):
    images = np.arange(n * 12, dtype=np.int64).reshape(n, 2, 2, 3)
    split = MemorySplit(images, np.arange(n, dtype=np.int32))
    return DataSet("set", title, ("a", "b"), split, split, "f")


def test_validation_and_training_images_partition_the_set():
    training, validation = hold_out(a_data_set(), 120)
    assert len(validation.labels) == 120 and len(training.labels) == 380
    assert sorted([*training.labels, *validation.labels]) == list(range(500))
    for split in (training, validation):  # each image with its own label, in the set's own order
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels * 12)
        assert (np.diff(split.labels) > 0).all()


def test_the_same_images_are_held_out_in_every_run():
    np.testing.assert_array_equal(hold_out(a_data_set(), 120)[1].labels, hold_out(a_data_set(), 120)[1].labels)
    # Written down, since a change would let images that were trained on into the validation split of an older run.
    assert hold_out(a_data_set(), 6)[1].labels.tolist() == [57, 139, 277, 356, 456, 458]


def test_a_smaller_validation_split_is_part_of_a_larger_one():
    small, large = (set(hold_out(a_data_set(), n)[1].labels.tolist()) for n in (60, 120))
    assert small < large


def test_held_out_images_come_from_all_over_the_set():
    held = hold_out(a_data_set(), 120)[1].labels
    assert (np.histogram(held, 4, (0, 500))[0] > 15).all()


@pytest.mark.parametrize("validation", [500, 501])
def test_nothing_left_to_train_on_is_refused_with_both_numbers(validation):
    with pytest.raises(
        UsageError, match=f"--data.validation={validation}: expected fewer than the 500 training images of a set"
    ):
        hold_out(a_data_set(), validation)


def test_a_split_is_put_whole_on_every_device():
    split = MemorySplit(np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([1, 0], np.int32))
    placed = put(split, Columns.over(2, 2))
    assert len(placed) == 2
    for leaf, values in ((placed.images, split.images), (placed.labels, split.labels)):
        assert len(leaf.addressable_shards) == 4 and leaf.dtype == values.dtype
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, values)
