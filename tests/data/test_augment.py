"""Compare the statistics of images with NumPy, and identify crops and mirrors from their pixels."""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.data.augment import augment, crops, cut_view, gathered, list_views, normalize
from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.data.statistics import Statistics, measure
from alexnet_jax.experiment import Data

PLAIN = Data(crop_padding=0, mirror=False)


def measured(images, data):
    return measure(MemorySplit(images, np.zeros(len(images), np.int32)), data)


def pixels(n, size=6, channels=3):
    """Return n copies of one image whose pixels all differ, so that the position of a crop can be identified."""
    image = 1 + np.arange(size * size * channels, dtype=np.float32).reshape(size, size, channels)
    return np.repeat(image[None], n, 0)


def outcomes(image, padding, mirror):
    """Return {(row, column, mirrored): image} of all possible crops and mirrors."""
    size = image.shape[0]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    possible = {}
    for row, column, flip in itertools.product(
        range(2 * padding + 1), range(2 * padding + 1), [False, True][: 1 + mirror]
    ):
        cut = padded[row : row + size, column : column + size]
        possible[row, column, flip] = cut[:, ::-1] if flip else cut
    return possible


def draws(images, key, data):
    """Return the (row, column, mirrored) applied to each image. Raises KeyError for an impossible result."""
    results = np.asarray(jax.jit(augment, static_argnums=(2, 3))(images, key, data, None))
    assert results.shape == images.shape and results.dtype == images.dtype
    possible = outcomes(images[0], data.crop_padding, data.mirror)  # all images are equal
    names = {cut.tobytes(): name for name, cut in possible.items()}
    return [names[np.ascontiguousarray(result).tobytes()] for result in results]


def test_without_crops_and_mirrors_images_stay_as_they_are():
    images = pixels(4)
    np.testing.assert_array_equal(augment(images, jax.random.key(0), PLAIN, None), images)


def test_crops_and_mirrors_are_uniform_and_drawn_per_image():
    n, padding = 5000, 2
    found = draws(pixels(n), jax.random.key(1), Data(crop_padding=padding, mirror=True))
    names = list(outcomes(pixels(1)[0], padding, True))
    counts = np.array([found.count(name) for name in names])
    assert len(names) == 50 and counts.sum() == n
    expected = n / len(names)
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 5 * np.sqrt(2 * 49)  # chi squared, 49 degrees of freedom
    assert 0.4 < np.mean([a == b for a, b in itertools.pairwise([flip for _, _, flip in found])]) < 0.6


def test_crops_are_not_mirrored_nor_mirrors_shifted():
    crops = draws(pixels(200), jax.random.key(2), Data(crop_padding=1, mirror=False))
    assert {(row, column) for row, column, _ in crops} == set(itertools.product(range(3), range(3)))
    mirrors = draws(pixels(200), jax.random.key(2), Data(crop_padding=0, mirror=True))
    assert set(mirrors) == {(0, 0, False), (0, 0, True)}


def test_another_step_draws_anew_and_the_same_step_the_same():
    data, key = Data(crop_padding=2), jax.random.key(3)
    steps = [draws(pixels(64), jax.random.fold_in(key, step), data) for step in (0, 1, 0)]
    assert steps[0] == steps[2]
    assert np.mean([a == b for a, b in zip(steps[0], steps[1], strict=True)]) < 0.2


def test_the_padding_is_zero_and_all_channels_move_together():
    found = np.asarray(augment(pixels(100), jax.random.key(4), Data(crop_padding=4, mirror=False), None))
    blank = found == 0
    assert blank.any()
    np.testing.assert_array_equal(blank.all(-1), blank.any(-1))


def test_draws_are_the_same_on_every_mesh():
    images, data = pixels(8), Data(crop_padding=2)
    results = []
    for mesh in ((1, 1), (1, 2), (2, 1), (4, 1)):
        spread = jax.device_put(images, Columns.over(*mesh).sharding(columns.BATCH_FIRST))
        program = jax.jit(lambda x, shares=mesh[0]: augment(x, jax.random.key(5), data, None, shares=shares))
        assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", program.lower(spread).compile().as_text())
        results.append(np.asarray(program(spread)))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("shares", [1, 3])
