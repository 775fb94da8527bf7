"""Check that batches from disk equal those of a split in memory, for any number of workers, first step and mesh."""

import contextlib
import itertools

import jax
import numpy as np
import photographs
import pytest
from photographs import SIDE, write_folder

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.data import loader, pipeline, registry, statistics
from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("animals"))


@pytest.fixture(scope="module")
def stream(root):
    return registry.load(Data("folder", dir=str(root), side=SIDE)).train


@pytest.fixture(scope="module")
def whole(stream):
    """Return the same split in memory."""
    images, labels = zip(*(stream[i] for i in range(len(stream))), strict=True)
    return MemorySplit(np.stack(images), np.array(labels, np.int32))


def taken(batches):
    """Return [(images, labels)] on the host."""
    with contextlib.closing(batches):
        batch = [examples.take(indices) for examples, indices, *_ in batches]
    return [(np.asarray(one.images), np.asarray(one.labels)) for one in batch]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for (images, labels), (other, others) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, other)
        np.testing.assert_array_equal(labels, others)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_same_split_in_memory(stream, whole, workers):
    placement = Columns.over(2, 2)
    expected = taken(pipeline.feed(whole, placement).training(0, 6, 8, seed=3))
    feed = pipeline.feed(stream, placement, workers)
    assert_equal(taken(feed.training(0, 6, 8, seed=3)), expected)
    assert_equal(taken(feed.training(4, 6, 8, seed=3)), expected[4:])


def test_batches_are_spread_over_the_data_axis(stream):
    placement = Columns.over(2, 2)
    with contextlib.closing(pipeline.feed(stream, placement).training(0, 1, 8, seed=0)) as batches:
        examples, _ = next(batches)
    assert {shard.data.shape for shard in examples.images.addressable_shards} == {(4, SIDE, SIDE, 3)}


@pytest.mark.parametrize("batch", [4, 8, 32])
def test_an_evaluation_sees_every_example_once_in_order(stream, whole, batch):
    feed = pipeline.feed(stream, Columns.over(2, 1))
    seen = []
    for examples, indices, counted in feed.evaluation(batch):
        assert indices is None and examples.images.shape[0] == len(counted) == batch
        seen += [image.tobytes() for image in np.asarray(examples.images)[counted]]
    assert seen == [image.tobytes() for image in whole.images]


def test_each_process_reads_the_rows_of_its_own_devices(stream, whole):
    sharding = Columns.over(4, 1).sharding(columns.BATCH_FIRST)
    assert pipeline.local_rows(sharding, 8).tolist() == list(range(8))

    class OneOfTwo:
        """A sharding of which this process has the second and fourth quarter, as one of two processes might."""

        def addressable_devices_indices_map(self, shape):
            return {0: (slice(2, 4),), 1: (slice(6, 8),)}

    rows = pipeline.local_rows(OneOfTwo(), 8)
    assert rows.tolist() == [2, 3, 6, 7]
    (mine,) = loader.batches(loader.Training(stream, 5, 6, 8, 0, rows), 0)
    ((images, labels),) = taken(pipeline.feed(whole, Columns.over()).training(5, 6, 8, seed=0))
    np.testing.assert_array_equal(mine.images, images[rows])
    np.testing.assert_array_equal(mine.labels, labels[rows])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_ends_the_stream_with_its_name(tmp_path, workers):
    root = write_folder(tmp_path)
    (root / "train" / "dog" / "004.jpg").write_bytes(b"no picture")
    stream = registry.load(Data("folder", dir=str(root), side=SIDE)).train
    with pytest.raises(RunError, match=r"dog/004\.jpg cannot be read"):
        list(loader.batches(loader.Evaluation(stream, 8, np.arange(8)), workers))


def test_a_stream_that_is_left_early_ends_its_workers(stream):
    before = len(jax.tree.leaves(children()))
    with contextlib.closing(loader.batches(loader.Training(stream, 0, 1000, 8, 0, np.arange(8)), 2)) as batches:
        list(itertools.islice(batches, 2))
        assert len(children()) > before
    assert len(children()) <= before + 1  # multiprocessing's resource tracker remains


def children():
    import psutil

    found = psutil.Process().children(recursive=True)
    return [child for child in found if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"mean": "channel", "scale": "std"}, {"colour": "original"}, {"colour": "paper"}])
def test_statistics_of_a_stream_are_those_of_the_split_in_memory(stream, whole, options, tmp_path):
    data = Data("folder", side=SIDE, **options)
    said = []
    found, expected = statistics.measure(stream, data, said.append), statistics.measure(whole, data)
    for ours, theirs in ((found.mean, expected.mean), (found.scale, expected.scale), (found.colour, expected.colour)):
        np.testing.assert_array_equal(ours, theirs)
    assert len(said) == 1 and "measured once" in said[0]
    again = statistics.measure(stream, data, said.append)
    np.testing.assert_array_equal(again.mean, found.mean)
    assert len(said) == 1


def test_statistics_of_other_examples_are_measured_anew(stream):
    data, said = Data("folder", side=SIDE), []
    some = [statistics.measure(stream.take(np.arange(n)), data, said.append).mean for n in (5, 6)]
    assert len(said) == 2 and (some[0] != some[1]).any()


def test_statistics_stay_with_a_run_and_damage_is_named(tmp_path, whole):
    path = tmp_path / "statistics.npz"
    assert statistics.restore(path) is None
    for data in (Data(scale="std"), Data(mean="channel", colour="paper")):
        saved = statistics.measure(whole, data)
        statistics.save(saved, path)
        restored = statistics.restore(path)
        assert restored.scale == saved.scale
        np.testing.assert_array_equal(restored.mean, saved.mean)
        np.testing.assert_equal(restored.colour, saved.colour)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"statistics\.npz is damaged"):
        statistics.restore(path)
