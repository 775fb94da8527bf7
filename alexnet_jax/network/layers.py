"""The computation of each kind of layer and part on one device; nothing here depends on meshes or shardings.

Activations are [maps, height, width, batch], kernels [out, in, kh, kw], the layout of the original program. Docstrings define
what is computed, and custom gradients follow their layer. Convolutions are in convolution.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.network import table
from alexnet_jax.network.convolution import conv, local
from alexnet_jax.network.table import LRN, AvgPool, Conv, Dropout, Layer, MapNorm, MaxPool, Pool, pooled


def linear_columns(spec: Layer, x: jax.Array, kernel: jax.Array, shared: bool) -> jax.Array:
    """Apply the kernels of several columns, [columns, out, in, ...]: [columns, out, ..., batch].

    shared: every column sees the same x [in, ..., batch], so all are computed as one layer. Otherwise x is [columns, in, ...,
    batch].
    """
    if not shared:
        return jnp.stack([linear(spec, own, weights) for own, weights in zip(x, kernel, strict=True)])
    columns, out, *rest = kernel.shape
    sums = linear(spec, x, kernel.reshape(columns * out, *rest))
    return sums.reshape(columns, out, *sums.shape[1:])


def linear(spec: Layer, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Apply one column's kernel [out, in, ...] to x [in, ..., batch], without bias: [out, ..., batch]."""
    if isinstance(spec, Conv):
        convolve = local if spec.local else conv
        return convolve(x, kernel, spec.stride, spec.padding)
    return dense(x.reshape(-1, x.shape[-1]), kernel)


