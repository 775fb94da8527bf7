"""Check that decoded images are cached, and that a damaged, interrupted or unwritable cache only costs time."""

import numpy as np
import pytest
from small_cifar10 import assert_is_the_small_set, cache_file, load_from
from tfds_files import TRAIN, prepare

from alexnet_jax.data import array_cache, cifar10

pytest_plugins = ["small_cifar10"]
pytestmark = pytest.mark.usefixtures("surroundings")


def test_the_second_start_decodes_nothing(tmp_path, monkeypatch):
    prepare(tmp_path)
    first, lines = load_from(tmp_path)
    assert len(lines) == 1
    assert str(cache_file(tmp_path)) in lines[0]
    monkeypatch.setattr(cifar10, "decode", None)
    second, lines = load_from(tmp_path)
    assert lines == []
    assert_is_the_small_set(second)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "other arrays", "other shape"])
def test_a_damaged_cache_is_noticed_and_rebuilt(tmp_path, damage):
    prepare(tmp_path)
    load_from(tmp_path)
    file = cache_file(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "one bit":
        content[content.index(TRAIN[5].tobytes()) + 7] ^= 16
        file.write_bytes(content)
    elif damage == "other arrays":
        np.savez(file, something=np.zeros(3))
    else:
        with np.load(file) as stored:
            arrays = dict(stored)
        np.savez(file, **arrays | {"train_images": arrays["train_images"][1:]})
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert f"The cache file {file} is damaged" in lines[0]
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert lines == []


def test_no_flipped_byte_of_a_cache_file_goes_unnoticed(tmp_path):
    path, arrays = tmp_path / "small.npz", {"a": np.arange(6, dtype=np.uint8), "b": np.arange(3, dtype=np.int32)}
    expected = {"a": ((6,), "uint8"), "b": ((3,), "int32")}
    array_cache.write(path, arrays, print)
    content, damaged = path.read_bytes(), 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0xFF
        path.write_bytes(flipped)
        read = array_cache.read(path, expected, lambda line: None)
        damaged += read is None
        if read is not None:  # the byte contains no data of the arrays, for example a date
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[name], array)
    assert damaged > len(content) / 2


def test_an_interrupted_write_leaves_the_old_cache(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "small.npz"
    array_cache.write(path, {"a": np.zeros(2)}, print)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        array_cache.write(path, {"a": np.ones(2)}, print)
    assert array_cache.read(path, {"a": ((2,), "float64")}, print)["a"].tolist() == [0, 0]
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_costs_one_line(tmp_path):
    prepare(tmp_path / "data")
    (tmp_path / "cache").write_text("a file where the folder should be")
    data, lines = load_from(tmp_path / "data")
    assert_is_the_small_set(data)
    assert len(lines) == 2
    assert "could not be written" in lines[1]
