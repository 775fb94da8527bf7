"""Check colour selectivity, the comparison of columns, and the figure of kernels."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from running import main
from scipy import stats

from alexnet_jax.qualitative.kernels import compare, living, selectivity
from alexnet_jax.qualitative.paper_figures import mosaic

pytest_plugins = ["running"]


def random_kernels(number, seed=0):
    return np.random.default_rng(seed).normal(size=(number, 3, 5, 5))


def test_selectivity_of_grey_and_of_opponent_channels():
    pattern = random_kernels(4)[:, :1]
    grey, opponent = pattern * np.ones((1, 3, 1, 1)), pattern * np.array([2, -1, -1]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(selectivity(grey), 0, atol=1e-15)
    np.testing.assert_allclose(selectivity(opponent), 1)
    np.testing.assert_allclose(selectivity(pattern * np.array([1, 0, 0]).reshape(1, 3, 1, 1)), 2 / 3)  # red alone
    np.testing.assert_allclose(selectivity(grey + opponent), 6 / 9)  # energies 3 and 6


def test_random_kernels_have_two_thirds_on_average():
    assert np.mean(selectivity(random_kernels(4000))) == pytest.approx(2 / 3, abs=0.005)


def test_selectivity_is_the_share_off_the_grey_axis():
    kernels = random_kernels(5, seed=1)
    axis = np.ones(3) / np.sqrt(3)
    for kernel, found in zip(kernels, selectivity(1e-3 * kernels), strict=True):
        pixels = kernel.reshape(3, -1).T
        along = sum((pixel @ axis) ** 2 for pixel in pixels)
        assert found == pytest.approx(1 - along / (kernel**2).sum())


def test_dead_kernels_are_found():
    kernels = random_kernels(12).reshape(2, 6, 3, 5, 5)
    kernels[1, 2] *= 1e-4
    kernels[0, 3] *= 0.1  # small, not dead
    assert np.argwhere(~living(kernels)).tolist() == [[1, 2]]
    assert living(1e-6 * kernels).sum() == 11


def test_the_permutation_test_equals_all_exchanges():
    first, second = np.array([0.1, 0.2, 0.25, 0.5]), np.array([0.3, 0.6, 0.7])
    both = np.concatenate([first, second])
    apart = abs(second.mean() - first.mean())
    choices = list(itertools.combinations(range(7), 4))
    means = [(both[list(own)].mean(), np.delete(both, own).mean()) for own in choices]
    expected = np.mean([abs(a - b) >= apart - 1e-12 for a, b in means])
    found, turned = compare(first, second), compare(second, first)
    assert found.p == pytest.approx(expected) == pytest.approx(turned.p)
    assert found.difference == pytest.approx(second.mean() - first.mean()) == pytest.approx(-turned.difference)


def test_the_interval_equals_welchs():
    first, second = np.array([0.1, 0.2, 0.25, 0.5, 0.3]), np.array([0.3, 0.6, 0.7])
    shares = [np.var(values, ddof=1) / len(values) for values in (first, second)]
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / 4 + shares[1] ** 2 / 2)
    middle, half = second.mean() - first.mean(), stats.t.ppf(0.975, freedom) * np.sqrt(sum(shares))
    assert compare(first, second).interval == pytest.approx((middle - half, middle + half))


def test_a_single_kernel_is_not_compared():
    assert compare(np.array([0.5]), np.array([0.1, 0.2])) is None


def test_the_mosaic_keeps_places_and_colours():
    kernels = np.zeros((20, 3, 2, 2))
    kernels[0, 0] = 4.0  # red
    kernels[11, :, 1, 0] = -0.5  # dark at one pixel
    picture = mosaic(kernels)
    assert picture.shape == (2 * 3 - 1, 10 * 3 - 1, 3)
    np.testing.assert_allclose(picture[:2, :2], np.broadcast_to([1, 0.5, 0.5], (2, 2, 3)))
    assert (picture[2] == 1).all() and (picture[:, 2] == 1).all()
    np.testing.assert_allclose(picture[4, 3], 0)
    np.testing.assert_allclose(picture[3, 3], 0.5)
    assert picture.min() == 0 and picture.max() == 1


def test_the_mode_prints_and_writes_selectivities(untrained, parameters, tmp_path, capsys):
    """The network options are read from the run folder, and differ from those of the experiment."""
    assert main(["--exp=alexnet_digits", "--mode=kernels", f"--workdir={untrained}", f"--out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    kernels = np.asarray(parameters["conv1"]["kernel"], np.float64)
    found = json.loads((tmp_path / "kernels.json").read_text())
    for own, column in zip(kernels, found["columns"], strict=True):
        np.testing.assert_allclose(column["selectivity"], selectivity(own))
        assert f"{column['mean']:.3f}" in shown
    means = [column["mean"] for column in found["columns"]]
    assert found["difference"] == pytest.approx(means[1] - means[0])
    assert f"Column 1 minus column 0: {found['difference']:+.3f}" in shown
    assert "The digits are grey" in shown
    with Image.open(tmp_path / "kernels.png") as picture:
        assert len(picture.getcolors(2**24)) > 100
