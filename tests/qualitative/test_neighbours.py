"""Check that neighbours equal those of a full search, and that each training image is its own nearest neighbour."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from running import command, main

from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.qualitative.examples import batches
from alexnet_jax.qualitative.neighbours import nearest

pytest_plugins = ["running"]


@pytest.mark.parametrize("size", [4, 16, 100])
def test_nearest_equal_those_of_a_full_search(size):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (90, 2, 2, 3)).astype(np.uint8)
    images[70] = images[20]  # equal distances are sorted by index
    split = MemorySplit(images, np.arange(90, dtype=np.int32))
    flat = images.reshape(90, -1).astype(np.float64)
    queries = np.concatenate([flat[[20, 5]], generator.normal(128, 50, (3, 12))])
    expected = np.linalg.norm(flat[None] - queries[:, None], axis=-1)
    order = np.argsort(expected, axis=1, kind="stable")[:, :6]

    extract = lambda images: jnp.asarray(images.reshape(len(images), -1), jnp.float32)  # noqa: E731
    distances, indices, kept = nearest(jnp.asarray(queries, jnp.float32), batches(split, size), extract, 6)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, np.take_along_axis(expected, order, 1), rtol=1e-6, atol=1e-6)
    assert indices[0, :2].tolist() == [20, 70] and distances[0, :2].tolist() == [0, 0]
    assert set(kept) == set(indices.flat)
    for index, (image, label) in kept.items():
        assert label == index
        np.testing.assert_array_equal(image, images[index])


@pytest.fixture(scope="module")
def fc7(untrained, tmp_path_factory, digits):
    """Return {split: vectors float64 [n, 32]} of the untrained run, which test_features.py checks."""
    folder, found = tmp_path_factory.mktemp("features"), {}
    for split in ("train", "test"):
        assert main(command(untrained, mode="features", split=split, out=folder / f"{split}.npz")) == 0
        with np.load(folder / f"{split}.npz") as file:
            found[split] = file["features"].astype(np.float64)
    return found


def nearest_labels(line):
    """Return the labels, distances and indices of a printed line."""
    found = [each.split() for each in line.split(", ")]
    labels, distances, numbers = zip(*found, strict=True)
    return list(map(int, labels)), list(map(float, distances)), [int(number[2:-1]) for number in numbers]


def test_neighbours_of_test_images(untrained, digits, fc7, tmp_path, capsys):
    assert main(command(untrained, mode="neighbours", out=tmp_path)) == 0
    test, training = digits["test"], digits["train"]
    output = capsys.readouterr().out
    same = 0
    for i in [i * 360 // 5 for i in range(5)]:
        distances = np.linalg.norm(fc7["train"] - fc7["test"][i], axis=1)
        near = np.argsort(distances)[:6]
        (line,) = re.findall(rf"^test image {i}: {test.labels[i]} <- (.*)$", output, re.MULTILINE)
        labels, shown, numbers = nearest_labels(line)
        assert labels == training.labels[near].tolist() and numbers == near.tolist()
        np.testing.assert_allclose(shown, distances[near], rtol=6e-3)
        same += sum(training.labels[near] == test.labels[i])
    assert "by fc7" in output and f"{same} of these 30 neighbours have the class of their test image" in output
    with Image.open(tmp_path / "neighbours.png") as picture:
        assert picture.format == "PNG"


def test_training_images_are_their_own_nearest_neighbours(untrained, digits, tmp_path, capsys, no_picture):
    folder, training = tmp_path / "pictures", digits["train"]
    folder.mkdir()
    for i in range(5):
        Image.fromarray(training.images[200 * i]).save(folder / f"{i}.png")
    assert main(command(untrained, mode="neighbours", out=tmp_path / "figures", image=folder)) == 0
    output = capsys.readouterr().out
    for i in range(5):
        (line,) = re.findall(rf"^{folder / f'{i}.png'} <- (.*)$", output, re.MULTILINE)
        labels, distances, numbers = nearest_labels(line)
        assert numbers[0] == 200 * i
        assert labels[0] == training.labels[200 * i] and distances[0] < 1e-4 < distances[1]
    assert "of their test image" not in output
