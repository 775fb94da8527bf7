"""Compare the values and gradients that one column computes with plain NumPy in 64 bits."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.model import dropout_masks
from alexnet_jax.network import convolution, layers, networks
from alexnet_jax.network.convolution import convolution_form
from alexnet_jax.network.table import LRN, AvgPool, Conv, Dropout, MapNorm, MaxPool, Table, pooled, shapes
from alexnet_jax.network.winograd import winograd

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def value_and_pullback(function, g, *arguments):
    """Return function(*arguments) and the gradients of the sum of g * function."""

    @jax.jit
    def both(*arguments):
        y, pullback = jax.vjp(function, *arguments)
        return y, pullback(g)

    return jax.device_get(both(*arguments))


# --- convolution -----------------------------------------------------------------------------------------------------


def conv_numpy(x, kernel, stride, padding, g=None):
    """Return the convolution; with g, also the gradients of the sum of g * result with respect to x and kernel."""
    size, (before, behind) = kernel.shape[-1], padding
    padded = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))[:, ::stride, ::stride]
    y = np.einsum("ihwnab,oiab->ohwn", windows, kernel)
    if g is None:
        return y
    dx, (height, width) = np.zeros_like(padded), y.shape[1:3]
    for a, b in itertools.product(range(size), repeat=2):
        rows, across = slice(a, a + stride * height, stride), slice(b, b + stride * width, stride)
        dx[:, rows, across][:, :height, :width] += np.einsum("oi,ohwn->ihwn", kernel[:, :, a, b], g)
    dx = dx[:, before : padded.shape[1] - behind, before : padded.shape[2] - behind]
    return y, (dx, np.einsum("ihwnab,ohwn->oiab", windows, g))


ANY = [  # in, out, height, width, batch, kernel, stride, padding
    (1, 1, 5, 5, 1, 3, 1, (0, 0)),
    (1, 2, 7, 6, 1, 3, 2, (1, 1)),
    (3, 4, 23, 22, 2, 11, 4, (0, 3)),
    (3, 2, 9, 11, 3, 5, 4, (2, 1)),
    (2, 3, 8, 5, 2, 5, 2, (0, 3)),
    (4, 3, 6, 7, 2, 1, 1, (0, 0)),
    (5, 2, 6, 6, 2, 3, 4, (1, 0)),
    (2, 3, 3, 4, 2, 3, 1, (0, 0)),
]
SAME = [(3, 4, 6, 6, 2, 3), (2, 1, 13, 4, 2, 3), (2, 1, 9, 13, 1, 5), (1, 1, 5, 7, 1, 3)]
SAME += [(4, 2, 8, 5, 3, 5), (2, 3, 3, 2, 1, 5), (2, 5, 1, 2, 2, 3)]
SAME = [(*shape, 1, (shape[-1] // 2,) * 2) for shape in SAME]


def forms(shape):
    *_, size, stride, padding = shape
    same = stride == 1 and size % 2 and padding == (size // 2, size // 2)
    return ["lax", "im2col", "winograd"] if same and size > 1 else ["lax", "im2col"]


@pytest.mark.parametrize(("shape", "form"), [(shape, form) for shape in ANY + SAME for form in forms(shape)])
def test_each_form_of_convolution_matches_its_definition(shape, form, monkeypatch):
    inputs, out, height, width, batch, size, stride, padding = shape
    x, kernel = normal(inputs, height, width, batch), normal(out, inputs, size, size, seed=1)
    g = normal(*conv_numpy(x, kernel, stride, padding).shape, seed=2)
    expected, (expected_dx, expected_dk) = conv_numpy(x, kernel, stride, padding, g)

    monkeypatch.setattr(convolution, "convolution_form", lambda *_: form)
    y, (dx, dk) = value_and_pullback(lambda x, k: layers.conv(x, k, stride, padding), g, x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-11)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-11)
    np.testing.assert_allclose(dk, expected_dk, atol=1e-11)


def products(form, monkeypatch):
    """Return the numbers of matrix products and convolutions that compute a 3x3 convolution."""
    monkeypatch.setattr(convolution, "convolution_form", lambda *_: form)
    text = str(jax.make_jaxpr(lambda x, k: layers.conv(x, k, 1, (1, 1)))(normal(8, 4, 4, 2), normal(8, 8, 3, 3)))
    return text.count("dot_general["), text.count("conv_general_dilated[")


def test_conv_computes_in_the_chosen_form(monkeypatch):
    assert products("lax", monkeypatch) == (0, 1)
    assert products("im2col", monkeypatch) == (1, 0)
    assert products("winograd", monkeypatch) == (8, 0)  # six rows of a tile and two transforms


def chosen(table, backend, batch=128):
    found = {}
    for shape in shapes(table):
        if isinstance(shape.spec, Conv):
            x = (*shape.inputs, batch)
            found[shape.spec.name] = convolution_form(
                backend, x, shape.kernel[1:], shape.spec.stride, shape.spec.padding
            )
    return found


def test_cpu_uses_im2col_for_images_and_winograd_when_wide():
    wide = dict.fromkeys(["conv2", "conv3", "conv4", "conv5"], "winograd")
    for table in (networks.ALEXNET, networks.ALEXNET_CIFAR):
        assert chosen(table, "cpu") == {"conv1": "im2col", **wide}


def test_cpu_uses_im2col_for_narrow_strided_or_padded_layers():
    x, kernel = (64, 8, 8, 128), (64, 64, 3, 3)
    assert convolution_form("cpu", x, kernel, 1, (1, 1)) == "winograd"
    assert convolution_form("cpu", x, kernel, 2, (1, 1)) == "im2col"
    assert convolution_form("cpu", x, kernel, 1, (0, 0)) == "im2col"
    assert convolution_form("cpu", x, kernel, 1, (0, 2)) == "im2col"
    assert convolution_form("cpu", (8, 8, 8, 128), (8, 8, 3, 3), 1, (1, 1)) == "im2col"
    assert convolution_form("cpu", x, kernel, 1, (1, 1), bits=64) == "winograd"
    assert convolution_form("cpu", x, (64, 64, 7, 7), 1, (3, 3)) == "im2col"


def test_cpu_uses_winograd_for_images_with_few_kernels():
    assert convolution_form("cpu", (3, 32, 32, 128), (12, 3, 5, 5), 1, (2, 2)) == "winograd"
    assert convolution_form("cpu", (3, 32, 32, 128), (24, 3, 5, 5), 1, (2, 2)) == "im2col"


def test_cpu_uses_lax_for_16_bits_except_on_images():
    assert convolution_form("cpu", (64, 8, 8, 128), (64, 64, 3, 3), 1, (1, 1), bits=16) == "lax"
    assert convolution_form("cpu", (3, 32, 32, 128), (12, 3, 5, 5), 1, (2, 2), bits=16) == "im2col"


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_an_accelerator_always_takes_the_librarys_convolution(backend):
    assert set(chosen(networks.ALEXNET, backend).values()) == {"lax"}


# --- max-pooling -----------------------------------------------------------------------------------------------------


def max_pool_numpy(x, window, stride, g=None):
    """Pool windows every `stride` pixels until one reaches the end; the first maximum receives the gradient."""
    starts = []
    for n in x.shape[1:3]:
        starts.append([0])
        while starts[-1][-1] + window < n and starts[-1][-1] + stride < n:
            starts[-1].append(starts[-1][-1] + stride)
    y, dx = np.zeros((x.shape[0], len(starts[0]), len(starts[1]), x.shape[3])), np.zeros_like(x)
    for (i, a), (j, b) in itertools.product(enumerate(starts[0]), enumerate(starts[1])):
        for c, n in itertools.product(range(x.shape[0]), range(x.shape[3])):
            seen = x[c, a : a + window, b : b + window, n]
            y[c, i, j, n] = seen.max()
            if g is not None:
                row, column = np.unravel_index(seen.argmax(), seen.shape)
                dx[c, a + row, b + column, n] += g[c, i, j, n]
    return y, dx


POOLS = [
    *[(3, 2, size) for size in [(6, 6), (7, 7), (8, 5), (3, 4), (2, 2), (1, 3)]],
    *[(2, 2, size) for size in [(6, 6), (7, 5)]],
    *[(3, 1, size) for size in [(5, 4)]],
    *[(2, 1, size) for size in [(4, 3)]],
    *[(3, 3, size) for size in [(9, 7), (8, 6)]],
    *[(2, 3, size) for size in [(8, 7), (6, 9), (5, 5)]],
    *[(1, 3, size) for size in [(7, 5)]],
]


@pytest.mark.parametrize("kind", ["distinct", "ties"])
@pytest.mark.parametrize(("window", "stride", "size"), POOLS)
def test_max_pooling_and_its_gradient(window, stride, size, kind):
    x = normal(2, *size, 3)
    if kind == "ties":
        x = np.maximum(np.rint(x), 0)  # ties, as after a ReLU: zeros, ones and twos
    part = MaxPool(window, stride)
    g = normal(*max_pool_numpy(x, window, stride)[0].shape, seed=1)
    expected, expected_dx = max_pool_numpy(x, window, stride, g)
    y, (dx,) = value_and_pullback(lambda x: layers.max_pool(x, part), g, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-12)


def test_equal_values_send_the_gradient_to_the_first_of_them():
    dx = jax.grad(lambda x: layers.max_pool(x, MaxPool(3, 2)).sum())(np.zeros((1, 5, 5, 1)))[0, :, :, 0]
    expected = np.zeros((5, 5))
    expected[::2, ::2][:2, :2] = 1  # the corner of each of the four windows
    np.testing.assert_array_equal(dx, expected)


def test_negative_maps_are_not_pooled_with_the_padding():
    y = layers.max_pool(np.full((1, 4, 4, 1), -7.0), MaxPool(3, 2))
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), -7.0))


def averaged_numpy(x, part):
    """Return the mean over the pixels of each window that are inside the image."""
    out = [pooled(n, part) for n in x.shape[1:3]]
    y = np.zeros((x.shape[0], *out, x.shape[3]))
    for i, j in np.ndindex(*out):
        top, left = i * part.stride, j * part.stride
        y[:, i, j] = x[:, top : top + part.window, left : left + part.window].mean((1, 2))
    return y


@pytest.mark.parametrize("part", [AvgPool(), AvgPool(2, 2), AvgPool(3, 1), AvgPool(3, 3), AvgPool(2, 3)], ids=str)
@pytest.mark.parametrize("size", [(32, 32), (8, 7), (6, 5), (3, 4)])
def test_average_pooling_and_its_gradient(part, size):
    x = normal(2, *size, 3)
    g = normal(*averaged_numpy(x, part).shape, seed=1)
    y, (dx,) = value_and_pullback(lambda x: layers.avg_pool(x, part), g, x)
    np.testing.assert_allclose(y, averaged_numpy(x, part), rtol=1e-12, atol=1e-14)
    direction = normal(*x.shape, seed=2)  # linear, so one direction of the gradient is a difference of two values
    np.testing.assert_allclose((dx * direction).sum(), (g * averaged_numpy(direction, part)).sum(), rtol=1e-11)


# --- local layers ----------------------------------------------------------------------------------------------------


def local_numpy(x, kernel, stride, padding):
    """Compute each output pixel separately with its own kernel, [out, in, k, k, height, width]."""
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    out, _, size, _, height, width = kernel.shape
    y = np.zeros((out, height, width, x.shape[3]))
    for i, j in np.ndindex(height, width):
        seen = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        y[:, i, j] = np.einsum("oiab,iabn->on", kernel[..., i, j], seen)
    return y


@pytest.mark.parametrize(("stride", "padding"), [(1, (1, 1)), (1, (0, 0)), (2, (0, 1))])
def test_a_local_layer_and_its_gradients(stride, padding):
    x = normal(3, 6, 5, 2)
    height, width = ((n + sum(padding) - 3) // stride + 1 for n in (6, 5))
    kernel = normal(4, 3, 3, 3, height, width, seed=1)
    g = normal(4, height, width, 2, seed=2)
    y, (dx, dk) = value_and_pullback(lambda x, k: layers.local(x, k, stride, padding), g, x, kernel)
    np.testing.assert_allclose(y, local_numpy(x, kernel, stride, padding), rtol=1e-12, atol=1e-12)
    step, other = normal(*x.shape, seed=3), normal(*kernel.shape, seed=4)
    np.testing.assert_allclose((dx * step).sum(), (g * local_numpy(step, kernel, stride, padding)).sum(), rtol=1e-10)
    np.testing.assert_allclose((dk * other).sum(), (g * local_numpy(x, other, stride, padding)).sum(), rtol=1e-10)


def test_a_local_layer_of_equal_kernels_is_a_convolution():
    x, kernel = normal(3, 6, 5, 2), normal(4, 3, 3, 3, seed=1)
    everywhere = np.broadcast_to(kernel[..., None, None], (*kernel.shape, 6, 5))
    shared = layers.conv(x, kernel, 1, (1, 1))
    np.testing.assert_allclose(layers.local(x, everywhere, 1, (1, 1)), shared, rtol=1e-12, atol=1e-12)


# --- normalization ---------------------------------------------------------------------------------------------------


def normalized_numpy(x, part):
    """Return x / (k + alpha * sum)^beta, computed element by element."""
    half, y = part.size // 2, np.zeros_like(x)
    for c, i, j in np.ndindex(x.shape[:3]):
        if isinstance(part, LRN):
            seen = x[max(0, c - half) : c + half + 1, i, j]
        else:
            seen = x[c, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1].reshape(-1, x.shape[3])
        y[c, i, j] = x[c, i, j] / (part.k + part.alpha * (seen**2).sum(0)) ** part.beta
    return y


def normalized_plain(x, part):
    """Return the same, computed by `reduce_window` and a power, whose gradient jax derives."""
    window = (part.size, 1, 1, 1) if isinstance(part, LRN) else (1, part.size, part.size, 1)
    total = lax.reduce_window(x**2, np.zeros(()), lax.add, window, (1,) * 4, [(n // 2, n // 2) for n in window])
    return x * (part.k + part.alpha * total) ** -part.beta


@pytest.mark.parametrize(
    "part",
    [
        LRN(),
        LRN(alpha=1e-4 / 5),
        LRN(size=9, k=1.0, alpha=0.001 / 9),
        LRN(size=3, k=1.0, alpha=0.5, beta=0.5),
        LRN(size=1, beta=1.0),
        MapNorm(),
        MapNorm(size=3, alpha=5e-5 / 9),
        MapNorm(size=3, alpha=0.02, beta=0.6),
    ],
)
@pytest.mark.parametrize("shape", [(7, 4, 5, 2), (2, 3, 1, 1), (1, 6, 6, 1)])
def test_normalization_and_its_gradient(part, shape):
    x, g = 100 * normal(*shape), normal(*shape, seed=1)
    y, (dx,) = value_and_pullback(lambda x: layers.lrn(x, part), g, x)
    np.testing.assert_allclose(y, normalized_numpy(x, part), rtol=1e-12)
    _, (expected,) = value_and_pullback(lambda x: normalized_plain(x, part), g, x)
    np.testing.assert_allclose(dx, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("part", [MaxPool(), LRN(size=3, alpha=0.1), MapNorm(alpha=0.1)])
def test_columns_are_pooled_and_normalized_each_for_itself(part):
    function = layers.max_pool if isinstance(part, MaxPool) else layers.lrn
    x = normal(2, 5, 7, 6, 3)
    g = normal(*function(x, part).shape, seed=1)
    y, (dx,) = value_and_pullback(lambda x: function(x, part), g, x)
    for column in range(2):
        own, (own_dx,) = value_and_pullback(lambda x: function(x, part), g[column], x[column])
        np.testing.assert_allclose(y[column], own, rtol=1e-14)
        np.testing.assert_allclose(dx[column], own_dx, rtol=1e-12)


@pytest.mark.parametrize(
    ("part", "centre", "edge"),
    [
        (networks.ALEXNET.layers[0].after[1], 23.2368, 29.9070),
        (networks.ALEXNET_ORIGINAL.layers[0].after[0], 43.8691, 48.8394),
        (LRN(k=1.0, alpha=1e-4 / 5), 59.4604, 70.2927),  # Caffe's
    ],
    ids=["paper", "original", "caffe"],
)
def test_lrn_of_a_constant_100_over_96_maps(part, centre, edge):
    y = np.asarray(layers.lrn(np.full((96, 1, 1, 1), 100.0), part)).ravel()
    assert (round(float(y[48]), 4), round(float(y[0]), 4)) == (centre, edge)


def test_the_papers_relu_comes_before_its_lrn():
    """For neighbouring inputs -100 and 1, the second output is 1 / 2.0001^.75; in the other order it would be .4387."""
    conv1 = dataclasses.replace(networks.ALEXNET.layers[0], maps=2, kernel=1, stride=1, padding=(0, 0))
    table = Table("two pixels", (1, 1, 2), 1, (conv1,))
    parameters = {"conv1": {"kernel": np.eye(2).reshape(1, 2, 2, 1, 1), "bias": np.zeros((1, 2))}}
    placement = Columns.over()
    specs, out = (placement.parameter_specs(table), columns.BATCH_LAST), P("column", None, None, None, "data")
    run = placement.per_device(functools.partial(placement.forward, table), specs, out)
    y = run(parameters, np.array([-100.0, 1.0]).reshape(2, 1, 1, 1))
    assert round(float(y.ravel()[1]), 4) == 0.5946


# --- other layers ----------------------------------------------------------------------------------------------------


def test_relu_and_its_gradient_which_is_zero_at_zero():
    x = np.array([-2.0, 0.0, 3.0])
    y, (dx,) = value_and_pullback(layers.relu, np.full(3, 5.0), x)
    np.testing.assert_array_equal(y, [0, 0, 3])
    np.testing.assert_array_equal(dx, [0, 0, 5])


def test_tanh_and_its_gradient():
    x = np.array([-2.0, 0.0, 0.5])
    y, (dx,) = value_and_pullback(layers.tanh, np.ones(3), x)
    np.testing.assert_allclose(y, np.tanh(x), rtol=1e-14)
    np.testing.assert_allclose(dx, 1 / np.cosh(x) ** 2, rtol=1e-12)


def test_dense_is_weights_times_inputs():
    x, weights, g = normal(3, 4), normal(2, 3, seed=1), normal(2, 4, seed=2)
    y, (dx, dw) = value_and_pullback(layers.dense, g, x, weights)
    np.testing.assert_allclose(y, weights @ x, rtol=1e-12)
    np.testing.assert_allclose(dx, weights.T @ g, rtol=1e-12)
    np.testing.assert_allclose(dw, g @ x.T, rtol=1e-12)


def test_dropout_zeroes_in_training_and_scales_at_test():
    x, mask = np.array([1.0, 2.0, 3.0]), np.array([True, False, True])
    y, (dx,) = value_and_pullback(lambda x: layers.dropout(x, Dropout(0.2), mask), np.ones(3), x)
    np.testing.assert_array_equal(y, [1, 0, 3])
    np.testing.assert_array_equal(dx, [1, 0, 1])
    np.testing.assert_allclose(layers.dropout(x, Dropout(0.2), None), [0.8, 1.6, 2.4], rtol=1e-12)


def test_inverted_dropout_scales_in_training_only():
    x, mask, part = np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), Dropout(0.2, inverted=True)
    y, (dx,) = value_and_pullback(lambda x: layers.dropout(x, part, mask), np.ones(3), x)
    np.testing.assert_allclose(y, [1.25, 0, 3.75], rtol=1e-12)
    np.testing.assert_allclose(dx, [1.25, 0, 1.25], rtol=1e-12)
    np.testing.assert_array_equal(layers.dropout(x, part, None), x)


@pytest.mark.parametrize("part", [Dropout(0.5), Dropout(0.2), Dropout(0.2, inverted=True)], ids=str)
def test_training_passes_average_to_the_test_output(part, narrow):
    table = narrow(dropout=part.probability)
    mask = np.concatenate(dropout_masks(table, jax.random.key(0), 1000)["fc6"])  # [units, passes]
    x, weights = normal(len(mask)), normal(5, len(mask), seed=1)
    passes = layers.dense(layers.dropout(jnp.broadcast_to(x[:, None], mask.shape), part, mask), weights)
    test = layers.dense(layers.dropout(x[:, None], part, None), weights)[:, 0]
    error = passes.std(1) / np.sqrt(1000)
    assert (np.abs(passes.mean(1) - test) < 5 * error).all()
    assert (error < 0.1 * np.abs(weights).sum(1)).all()  # distinguishes scaling by p from scaling by 1 - p


def test_winograd_takes_what_the_form_hands_it():
    """`convolution_form` chooses Winograd only for stride 1, odd kernels and equal padding, as `winograd` requires."""
    x, kernel = normal(40, 5, 6, 2), normal(40, 40, 3, 3, seed=1)
    assert convolution_form("cpu", x.shape, kernel.shape, 1, (1, 1)) == "winograd"
    np.testing.assert_array_equal(
        jax.jit(lambda x, k: layers.conv(x, k, 1, (1, 1)))(x, kernel), jax.jit(winograd)(x, kernel)
    )