def apply_part(part: table.Part, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Apply one part that follows the sums of a layer to x [..., maps, height, width, batch] or [..., units, batch]."""
    match part:
        case MaxPool():
            return max_pool(x, part)
        case AvgPool():
            return avg_pool(x, part)
        case LRN() | MapNorm():
            return lrn(x, part)
        case Dropout():
            return dropout(x, part, None if mask is None else mask.reshape(x.shape))
        case table.Tanh():
            return tanh(x)
        case _:
            return relu(x)


@jax.custom_vjp
def dense(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Return weights [out, in] @ x [in, batch], accumulated in at least 32 bits.

    The gradient with respect to x is computed as (g^T weights)^T instead of weights^T g, because on a CPU XLA multiplies by
    the transpose of a large matrix at half the speed.
    """
    return _dense_forward(x, weights)[0]


def _dense_forward(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.matmul(weights, x, preferred_element_type=_wide_type(x)), (x, weights)


def _dense_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weights = saved
    g = g.astype(x.dtype)
    turned = lax.optimization_barrier(g.T)  # otherwise XLA undoes the transposition
    return lax.optimization_barrier(turned @ weights).T, g @ x.T


dense.defvjp(_dense_forward, _dense_backward)


def widened(x: jax.Array) -> jax.Array:
    """Cast x to at least 32 bits."""
    return x.astype(_wide_type(x))


def _wide_type(x: jax.Array) -> jnp.dtype:
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.dtype("float32")


def relu(x: jax.Array) -> jax.Array:
    """Return max(x, 0), with gradient 0 at 0."""
    return jax.nn.relu(x)


def tanh(x: jax.Array) -> jax.Array:
    """Return the hyperbolic tangent of x."""
    return jnp.tanh(x)


def dropout(x: jax.Array, part: Dropout, mask: jax.Array | None) -> jax.Array:
    """Apply dropout (section 4.2): in training x where the mask is True, else 0; at test (no mask) x * (1 - probability).

    Inverted dropout divides by 1 - probability in training and returns x at test.
    """
    kept = 1 - part.probability
    if mask is None:
        return x if part.inverted else x * kept
    return jnp.where(mask, x / kept if part.inverted else x, 0)


# --- pooling ---------------------------------------------------------------------------------------------------------


def max_pool(x: jax.Array, part: MaxPool) -> jax.Array:
    """Return the maximum over window x window every stride pixels of x [..., height, width, batch], in ceil mode.

    Rows are reduced first. Among equal values the first in row-major order receives the gradient.
    """
    return _max_along(_max_along(x, -2, part), -3, part)


def avg_pool(x: jax.Array, part: AvgPool) -> jax.Array:
    """Return the mean over window x window every stride pixels of x [..., height, width, batch], in ceil mode.

    The sum of a window is divided by the number of its pixels inside the image, as in the original program.
    """
    for axis in (-2, -3):
        x = _mean_along(x, axis % x.ndim, part)
    return x


def _mean_along(x: jax.Array, axis: int, part: AvgPool) -> jax.Array:
    size, out = x.shape[axis], pooled(x.shape[axis], part)
    padded = _pad(x, axis, 0, _overhang(size, part))
    reach = part.stride * (out - 1) + 1
    total = sum(lax.slice_in_dim(padded, i, i + reach, part.stride, axis) for i in range(part.window))
    inside = [min(part.window, size - part.stride * i) for i in range(out)]
    return total / jnp.array(inside, x.dtype).reshape(-1, *(1,) * (x.ndim - axis - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_along(x: jax.Array, axis: int, part: MaxPool) -> jax.Array:
    """Pool along one axis, counted from the end.

    XLA's gradient of `reduce_window` searches every window again; comparing with the known maximum takes a CPU a seventh of
    the time.
    """
    axis += x.ndim
    along = lambda number, otherwise: tuple(number if i == axis else otherwise for i in range(x.ndim))  # noqa: E731
    padding = along((0, _overhang(x.shape[axis], part)), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, along(part.window, 1), along(part.stride, 1), padding)


def _overhang(size: int, part: Pool) -> int:
    """Return the number of pixels by which the last window overhangs the edge."""
    return max(0, part.stride * (pooled(size, part) - 1) + part.window - size)


def _max_forward(x: jax.Array, axis: int, part: MaxPool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y: jax.Array = _max_along(x, axis, part)
    return y, (x, y)


def _max_backward(axis: int, part: MaxPool, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    """Add up gradients in one plane per offset modulo the stride, for each offset in the window; then interleave the planes."""
    x, y = saved
    axis += x.ndim
    size, out, stride = x.shape[axis], y.shape[axis], part.stride
    reach = -(-max(size, stride * (out - 1) + part.window) // stride)
    planes = [jnp.zeros((*y.shape[:axis], reach, *y.shape[axis + 1 :]), g.dtype)] * stride
    taken = jnp.zeros(y.shape, bool)
    for offset in range(min(part.window, size)):
        inside = min(out, -(-(size - offset) // stride))  # windows whose pixel at this offset is inside the image
        first = functools.partial(lax.slice_in_dim, start_index=0, limit_index=inside, axis=axis)
        pixels = lax.slice_in_dim(x, offset, offset + stride * (inside - 1) + 1, stride, axis)
        hit = (pixels == first(y)) & ~first(taken)
        taken |= _pad(hit, axis, 0, out - inside, False)
        shift = offset // stride
        planes[offset % stride] += _pad(jnp.where(hit, first(g), 0), axis, shift, reach - inside - shift)
    interleaved = jnp.stack(planes, axis + 1).reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return (lax.slice_in_dim(interleaved, 0, size, axis=axis),)


def _pad(x: jax.Array, axis: int, before: int, after: int, value: float = 0) -> jax.Array:
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)], constant_values=value)


_max_along.defvjp(_max_forward, _max_backward)


# --- normalization ---------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def lrn(x: jax.Array, part: LRN | MapNorm) -> jax.Array:
    """Return x / d^beta with d = k + alpha * S(x^2), for x [..., maps, height, width, batch] (section 3.3).

    S sums over `size` neighbouring maps (LRN) or a size x size window of each map (MapNorm), fewer at the edges. S is its own
    transpose, so the gradient is dx = g d^-beta - 2 alpha beta x S(g x d^-beta / d). Computed in at least 32 bits, because
    bfloat16 cannot resolve k + alpha for k = 2 and alpha = 1e-4.
    """
    return _lrn_forward(x, part)[0]


def _window_sum(s: jax.Array, part: LRN | MapNorm) -> jax.Array:
    """Sum over the window centred on each element; its size is odd."""
    for axis in (-4,) if isinstance(part, LRN) else (-3, -2):
        half, n, axis = part.size // 2, s.shape[axis], axis + s.ndim
        padded = _pad(s, axis, half, half)
        views = [lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(part.size)]
        s = sum(views[1:], views[0])
    return s


def _power(d: jax.Array, beta: float) -> jax.Array:
    """Return d ** -beta; for the paper's 0.75 through square roots, since a general power would dominate the layer's time."""
    return lax.rsqrt(d * jnp.sqrt(d)) if math.isclose(beta, 0.75) else d**-beta


def _lrn_forward(x: jax.Array, part: LRN | MapNorm) -> tuple[jax.Array, jax.Array]:
    wide = widened(x)
    return (wide * _power(_denominator(wide, part), part.beta)).astype(x.dtype), x


def _denominator(x: jax.Array, part: LRN | MapNorm) -> jax.Array:
    return part.k + part.alpha * _window_sum(x * x, part)


def _lrn_backward(part: LRN | MapNorm, saved: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    x = widened(saved)
    d = _denominator(x, part)  # recomputing it is faster than reading it from memory
    direct = widened(g) * _power(d, part.beta)
    dx = direct - 2 * part.alpha * part.beta * x * _window_sum(direct * x / d, part)
    return (dx.astype(saved.dtype),)


lrn.defvjp(_lrn_forward, _lrn_backward)
