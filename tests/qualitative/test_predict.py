"""Check that the most probable classes equal those of a plain network, and that views are averaged."""

import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from running import command, main

from alexnet_jax.assembly import Setup, Trained
from alexnet_jax.columns import Columns, abstract_mesh
from alexnet_jax.data.augment import cut_view, list_views
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.experiment import DIGITS, Data, Experiment
from alexnet_jax.model import initialize
from alexnet_jax.network.table import Conv, Dense, Dropout, MaxPool, ReLU, Table
from alexnet_jax.qualitative.outputs import batch_size, probabilities
from benchmarks import plain

pytest_plugins = ["running"]


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def shown(text):
    """Return {name: [(class, per cent), ...]} from the printed text."""
    blocks = re.split(r"\n\n", text.strip())
    found = {}
    for block in blocks:
        rows = re.findall(r"^ +([\d.]+) %  (\S+)", block, re.MULTILINE)
        if rows:
            found[block.splitlines()[0]] = [(name, float(share)) for share, name in rows]
    return found


def test_probabilities_of_test_images(untrained, digits, reference, tmp_path, capsys):
    assert main(command(untrained, mode="predict", out=tmp_path)) == 0
    test = digits["test"]
    found = shown(capsys.readouterr().out)
    chosen = [i * 360 // 8 for i in range(8)]
    assert list(found) == [f"test image {i}: {test.labels[i]}" for i in chosen]
    for rows, expected in zip(found.values(), softmax(reference(test.images[chosen])), strict=True):
        order = np.argsort(-expected)[:5]
        assert [name for name, _ in rows] == [str(i) for i in order]
        np.testing.assert_allclose([share for _, share in rows], 100 * expected[order], atol=0.006)
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.format == "PNG"


def test_probabilities_of_files_and_folders(untrained, digits, reference, tmp_path, capsys, no_picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    images = digits["test"].images[:8]
    for i in range(2, 8):
        Image.fromarray(images[i]).save(folder / f"{i}.png")
    Image.fromarray(images[0]).save(tmp_path / "0.bmp")
    (folder / "1.jpg").write_bytes(b"nothing")
    arguments = command(untrained, mode="predict", out=tmp_path / "figures")
    assert main([*arguments, "--image", tmp_path / "0.bmp", folder]) == 1
    output = capsys.readouterr()
    found = shown(output.out)
    assert list(found) == [str(tmp_path / "0.bmp"), *(str(folder / f"{i}.png") for i in range(2, 8))]
    expected = np.delete(softmax(reference(images)), 1, axis=0)
    assert [rows[0][0] for rows in found.values()] == [str(i) for i in expected.argmax(1)]
    np.testing.assert_allclose([rows[0][1] for rows in found.values()], 100 * expected.max(1), atol=0.006)
    assert "1.jpg cannot be read" in output.err and "1 of 8 pictures could not be read" in output.err


def test_only_unreadable_pictures_is_an_error(untrained, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert main(command(untrained, mode="predict", out=tmp_path / "figures", image=tmp_path / "a.png")) == 1
    assert "1 of 1 pictures could not be read" in capsys.readouterr().err


SMALL = Table(
    "small",
    (6, 6, 3),
    2,
    (
        Conv("conv1", 8, 3, weight_std="he", after=(ReLU(), MaxPool())),
        Dense("fc2", 16, "gather", weight_std="he", after=(ReLU(), Dropout())),
        Dense("fc3", 10, "sum", weight_std="he"),
    ),
)


def small(placement=None, data=DIGITS, stats=None):
    """Return a setup of the small network in a placement, with only the fields that these tests read."""
    return Setup(Experiment("small", data=data), SMALL, placement, stats, None, None, None)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_probabilities_are_averaged_over_the_views(mesh):
    data, stats = Data(crop=6, views=10), Statistics(np.float32([[[90]]]), 60.0)
    setup = small(Columns.over(*mesh), data, stats)
    parameters = initialize(SMALL, jax.random.key(0), setup.placement)
    images = np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3)).astype(np.uint8)
    found = probabilities(Trained(setup, Path(), parameters, ""))(images)
    reference, host = jax.jit(functools.partial(plain.logits, SMALL)), jax.device_get(parameters)
    crops = [cut_view((images - np.float32(90)) / 60, offset, data) for offset in list_views(9, data)]
    scores = [softmax(np.asarray(reference(host, crop), np.float64)) for crop in crops]
    np.testing.assert_allclose(found, np.mean(scores, 0), rtol=1e-5)
    assert len(scores) == 10 and np.ptp(scores, 0).max() > 0.1  # the views differ


@pytest.mark.parametrize(("examples", "replicas", "expected"), [(1, 1, 1), (5, 1, 8), (5, 3, 9), (9000, 4, 500)])
def test_batches_are_no_larger_than_needed(examples, replicas, expected):
    setup = small(Columns(abstract_mesh(replicas)))
    assert batch_size(Trained(setup, Path(), {}, ""), examples) == expected
