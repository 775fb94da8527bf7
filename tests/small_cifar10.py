"""A small CIFAR-10 as tensorflow-datasets prepares it: loading it, the expected images, its cache file and its archive.

A test module gets the fixture by `pytest_plugins = ["small_cifar10"]`.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tfds_files import CLASSES, TEST, TEST_LABELS, TRAIN, TRAIN_LABELS

from alexnet_jax.data import tfds_download
from alexnet_jax.data.dataset import DataSet
from alexnet_jax.data.registry import load
from alexnet_jax.experiment import Data


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Give the test its own cache folder and home directory, no data folder, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: "no network in tests")


def load_from(folder: Path) -> tuple[DataSet, list[str]]:
    """Return (data set that `load` reads from `folder`, lines that it logged)."""
    lines: list[str] = []
    return load(Data(dir=str(folder)), log=lines.append), lines


def fails(folder: Path, error: type[Exception], *fragments: str) -> None:
    """Assert that `load` raises exactly `error`, with a message that contains every fragment."""
    with pytest.raises(error) as raised:
        load_from(folder)
    assert type(raised.value) is error
    for fragment in fragments:
        assert fragment in str(raised.value)


def assert_is_the_small_set(data: DataSet) -> None:
    np.testing.assert_array_equal(data.train.images, TRAIN)
    np.testing.assert_array_equal(data.test.images, TEST)
    assert data.train.labels.tolist() == TRAIN_LABELS
    assert data.test.labels.tolist() == TEST_LABELS
    for split in (data.train, data.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def cache_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "alexnet_jax").iterdir()
    return file


def fake_archive(path: Path) -> None:
    """Write an archive in the format of CIFAR-10's with the small data set (23 training images in five files)."""
    path.parent.mkdir(parents=True)
    parts = {f"data_batch_{i + 1}.bin": range(23)[5 * i : 5 * i + 5] for i in range(5)}
    contents = {name: (TRAIN, TRAIN_LABELS, indices) for name, indices in parts.items()}
    contents["test_batch.bin"] = (TEST, TEST_LABELS, range(11))
    with tarfile.open(path, "w:gz") as archive:
        for name, (images, labels, indices) in contents.items():
            add(archive, name, b"".join(bytes([labels[i]]) + images[i].transpose(2, 0, 1).tobytes() for i in indices))
        add(archive, "batches.meta.txt", "\n".join(CLASSES).encode() + b"\n\n")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
