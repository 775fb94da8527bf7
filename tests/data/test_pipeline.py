"""Check the examples of a step, which depend only on seed and step, and the fixed validation split."""

import dataclasses

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
    for step in (34, 3, 12, 0, 25, 11, 12):  # as in runs that resume at any step
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
        assert indices.max() < examples  # the examples that fill the last batch exist
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
    for split in (training, validation):  # each image keeps its label, in the order of the set
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels * 12)
        assert (np.diff(split.labels) > 0).all()


def test_the_same_images_are_held_out_in_every_run():
    np.testing.assert_array_equal(hold_out(a_data_set(), 120)[1].labels, hold_out(a_data_set(), 120)[1].labels)
    # A recorded value: a change would move training images into the validation split of older runs.
    assert hold_out(a_data_set(), 6)[1].labels.tolist() == [57, 139, 277, 356, 456, 458]


def test_a_smaller_validation_split_is_part_of_a_larger_one():
    small, large = (set(hold_out(a_data_set(), n)[1].labels.tolist()) for n in (60, 120))
    assert small < large


def test_held_out_images_come_from_all_over_the_set():
    held = hold_out(a_data_set(), 120)[1].labels
    assert (np.histogram(held, 4, (0, 500))[0] > 15).all()


@pytest.mark.parametrize("validation", [500, 501, 5000])
def test_one_image_in_ten_is_held_out_of_a_small_set(validation):
    training, held = hold_out(a_data_set(), validation)
    assert (len(training), len(held)) == (450, 50)


def test_a_validation_split_of_the_set_is_held_out():
    data_set = dataclasses.replace(a_data_set(), validation=30)
    training, held = hold_out(data_set, 120)
    assert (held.labels == data_set.train.labels[470:]).all() and (training.labels == data_set.train.labels[:470]).all()
    assert len(hold_out(data_set, 120, fold_in=True)[0]) == 500


def test_a_single_training_image_is_refused():
    data_set = a_data_set()
    with pytest.raises(UsageError, match="has 1 training images"):
        hold_out(dataclasses.replace(data_set, train=data_set.train.take(np.array([0]))), 1)


def test_a_split_is_put_whole_on_every_device():
    split = MemorySplit(np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([1, 0], np.int32))
    placed = put(split, Columns.over(2, 2))
    assert len(placed) == 2
    for leaf, values in ((placed.images, split.images), (placed.labels, split.labels)):
        assert len(leaf.addressable_shards) == 4 and leaf.dtype == values.dtype
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, values)
