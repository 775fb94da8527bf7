"""Run tfds_prepare.py with an archive placed by hand, a wrong archive, and damaged tfrecord files."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT
from small_cifar10 import fake_archive, load_from
from tfds_files import CLASSES, TEST, TEST_LABELS, TRAIN, TRAIN_LABELS, prepare, records, write_tfrecord

from alexnet_jax.data import tfds_download, tfds_prepare

pytest_plugins = ["small_cifar10"]
pytestmark = pytest.mark.usefixtures("surroundings")

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("importlib_resources") is None,
    reason="preparing data needs TensorFlow: pip install tensorflow-cpu importlib_resources",
)


PREPARATIONS = """
import json, sys
from alexnet_jax.data.tfds_prepare import main
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification.cifar import Cifar10
out = sys.stdout
tasks, archive, url = json.loads(sys.argv[1])
for arguments in tasks:
    if arguments[1].endswith("right"):
        info = checksums.compute_url_info(archive)
        Cifar10.url_infos = {url: info}
    sys.stdout = out
    print("status", main(arguments), file=out)
"""
"""Run several tasks in one process, because importing TensorFlow takes 5 s. tensorflow-datasets enforces the checksum
of the real archive; for the folder `right` it is replaced by the checksum of the small archive."""


@pytest.fixture(scope="module")
def prepared_by_program(tmp_path_factory):
    """Run tfds_prepare.py on four folders and return {name: (folder, message, status)}."""
    root = tmp_path_factory.mktemp("preparations")
    folders = {name: root / name for name in ("cut", "short", "wrong", "right")}
    damage_tfrecords(folders)
    for name in ("wrong", "right"):
        fake_archive(folders[name] / "downloads" / "manual" / "cifar-10-binary.tar.gz")
    versions = [str(folders[name] / "cifar10" / "3.0.2") for name in ("cut", "short")]
    tasks = [["convert", version, f"{version}-new"] for version in versions]
    tasks += [["download", str(folders[name])] for name in ("wrong", "right")]
    archive = str(folders["right"] / "downloads" / "manual" / "cifar-10-binary.tar.gz")
    command = [sys.executable, "-c", PREPARATIONS, json.dumps([tasks, archive, tfds_download.ARCHIVE])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = re.findall(r"(.*?)status (\d+)\n", done.stdout, re.DOTALL)
    assert len(said) == 4, done.stderr
    return {name: (folders[name], *answer) for name, answer in zip(folders, said, strict=True)}


SHARD = "cifar10-test.tfrecord-00001-of-00002"


def damage_tfrecords(folders: dict[str, Path]) -> None:
    """Write a set with a record file cut within a record, and a set with a file cut between two records."""
    cut = prepare(folders["cut"], file_format="tfrecord") / SHARD
    os.truncate(cut, cut.stat().st_size - 100)
    short = prepare(folders["short"], file_format="tfrecord") / SHARD
    write_tfrecord(short, records(TEST[5:8], TEST_LABELS[5:8]))


@needs_tensorflow
def test_an_archive_placed_by_hand_is_prepared(prepared_by_program):
    folder, message, status = prepared_by_program["right"]
    assert (message, status) == ("", "0")
    data, _ = load_from(folder)
    assert data.classes == CLASSES
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2)"
    for split, images, labels in ((data.train, TRAIN, TRAIN_LABELS), (data.test, TEST, TEST_LABELS)):
        found = {image.tobytes(): int(label) for image, label in zip(split.images, split.labels, strict=True)}
        assert found == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    info = json.loads((folder / "cifar10" / "3.0.2" / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"


@needs_tensorflow
def test_a_wrong_archive_is_refused(prepared_by_program):
    folder, message, status = prepared_by_program["wrong"]
    assert status == "1"
    assert message.startswith(
        "The archive is not the one that tensorflow-datasets expects. Delete it and download it again."
    )
    assert f"{folder / 'downloads' / 'manual' / 'cifar-10-binary.tar.gz'}, has wrong checksum" in message
    assert list(folder.glob("cifar10/*")) == []


@needs_tensorflow
@pytest.mark.parametrize(("name", "fault"), [
    ("cut", "is damaged or missing: "),
    ("short", "has 3 examples, but dataset_info.json lists 6."),
])  # fmt: skip
def test_damaged_tfrecord_files_leave_nothing_half_converted(prepared_by_program, name, fault):
    folder, message, status = prepared_by_program[name]
    assert status == "1"
    assert message.startswith(f"The record file {folder / 'cifar10' / '3.0.2' / SHARD} {fault}")
    assert [file.name for file in (folder / "cifar10").iterdir()] == ["3.0.2"]


def test_the_preparing_program_called_wrongly_says_how(capsys):
    for arguments in ([], ["download"], ["convert", "one"], ["other", "one"]):
        assert tfds_prepare.main(arguments) == 2
        assert "tfds_prepare download DATA_FOLDER" in capsys.readouterr().out
