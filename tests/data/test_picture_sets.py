"""Check large data sets on disk: ImageNet and others in both formats of tensorflow-datasets, folders of classes."""

import pickle
import shutil
import struct

import numpy as np
import photographs
import pytest
import tfds_files
from photographs import KINDS, SIDE, TEST, TRAIN, photograph, write_folder, write_imagenet

from alexnet_jax.data import registry
from alexnet_jax.data.images import square
from alexnet_jax.data.records import TfrecordFile
from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import DataNotFoundError, RunError, UsageError
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


def imagenet(root, **options):
    return registry.load(Data("imagenet2012", dir=str(root), side=SIDE, **options))


def folder(root, **options):
    return registry.load(Data("folder", dir=str(root), side=SIDE, **options))


def assert_pictures(split, numbers, labels):
    assert len(split) == len(numbers)
    for index, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        pixels, found = split[index]
        np.testing.assert_array_equal(pixels, square(photograph(number), SIDE, "it"))
        assert found == label


def by_class(numbers):
    """Sort the numbers of pictures by class, the order of a folder of classes."""
    return sorted(numbers, key=lambda number: (number % 3, number))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_imagenet_is_read_at_random_from_either_format(tmp_path, file_format):
    write_imagenet(tmp_path, file_format)
    data = imagenet(tmp_path)
    assert data.title == "ImageNet (tfds imagenet2012 5.1.0, 23 + 9 images)" and data.name == "imagenet2012"
    assert data.train.image == (SIDE, SIDE, 3)
    for split, first, count in ((data.train, 0, TRAIN), (pickle.loads(pickle.dumps(data.test)), 100, TEST)):
        assert_pictures(split, range(first, first + count), [i % 3 for i in range(first, first + count)])


def test_some_of_a_split_are_those_records(tmp_path):
    write_imagenet(tmp_path)
    chosen = imagenet(tmp_path).train.take(np.array([20, 3, 7])).take(np.array([True, False, True]))
    assert_pictures(chosen, [20, 7], [2, 1])


def test_a_folder_with_train_and_val(tmp_path):
    write_folder(tmp_path / "animals")
    data = folder(tmp_path / "animals")
    assert data.classes == KINDS and class_count(Data("folder", dir=str(tmp_path / "animals"))) == 3
    assert data.title == "animals (23 + 9 pictures of 3 classes, test pictures from val/)"
    assert_pictures(data.train, by_class(range(TRAIN)), [i % 3 for i in by_class(range(TRAIN))])
    assert_pictures(data.test, by_class(range(100, 109)), [i % 3 for i in by_class(range(100, 109))])


def test_one_picture_in_ten_is_always_the_same_test_set(tmp_path):
    root = write_folder(tmp_path / "animals") / "train"
    first, again = folder(root), folder(root)
    assert (len(first.train), len(first.test)) == (21, 2)
    assert first.fingerprint == again.fingerprint
    everything = [split[i][0].tobytes() for split in (first.train, first.test) for i in range(len(split))]
    assert len(set(everything)) == TRAIN
    assert [again.test[i][0].tobytes() for i in range(2)] == everything[21:]


def test_a_folders_fingerprint_follows_its_pictures(tmp_path):
    root = write_folder(tmp_path / "animals")
    before = folder(root).fingerprint
    shutil.copytree(root, tmp_path / "copy")
    assert folder(tmp_path / "copy").fingerprint == before
    (root / "train" / "cat" / "999.jpg").write_bytes(photograph(999))
    assert folder(root).fingerprint != before


def test_any_set_of_tensorflow_datasets_by_its_version_folder(tmp_path):
    version_folder = tfds_files.prepare(tmp_path)
    data = folder(version_folder)
    assert (data.name, data.classes) == ("cifar10", tfds_files.CLASSES)
    for index in (0, 22):
        pixels, label = data.train[index]
        expected = square(tfds_files.encode(tfds_files.TRAIN[index]), SIDE, "it")
        np.testing.assert_array_equal(pixels, expected)
        assert label == tfds_files.TRAIN_LABELS[index]


def test_imagenet_that_is_not_there_lists_every_way_to_it(tmp_path):
    with pytest.raises(DataNotFoundError) as raised:
        imagenet(tmp_path)
    for fragment in ("--data.dir", "tfds build imagenet2012", "--data.name=folder", "--data.prepared", "alexnet_cifar"):
        assert fragment in str(raised.value)


def fails(root, error, *fragments, load=folder):
    with pytest.raises(error) as raised:
        load(root)
    for fragment in fragments:
        assert fragment in str(raised.value)


def test_folders_that_hold_no_classes(tmp_path):
    with pytest.raises(UsageError, match="needs --data.dir=FOLDER"):
        registry.load(Data("folder"))
    fails(tmp_path / "nowhere", UsageError, "no such folder")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    fails(tmp_path / "one", UsageError, "1 subfolders in", "at least two")
    (tmp_path / "one" / "dog").mkdir()
    fails(tmp_path / "one", UsageError, "cat contains no pictures", "remove that folder")


def test_test_pictures_of_an_unknown_class(tmp_path):
    root = write_folder(tmp_path)
    (root / "val" / "fox").mkdir()
    fails(root, UsageError, "'fox'", "the training split does not have")


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path):
    root = write_folder(tmp_path)
    (root / "train" / "cat" / "000.jpg").write_bytes(b"no picture")
    data = folder(root)
    with pytest.raises(RunError, match=r"train/cat/000\.jpg cannot be read as a picture"):
        data.train[0]
    (root / "train" / "cat" / "000.jpg").unlink()
    with pytest.raises(RunError, match=r"train/cat/000\.jpg cannot be read \(.*No such file"):
        data.train[0]


def test_records_that_are_damaged_or_whose_label_is_out_of_range(tmp_path):
    values = [tfds_files.example(photograph(0), 3), b"no example", tfds_files.example(photograph(2), 1)]
    photographs.lay_out(tmp_path, values, values[2:], shards=1)
    train = imagenet(tmp_path).train
    with pytest.raises(RunError, match=r"label of Picture 0 of .*train.* is 3, expected 0 to 2"):
        train[0]
    with pytest.raises(RunError, match=r"Picture 1 of .* is damaged|Picture 1 of .* has no image"):
        train[1]
    assert train[2][1] == 1


def test_a_tfrecord_file_that_is_truncated_is_named(tmp_path):
    version_folder = write_imagenet(tmp_path, "tfrecord")
    file = next(version_folder.glob("*train*00001-of*"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(RunError, match=r"train\.tfrecord-00001.*truncated.*Is the file complete"):
        imagenet(tmp_path).train[TRAIN - 1]


def test_a_tfrecord_file_has_its_records_by_number(tmp_path):
    values = [b"a", b"", b"ccc" * 1000]
    tfds_files.write_tfrecord(tmp_path / "file", values)
    records = TfrecordFile(str(tmp_path / "file"))
    assert [records[i] for i in (2, 0, 1)] == [values[2], values[0], values[1]] and len(records) == 3
    (tmp_path / "file").write_bytes(struct.pack("<Q", 2**60) + b"1234")
    with pytest.raises(ValueError, match="truncated"):
        TfrecordFile(str(tmp_path / "file"))