def test_the_loop_of_a_cpu_cuts_what_other_devices_gather(shares):
    images, corners = pixels(6, size=8), np.random.default_rng(0).integers(3, size=(6, 2))
    expected = [image[top : top + 6, left : left + 6] for image, (top, left) in zip(images, corners, strict=True)]
    np.testing.assert_array_equal(jax.jit(crops, static_argnums=(2, 3))(images, corners, 6, shares), expected)
    np.testing.assert_array_equal(gathered(images, corners, 6), expected)


@pytest.fixture(scope="module")
def photographs():
    """Return 2,345 images, enough to measure the statistics in several parts, whose pixels and channels differ."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 200, size=(1, 5, 4, 3))
    return (base + generator.integers(0, 56, size=(2345, 5, 4, 3))).astype(np.uint8)


@pytest.mark.parametrize("scale", ["none", "std"])
def test_the_mean_per_pixel_and_the_deviation_around_it(photographs, scale):
    exact = photographs.astype(np.float64)
    stats = measured(photographs, Data(mean="pixel", scale=scale))
    assert stats.mean.shape == (5, 4, 3) and stats.mean.dtype == np.float32
    np.testing.assert_allclose(stats.mean, exact.mean(0), rtol=1e-6)
    assert stats.scale == pytest.approx(
        np.sqrt(((exact - exact.mean(0)) ** 2).mean()) if scale == "std" else 1.0, rel=1e-9
    )


@pytest.mark.parametrize("scale", ["none", "std"])
def test_the_mean_per_channel_and_the_deviation_around_it(photographs, scale):
    exact = photographs.astype(np.float64)
    stats = measured(photographs, Data(mean="channel", scale=scale))
    assert stats.mean.shape == (1, 1, 3) and stats.mean.dtype == np.float32
    mean = exact.mean((0, 1, 2))
    np.testing.assert_allclose(stats.mean[0, 0], mean, rtol=1e-6)
    assert stats.scale == pytest.approx(np.sqrt(((exact - mean) ** 2).mean()) if scale == "std" else 1.0, rel=1e-9)


def test_normalized_images_have_mean_zero_and_deviation_one(photographs):
    data = Data(mean="pixel", scale="std")
    images = np.asarray(normalize(photographs, measured(photographs, data)), np.float64)
    np.testing.assert_allclose(images.mean(0), 0, atol=1e-6)
    assert images.std() == pytest.approx(1, rel=1e-6)


def test_normalize_keeps_the_pixel_scale_unless_told_otherwise():
    stats = Statistics(np.full((1, 1, 3), 100, np.float32), 1.0)
    out = normalize(np.full((1, 2, 2, 3), 255, np.uint8), stats)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.full((1, 2, 2, 3), 155.0))
    halved = normalize(np.zeros((1, 2, 2, 3), np.uint8), Statistics(stats.mean, 50.0))
    np.testing.assert_array_equal(halved, np.full((1, 2, 2, 3), -2.0))


# --- crops, colours and views of the original program ----------------------------------------------------------------


def test_crops_have_their_side_and_come_from_everywhere():
    data = Data(crop_padding=0, crop=4, mirror=False)
    found = np.asarray(augment(pixels(3000), jax.random.key(0), data, None))
    assert found.shape == (3000, 4, 4, 3)
    image = pixels(1)[0]
    places = {image[i : i + 4, j : j + 4].tobytes(): (i, j) for i in range(3) for j in range(3)}
    counts = np.zeros((3, 3))
    for crop in found:
        counts[places[np.ascontiguousarray(crop).tobytes()]] += 1
    assert ((counts - 3000 / 9) ** 2 / (3000 / 9)).sum() < 8 + 5 * 4  # chi squared, 8 degrees of freedom


def test_the_colours_components_are_those_of_the_pixels(photographs):
    stats = measured(photographs, Data(colour="original"))
    covariance = np.cov(photographs.reshape(-1, 3).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(stats.colour @ stats.colour.T, covariance, rtol=1e-4)
    assert measured(photographs, Data()).colour is None


def test_the_papers_eigenvalues_are_of_colours_from_0_to_1(photographs):
    found = measured(photographs, Data(colour="paper")).colour / 255
    covariance = np.cov(photographs.reshape(-1, 3).T / 255.0, bias=True)
    np.testing.assert_allclose(found @ found.T, covariance @ covariance, rtol=1e-4)  # P diag(l^2) P^T


@pytest.mark.parametrize(("scale", "reading"), [(1.0, "original"), (50.0, "original"), (1.0, "paper")])
def test_colour_noise_is_a_tenth_and_one_draw_per_image(scale, reading):
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    colour = (vectors * np.array([90.0, 20.0, 5.0])).astype(np.float32)
    stats = Statistics(np.zeros((1, 1, 3), np.float32), scale, colour)
    data = Data(crop_padding=0, mirror=False, colour=reading)
    images = np.zeros((20_000, 2, 2, 3), np.float32)
    noise = np.asarray(jax.jit(lambda x, k: augment(x, k, data, stats))(images, jax.random.key(1)), np.float64)
    np.testing.assert_array_equal(noise, np.broadcast_to(noise[:, :1, :1], noise.shape))
    shift = noise[:, 0, 0] * (1.1 if reading == "original" else 1.0) * scale
    expected = 0.01 * colour @ colour.T
    error = 5 * np.sqrt(2 / 20_000) * np.abs(expected).max()
    np.testing.assert_allclose(shift.mean(0), 0, atol=5 * np.sqrt(expected.max() / 20_000))
    np.testing.assert_allclose(np.cov(shift.T), expected, atol=error)
    other = np.asarray(augment(images[:9], jax.random.key(2), data, stats))
    assert not np.isclose(other[:, 0, 0], noise[:9, 0, 0]).any()


@pytest.mark.parametrize("reading", ["original", "paper"])
def test_without_noise_in_late_epochs_images_stay_as_they_are(reading):
    stats = Statistics(np.zeros((1, 1, 3), np.float32), 1.0, np.eye(3, dtype=np.float32))
    data = Data(crop_padding=0, mirror=False, colour=reading)
    change = jax.jit(lambda recoloured: augment(pixels(2), jax.random.key(0), data, stats, recoloured))
    np.testing.assert_array_equal(change(False), pixels(2))
    assert (np.asarray(change(True)) != pixels(2)).all()


def test_images_with_noise_are_divided_by_eleven_tenths():
    stats = Statistics(np.zeros((1, 1, 3), np.float32), 1.0, np.zeros((3, 3), np.float32))
    found = augment(pixels(2), jax.random.key(0), Data(crop_padding=0, mirror=False, colour="original"), stats)
    np.testing.assert_allclose(found, pixels(2) / 1.1, rtol=1e-6)


def test_views_are_the_centre_nine_places_or_ten_with_mirrors():
    image = pixels(1, size=8)
    cut = lambda top, left: image[:, top : top + 4, left : left + 4]  # noqa: E731
    data = Data(crop=4)
    seen = lambda data: [cut_view(image, place, data) for place in list_views(8, data)]  # noqa: E731
    np.testing.assert_array_equal(seen(data)[0], cut(2, 2))
    nine = seen(dataclasses.replace(data, views=9))
    for found, (top, left) in zip(nine, itertools.product((0, 2, 4), (0, 2, 4)), strict=True):
        np.testing.assert_array_equal(found, cut(top, left))
    ten = seen(dataclasses.replace(data, views=10))
    five = [cut(0, 0), cut(0, 4), cut(4, 0), cut(4, 4), cut(2, 2)]
    for found, expected in zip(ten, five + [one[:, :, ::-1] for one in five], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_one_view_of_the_whole_image_is_the_image():
    (place,) = list_views(6, Data())
    np.testing.assert_array_equal(cut_view(pixels(2), place, Data()), pixels(2))
