"""What ONE column computes, layer kind by layer kind. Nothing here knows of columns, devices or parameters' places.

Activations are [maps, height, width, batch], kernels [out, in, kh, kw], the original program's own layout. Each function has
one plain definition in its docstring; where a CPU needs another form to be fast, the choice is made in `convolution_form`,
and custom gradients stand beside the layer they belong to.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.table import LRN, MapNorm, MaxPool, pooled
from alexnet_jax.winograd import winograd

CHWN = ("CHWN", "OIHW", "CHWN")


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> jax.Array:
    """Cross-correlation of x [in, height, width, batch] with kernel [out, in, k, k]; padding (before, after) on both axes."""
    form = convolution_form(jax.default_backend(), x.shape, kernel.shape, stride, padding)
    if form == "winograd":
        return winograd(x, kernel)
    if form == "im2col":
        return im2col(x, kernel, stride, padding)
    return lax.conv_general_dilated(x, kernel, (stride, stride), [padding, padding], dimension_numbers=CHWN)


def convolution_form(
    backend: str, x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: tuple[int, int]
) -> Literal["lax", "im2col", "winograd"]:
    """The one place where a form is chosen, from shapes x [in, h, w, batch] and kernel [out, in, k, k].

    Off the CPU always lax: cuDNN knows all of this. On a CPU, XLA's forward convolution runs at the speed of a matrix
    product but its gradients at a third of it: an image's three channels make im2col cheap, and wide layers of stride 1
    gain from Winograd. Narrow layers stay plain, since there the transforms cost more than they save.
    """
    out_maps, in_maps, size, _ = kernel
    if backend != "cpu":
        return "lax"
    if in_maps <= 4:
        return "im2col"
    same = stride == 1 and size in (3, 5) and padding == (size // 2, size // 2) and min(x[1:3]) > 1
    return "winograd" if same and in_maps * out_maps >= 24 * 64 else "lax"


def im2col(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """The same convolution as one matrix product: kernel [out, k*k*in] times patches [k*k*in, height*width*batch]."""
    out_maps, _, size, _ = kernel.shape
    batch = x.shape[-1]
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    patches = jnp.concatenate(
        [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    )
    flat = kernel.transpose(0, 2, 3, 1).reshape(out_maps, -1)
    return (flat @ patches.reshape(flat.shape[1], -1)).reshape(out_maps, height, width, batch)


def dense(x: jax.Array, weights: jax.Array) -> jax.Array:
    """weights [out, in] times x [in, batch]."""
    return weights @ x


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with gradient 0 at 0."""
    return jax.nn.relu(x)


def dropout(x: jax.Array, probability: float, mask: jax.Array | None) -> jax.Array:
    """Paper, section 4.2. With a mask (training): x where it is true, else 0. Without (test): x * (1 - probability)."""
    return x * (1 - probability) if mask is None else jnp.where(mask, x, 0)


# --- max-pooling -----------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, part: MaxPool) -> jax.Array:
    """Maximum over window x window every stride pixels of x [maps, height, width, batch], in ceil mode.

    Written as a maximum of window^2 strided views, since the gradient XLA derives for `reduce_window` is seven times slower
    on a CPU; ties send the gradient to the first of the equal values, as that one does.
    """
    return functools.reduce(jnp.maximum, _views(x, part).values())


def _views(x: jax.Array, part: MaxPool) -> dict[tuple[int, int], jax.Array]:
    """{(i, j): what stands in row i and column j of every window}, row by row, from x padded with -inf."""
    height, width = (pooled(n, part) for n in x.shape[1:3])
    hang = [
        max(0, part.stride * (out - 1) + part.window - n) for out, n in zip((height, width), x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), (0, hang[0]), (0, hang[1]), (0, 0)), constant_values=-jnp.inf)
    step, window = part.stride, range(part.window)
    rows, columns = step * (height - 1) + 1, step * (width - 1) + 1
    return {(i, j): x[:, i : i + rows : step, j : j + columns : step] for i in window for j in window}


def _max_pool_forward(x: jax.Array, part: MaxPool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y: jax.Array = max_pool(x, part)
    return y, (x, y)


def _max_pool_backward(part: MaxPool, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = saved
    taken, gradients = jnp.zeros(y.shape, bool), {}
    for place, view in _views(x, part).items():
        hit = (view == y) & ~taken
        gradients[place] = jnp.where(hit, g, 0)
        taken |= hit
    return (_interleave(gradients, part, x.shape),)


def _interleave(gradients: dict[tuple[int, int], jax.Array], part: MaxPool, shape: tuple[int, ...]) -> jax.Array:
    """Add each view's gradient where that view was cut out: pixels of equal (row, column) modulo stride form one plane."""
    s = part.stride
    reach = [out + (part.window - 1) // s for out in next(iter(gradients.values())).shape[1:3]]

    def plane(row: int, column: int) -> jax.Array:
        shifted = []
        for (i, j), g in gradients.items():
            if (i % s, j % s) == (row, column):
                before = (i // s, j // s)
                edges = [(b, full - b - n) for b, full, n in zip(before, reach, g.shape[1:3], strict=True)]
                shifted.append(jnp.pad(g, ((0, 0), *edges, (0, 0))))
        return sum(shifted[1:], shifted[0]) if shifted else jnp.zeros((shape[0], *reach, shape[3]), g.dtype)

    rows = [jnp.stack([plane(row, column) for column in range(s)], 3) for row in range(s)]
    full = jnp.stack(rows, 2).reshape(shape[0], reach[0] * s, reach[1] * s, shape[3])
    missing = [max(0, n - m) for n, m in zip(shape[1:3], full.shape[1:3], strict=True)]
    full = jnp.pad(full, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))  # stride > window leaves pixels unseen
    return full[:, : shape[1], : shape[2]]


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


# --- normalization ---------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def lrn(x: jax.Array, part: LRN | MapNorm) -> jax.Array:
    """x / (k + alpha * S(x^2))^beta for x [maps, height, width, batch], paper section 3.3.

    S sums over `size` neighbouring maps (LRN) or over a size x size window of each map (MapNorm), fewer at the edges. The
    gradient is written out because S is its own transpose: dx = g d^-beta - 2 alpha beta x S(g x d^-beta / d).
    """
    return x * _power(_denominator(x, part), part.beta)


def _denominator(x: jax.Array, part: LRN | MapNorm) -> jax.Array:
    return part.k + part.alpha * _window_sum(x * x, part)


def _window_sum(s: jax.Array, part: LRN | MapNorm) -> jax.Array:
    """The sum over the window centred on each element; an odd size, so that the window is symmetric."""
    for axis in (0,) if isinstance(part, LRN) else (1, 2):
        half, n = part.size // 2, s.shape[axis]
        padded = jnp.pad(s, [(half, half) if i == axis else (0, 0) for i in range(s.ndim)])
        views = [lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(part.size)]
        s = sum(views[1:], views[0])
    return s


def _power(d: jax.Array, beta: float) -> jax.Array:
    """d ** -beta; through two square roots for the paper's 0.75, where a general power would dominate the layer."""
    if math.isclose(beta, 0.75):
        r = lax.rsqrt(d)
        return r * jnp.sqrt(r)
    return d**-beta


def _lrn_forward(x: jax.Array, part: LRN | MapNorm) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    d = _denominator(x, part)
    return x * _power(d, part.beta), (x, d)


def _lrn_backward(part: LRN | MapNorm, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, d = saved
    q = _power(d, part.beta)
    return (g * q - 2 * part.alpha * part.beta * x * _window_sum(g * x * q / d, part),)


lrn.defvjp(_lrn_forward, _lrn_backward)
