"""Convolution on one device, in the form that is fastest for its shape, and convolution with unshared weights.

Activations are [maps, height, width, batch], kernels [out, in, kh, kw]. `convolution_form` chooses the form of a convolution;
the Winograd form is in winograd.py.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.network.winograd import weight_gradient, winograd

CHWN = ("CHWN", "OIHW", "CHWN")


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> jax.Array:
    """Cross-correlate x [in, height, width, batch] with kernel [out, in, k, k]; padding (before, after) on both axes."""
    bits = jnp.finfo(x.dtype).bits
    form = convolution_form(jax.default_backend(), x.shape, kernel.shape, stride, padding, bits)
    if form == "winograd":
        return winograd(x, kernel)
    if form == "im2col":
        return im2col(x, kernel, stride, padding)
    return lax.conv_general_dilated(x, kernel, (stride, stride), [padding, padding], dimension_numbers=CHWN)


def convolution_form(
    backend: str, x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: tuple[int, int], bits: int = 32
) -> Literal["lax", "im2col", "winograd"]:
    """Return the fastest form of a convolution with the shapes x [in, height, width, batch] and kernel [out, in, k, k].

    On accelerators always lax, since cuDNN chooses among the forms itself. On a CPU, the gradients of XLA's own convolution are
    slow. Winograd has the fewest operations, but its products are too short for the three channels of an image unless there are
    few kernels too; im2col compiles faster and fits every shape. 16-bit types use lax instead of Winograd, whose transforms
    would lose most of the eight bits of bfloat16.
    """
    out_maps, in_maps, size, _ = kernel
    image = in_maps <= 4
    if backend != "cpu" or (bits < 32 and not image):
        return "lax"
    same = stride == 1 and size in (3, 5) and padding == (size // 2, size // 2) and min(x[1:3]) > 1
    # Multiplications per tap and image; conv2 and conv5 of alexnet_digits are just above this number.
    worth_compiling = in_maps * out_maps * x[1] * x[2] >= 24_000
    return "winograd" if same and worth_compiling and bits >= 32 and (not image or out_maps <= 16) else "im2col"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def im2col(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Compute `conv` as one matrix product: kernel [out, k*k*in] times patches [k*k*in, height*width*batch]."""
    return _im2col_forward(x, kernel, stride, padding)[0]


def _im2col_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    patches = _patches(x, kernel.shape[-1], stride, padding)
    flat = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    rows = patches.reshape(flat.shape[1], -1)
    return (flat @ rows).reshape(len(kernel), *patches.shape[1:]), (x, flat, rows)


def _im2col_backward(
    stride: int, padding: tuple[int, int], saved: tuple[jax.Array, jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradient of the patches is added up in place of each pixel; if x is an image, XLA removes this part."""
    x, flat, rows = saved
    out_maps, in_maps, size = len(flat), len(x), math.isqrt(flat.shape[1] // len(x))
    g = g.reshape(out_maps, -1)
    dkernel = weight_gradient(g, rows).reshape(out_maps, size, size, in_maps).transpose(0, 3, 1, 2)
    patches, pull = jax.vjp(lambda x: _patches(x, size, stride, padding), x)
    (dx,) = pull((lax.optimization_barrier(flat.T) @ g).reshape(patches.shape))
    return dx, dkernel


im2col.defvjp(_im2col_forward, _im2col_backward)


def local(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Convolve with unshared weights (the original program's "local" layers), as one matrix product per output pixel.

    x [in, height, width, batch], kernel [out, in, k, k, output height, output width] -> [out, height, width, batch].
    """
    patches = _patches(x, kernel.shape[2], stride, padding)
    flat = kernel.transpose(0, 2, 3, 1, 4, 5).reshape(len(kernel), -1, *kernel.shape[4:])
    return jnp.einsum("okhw,khwb->ohwb", flat, patches)


def _patches(x: jax.Array, size: int, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Return the inputs of each output pixel: [k*k*in, height, width, batch], in the order kernel row, kernel column, map."""
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    across = jnp.concatenate([x[:, :, j : j + columns : stride] for j in range(size)])
    return jnp.concatenate([across[:, i : i + rows : stride] for i in range(size)])
