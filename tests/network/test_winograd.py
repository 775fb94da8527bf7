"""Check that Winograd's three matrices are exact, and that its rounding error is at most a few times the usual one."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax.network.winograd import combine, cook_toom, winograd


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("r", [3, 5])
def test_the_matrices_compute_a_correlation(m, r):
    if m + r - 1 > 8:
        pytest.skip("only seven finite points are listed")
    bt, g, at = (np.array(matrix) for matrix in cook_toom(m, r))
    n = m + r - 1
    assert bt.shape == (n, n) and g.shape == (n, r) and at.shape == (m, n)
    images, kernel = np.random.default_rng(0).normal(size=(2, n))
    kernel = kernel[:r]
    np.testing.assert_allclose(at @ ((g @ kernel) * (bt @ images)), np.correlate(images, kernel, "valid"), atol=1e-12)


def test_more_points_than_keep_the_error_small_are_refused():
    with pytest.raises(ValueError, match=r"F\(4, 7\) needs 9 points"):
        cook_toom(4, 7)


def test_f_2_3_transforms_images_by_small_integers_alone():
    bt, g, at = cook_toom(2, 3)
    assert all(x == int(x) and abs(x) <= 2 for row in (*bt, *at) for x in row)
    assert {Fraction(x).denominator for row in g for x in row} <= {1, 2, 4}


def test_combine_is_a_matrix_product_over_a_list():
    parts = [np.full(2, 1.0), np.full(2, 10.0), np.full(2, 100.0)]
    out = combine(((1.0, -1.0, 0.0), (0.0, 0.5, 2.0)), parts)
    np.testing.assert_array_equal(out, [[-9, -9], [205, 205]])


@pytest.mark.parametrize("size", [3, 5])
def test_rounding_error_in_32_bits_is_small(size):
    generator = np.random.default_rng(size)
    x = generator.normal(size=(48, 8, 8, 2)).astype(np.float32)
    kernel = generator.normal(size=(16, 48, size, size)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    exact = np.einsum("ihwnab,oiab->ohwn", windows, kernel.astype(np.float64))
    plain = lax.conv_general_dilated(
        x, kernel, (1, 1), [(size // 2,) * 2] * 2, dimension_numbers=("CHWN", "OIHW", "CHWN"), precision="highest"
    )
    scale = np.abs(exact).max()
    error = np.abs(jax.jit(winograd)(x, kernel) - exact).max() / scale
    assert error < 2e-5
    assert error > np.abs(plain - exact).max() / scale / 10  # not zero, so that the Winograd form was used


def test_the_type_of_the_images_is_kept():
    x, kernel = jnp.ones((1, 4, 4, 1), jnp.float16), jnp.ones((1, 1, 3, 3), jnp.float16)
    assert winograd(x, kernel).dtype == jnp.float16
