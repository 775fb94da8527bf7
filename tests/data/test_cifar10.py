"""Check how CIFAR-10 prepared by tensorflow-datasets is found and read, and the message for each kind of damage."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT
from small_cifar10 import assert_is_the_small_set, cache_file, fails, load_from
from tfds_files import (
    CLASSES,
    TEST,
    TEST_LABELS,
    TRAIN,
    TRAIN_LABELS,
    encode,
    example,
    pictures,
    prepare,
    records,
    write_array_record,
)

from alexnet_jax.data import cifar10, tfds_sets
from alexnet_jax.data.registry import load
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data

pytest_plugins = ["small_cifar10"]
pytestmark = pytest.mark.usefixtures("surroundings")

REAL_DATA = os.environ.get("TFDS_DATA_DIR")
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("importlib_resources") is None,
    reason="preparing data needs TensorFlow: pip install tensorflow-cpu importlib_resources",
)


def test_a_prepared_set_is_read_exactly(tmp_path):
    prepare(tmp_path)
    data, _ = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert (data.name, data.classes) == ("cifar10", CLASSES)
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2)"


def test_a_jpeg_set_says_so(tmp_path):
    values = [example(encode(image, "JPEG"), 3) for image in TRAIN]
    prepare(tmp_path, values, encoding="jpeg")
    data, _ = load_from(tmp_path)
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2, JPEG re-encoded)"


def test_a_thousand_and_one_examples_cross_the_edge_of_a_block(tmp_path):
    images = np.repeat(pictures(1, 3), 1001, axis=0)
    images[:, 0, 0, 0] = np.arange(1001) % 256
    prepare(tmp_path, records(images, [i % 10 for i in range(1001)]))
    data, _ = load_from(tmp_path)
    np.testing.assert_array_equal(data.train.images, images)
    assert data.train.labels.tolist() == [i % 10 for i in range(1001)]


def test_a_set_with_array_record_as_its_second_format_is_read(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    values = json.loads(description.read_text())
    values |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    description.write_text(json.dumps(values))
    data, _ = load_from(tmp_path)
    assert_is_the_small_set(data)


def test_reading_and_caching_import_no_tensorflow(tmp_path):
    prepare(tmp_path / "data")
    program = (
        "import sys\n"
        "from alexnet_jax.data.registry import load\n"
        "from alexnet_jax.experiment import Data\n"
        "sizes = [len(load(Data()).train.labels) for _ in range(2)]\n"
        "print(sizes, 'tensorflow' in sys.modules)\n"
    )
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[23, 23] False", done.stderr
    assert "WARNING" not in done.stderr


def test_the_folder_is_the_option_then_the_environment_then_home(tmp_path, monkeypatch):
    option, environment, home = tmp_path / "option", tmp_path / "environment", tmp_path / "home"
    for folder in (option, environment):
        folder.mkdir()
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, None) == home / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(environment))
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, None) == environment
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, str(option)) == option
    monkeypatch.chdir(tmp_path)
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, "option") == option


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    fails(missing, UsageError, f"--data.dir={missing}", "no such folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(missing))
    with pytest.raises(UsageError, match=f"TFDS_DATA_DIR={missing}"):
        load(Data())


def test_a_folder_too_deep(tmp_path):
    version_folder = prepare(tmp_path)
    fails(version_folder, UsageError, "expected the folder that contains cifar10/")
    fails(version_folder.parent, UsageError, "expected the folder that contains cifar10/")


@pytest.mark.skipif(not REAL_DATA, reason="the real CIFAR-10 needs TFDS_DATA_DIR")
def test_the_real_cifar10_is_found_and_its_records_are_readable():
    prepared = cifar10.find(tfds_sets.data_folder(tfds_sets.CIFAR10, REAL_DATA), print)
    assert prepared.counts == {"train": 50_000, "test": 10_000}
    assert prepared.classes == CLASSES
    examples = cifar10.examples(prepared.builder.as_data_source("test"), range(500), "test", prepared.folder)
    assert {example["image"].shape for example in examples} == {(32, 32, 3)}
    assert {int(example["label"]) for example in examples} == set(range(10))


def test_the_fingerprint_follows_the_data_not_the_place(tmp_path):
    prepare(tmp_path / "one")
    prepare(tmp_path / "two")
    one, two = load_from(tmp_path / "one")[0].fingerprint, load_from(tmp_path / "two")[0].fingerprint
    assert one == two
    assert set(one) <= set("0123456789abcdef")
    prepare(tmp_path / "other", records(TRAIN, TRAIN_LABELS[::-1]))
    assert load_from(tmp_path / "other")[0].fingerprint != one
    features = tmp_path / "two" / "cifar10" / "3.0.2" / "label.labels.txt"
    features.write_text(features.read_text().replace("ship", "boat"))
    assert load_from(tmp_path / "two")[0].fingerprint != one


@pytest.mark.parametrize("label", [-1, 10, 2**32])
def test_a_label_out_of_range_is_an_error_and_is_never_cached(tmp_path, label):
    labels = [*TRAIN_LABELS[:7], label, *TRAIN_LABELS[8:]]
    version_folder = prepare(tmp_path, records(TRAIN, labels))
    for _ in range(2):
        fails(tmp_path, RunError, f"Label 7 of the split 'train' in {version_folder} is {label}, expected 0 to 9")


def test_an_image_of_another_shape(tmp_path):
    values = records(TEST, TEST_LABELS)
    values[4] = example(encode(np.zeros((32, 31, 3), np.uint8)), 1)
    version_folder = prepare(tmp_path, test=values)
    fails(tmp_path, RunError, f"Image 4 of the split 'test' in {version_folder} is uint8 (32, 31, 3)", "(32, 32, 3)")


def test_features_of_another_shape(tmp_path):
    version_folder = prepare(tmp_path, shape=(28, 28, 1))
    fails(tmp_path, RunError, f"{version_folder / 'features.json'} says images are uint8 (28, 28, 1)")


def test_an_image_that_cannot_be_decoded(tmp_path):
    values = records(TRAIN, TRAIN_LABELS)
    values[20] = example(b"no image at all", 1)
    version_folder = prepare(tmp_path, values)
    fails(tmp_path, RunError, f"Example 20 of the split 'train' in {version_folder} cannot be read")


def test_a_record_that_is_no_example(tmp_path):
    values = records(TRAIN, TRAIN_LABELS)
    values[0] = b"\xff\xff\xff"
    version_folder = prepare(tmp_path, values)
    fails(tmp_path, RunError, f"Example 0 of the split 'train' in {version_folder} cannot be read")


def record_file(version_folder: Path) -> Path:
    return version_folder / "cifar10-train.array_record-00001-of-00002"


def test_a_missing_record_file(tmp_path):
    file = record_file(prepare(tmp_path))
    file.unlink()
    fails(tmp_path, RunError, f"The record file {file} is missing")


@pytest.mark.parametrize("size", [0, 1000, 65536])
def test_a_truncated_record_file(tmp_path, size):
    file = record_file(prepare(tmp_path))
    assert file.stat().st_size > size
    os.truncate(file, size)
    fails(tmp_path, RunError, f"The record file {file} of the split 'train' is damaged or truncated")


def test_a_flipped_bit_in_a_record_file(tmp_path):
    version_folder = prepare(tmp_path, shards=1)
    file = version_folder / "cifar10-train.array_record-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[content.index(encode(TRAIN[6])) + 50] ^= 1
    file.write_bytes(content)
    fails(tmp_path, RunError, f"Example 6 of the split 'train' in {version_folder} cannot be read", "Corrupted")


def test_a_count_that_differs_from_the_description(tmp_path):
    version_folder = prepare(tmp_path)
    write_array_record(record_file(version_folder), records(TRAIN[:5], TRAIN_LABELS[:5]))
    fails(tmp_path, RunError, str(record_file(version_folder)), "has 5 examples, but dataset_info.json says 12")


def test_a_split_that_is_missing(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    values = json.loads(description.read_text())
    values["splits"] = values["splits"][:1]
    description.write_text(json.dumps(values))
    fails(tmp_path, RunError, f"The description of CIFAR-10 in {version_folder} cannot be read", "test")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_description_cut_short(tmp_path, name):
    file = prepare(tmp_path) / name
    file.write_text(file.read_text()[:80])
    fails(tmp_path, RunError, "The description of CIFAR-10 in", "cannot be read")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_half_written_set(tmp_path, name):
    version_folder = prepare(tmp_path)
    (version_folder / name).unlink()
    fails(tmp_path, RunError, f"{version_folder} is incomplete", "Delete that folder")


@needs_tensorflow
def test_a_tfrecord_set_is_converted_once_and_left_as_it_was(tmp_path, monkeypatch):
    version_folder = prepare(tmp_path, file_format="tfrecord")
    before = {file.name: file.read_bytes() for file in version_folder.iterdir()}
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert any("converted once to array_record" in line for line in lines)
    assert {file.name: file.read_bytes() for file in version_folder.iterdir()} == before
    (converted,) = set(version_folder.parent.iterdir()) - {version_folder}
    assert sorted(file.suffix for file in converted.iterdir()).count(".array_record-00000-of-00002") == 2

    # Without the cache of images, the converted copy is read again, and no conversion runs.
    cache_file(tmp_path).unlink()
    monkeypatch.setattr(cifar10, "run_prepare_script", None)
    again, lines = load_from(tmp_path)
    assert_is_the_small_set(again)
    assert again.fingerprint == data.fingerprint
    assert not any("converted" in line for line in lines)


def test_a_tfrecord_set_on_a_read_only_disk_is_converted(tmp_path, monkeypatch):
    version_folder = prepare(tmp_path, file_format="tfrecord")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    asked = []
    monkeypatch.setattr(cifar10, "run_prepare_script", lambda *arguments: asked.append(arguments))
    with pytest.raises(RunError):  # because the replaced program converts nothing
        load_from(tmp_path)
    ((task, source, target),) = asked
    assert (task, source) == ("convert", version_folder)
    assert target.parent == tmp_path / "cache" / "alexnet_jax"


def test_another_format_is_named(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    description.write_text(description.read_text().replace('"array_record"', '"riegeli"'))
    for file in version_folder.glob("*.array_record-*"):
        file.rename(file.with_name(file.name.replace("array_record", "riegeli")))
    fails(tmp_path, RunError, f"{version_folder} is in the format riegeli; expected array_record or tfrecord")
