"""Convolution with fewer multiplications (Winograd; Lavin and Gray, 2015), for stride 1, 3x3 or 5x5 kernels and 'same' padding.

F(m, k) computes m outputs of a correlation with k taps from n = m + k - 1 inputs with n multiplications instead of m * k:
y = A^T [(G w) * (B^T x)]. Here x and y are rows of pixels and w the rows of a kernel, and each of the n multiplications is a
correlation along the columns, computed as one matrix product over (column tap, input map). With m = 4 a 3x3 kernel needs
half the multiplications and a 5x5 kernel two fifths, for a rounding error a few times that of the plain form.

Transforming both directions would save more multiplications but take longer: the transformed images would be 2.25 to 9 times
as large instead of 1.5 to 2, and the products, over the input maps alone, too short to run at full speed.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Matrix = tuple[tuple[float, ...], ...]
T = TypeVar("T")

OUTPUTS = 4
"""Output rows per tile. 2 saves little; 6 does not divide 8 or 16 rows and has larger rounding errors."""


@functools.cache
def cook_toom(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return B^T [n, n], G [n, r] and A^T [m, n] of F(m, r), computed exactly from n - 1 small points and infinity.

    Polynomials are multiplied by evaluation, pointwise products and interpolation (V^-1 for the Vandermonde matrix V of the
    points); correlation is the transpose. Denominators of B^T are moved to G, so that images are multiplied by small integers.
    """
    n = m + r - 1
    if n > 8:
        raise ValueError(f"F({m}, {r}) needs {n - 1} points; only seven with a small rounding error are known")
    points = [Fraction(p) for p in (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))][: n - 1]

    def vandermonde(width: int) -> list[list[Fraction]]:
        finite = [[p**j for j in range(width)] for p in points]
        return [*finite, [Fraction(0)] * (width - 1) + [Fraction(1)]]

    g, a = vandermonde(r), vandermonde(m)
    bt = [list(column) for column in zip(*_inverse(vandermonde(n)), strict=True)]
    for i in range(n):
        scale = _common_denominator(bt[i])
        bt[i], g[i] = [x * scale for x in bt[i]], [x / scale for x in g[i]]
    return _floats(bt), _floats(g), _floats(list(zip(*a, strict=True)))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Return the inverse, by Gauss-Jordan elimination in exact fractions."""
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(q for q in range(i, n) if rows[q][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for q in range(n):
            if q != i:
                rows[q] = [x - rows[q][i] * y for x, y in zip(rows[q], rows[i], strict=True)]
    return [row[n:] for row in rows]


def _common_denominator(row: Sequence[Fraction]) -> int:
    scale = 1
    for x in row:
        scale *= (x * scale).denominator
    return scale


def _floats(matrix: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(float(x) for x in row) for row in matrix)


def combine(matrix: Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Return matrix @ parts for a small constant matrix and a list of arrays; zeros and ones cost nothing."""
    out = []
    for row in matrix:
        terms = [p if c == 1 else -p if c == -1 else c * p for c, p in zip(row, parts, strict=True) if c]
        out.append(sum(terms[1:], terms[0]))
    return out


@jax.custom_vjp
def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve x [in, height, width, batch] with kernel [out, in, k, k], k = 3 or 5, to [out, height, width, batch].

    The gradient is written by hand, as the transpose of each step. XLA fuses the last steps of the derived one into a loop
    that recomputes the same values for every tap, two thirds of the layer's time. Matrix products prevent such fusion, so
    the transforms of images are written as products (`_times`).
    """
    return _forward(x, kernel)[0]


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, list[jax.Array]]]:
    _, _, at = cook_toom(OUTPUTS, kernel.shape[-1])
    patches = [_patches(row, kernel.shape[-1]) for row in _transformed_rows(x, kernel.shape[-1])]
    products = [w @ p for w, p in zip(_transformed_kernels(kernel), patches, strict=True)]
    rows = [r.reshape(len(kernel), -1, *x.shape[2:]) for r in combine(at, products)]
    return _from_tiles(rows)[:, : x.shape[1]], (kernel, patches)


def _backward(saved: tuple[jax.Array, list[jax.Array]], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    kernel, patches = saved
    out_maps, in_maps, k, _ = kernel.shape
    _, g, at = cook_toom(OUTPUTS, k)
    height = dy.shape[1]
    dy = jnp.pad(dy, ((0, 0), (0, -height % OUTPUTS), (0, 0), (0, 0)))
    rows = combine(_transpose(at), [dy[:, i::OUTPUTS] for i in range(OUTPUTS)])
    products = [row.reshape(out_maps, -1) for row in rows]
    kernels = jnp.stack([weight_gradient(d, p) for d, p in zip(products, patches, strict=True)])
    dkernel = _times(_transpose(g), kernels).reshape(k, out_maps, k, in_maps).transpose(1, 3, 0, 2)
    # The barrier forces the transpose into memory: XLA multiplies by an implicit transpose at half the speed.
    turned = lax.optimization_barrier(_transformed_kernels(kernel).transpose(0, 2, 1))
    shape = (k, in_maps, -1, *dy.shape[2:])
    rows = [_sum_patches((w @ d).reshape(shape)) for w, d in zip(turned, products, strict=True)]
    return _sum_rows(rows, k)[:, :height], dkernel


winograd.defvjp(_forward, _backward)


def weight_gradient(g: jax.Array, inputs: jax.Array) -> jax.Array:
    """Return g [out, pixels] @ inputs [in, pixels]^T: [out, in].

    XLA transposes the second matrix of such a product, so the smaller of the two has to be the second; the barrier keeps XLA
    from exchanging them again.
    """
    if len(inputs) <= len(g):
        return g @ inputs.T
    return lax.optimization_barrier(inputs @ g.T).T


def _transformed_kernels(kernel: jax.Array) -> jax.Array:
    """Return G w of a kernel [out, in, k, k]: [n, out, k * in]."""
    out_maps, _, k, _ = kernel.shape
    _, g, _ = cook_toom(OUTPUTS, k)
    return _times(g, kernel.transpose(2, 0, 3, 1).reshape(k, out_maps, -1))


def _transformed_rows(x: jax.Array, k: int) -> jax.Array:
    """Return B^T x of images [maps, height, width, batch]: [n, maps, tiles, width, batch]. Tiles overlap by k - 1 rows."""
    bt, _, _ = cook_toom(OUTPUTS, k)
    tiles = -(-x.shape[1] // OUTPUTS)
    x = jnp.pad(x, ((0, 0), (k // 2, k // 2 + tiles * OUTPUTS - x.shape[1]), (0, 0), (0, 0)))
    last = OUTPUTS * (tiles - 1) + 1
    return _times(bt, jnp.stack([x[:, i : i + last : OUTPUTS] for i in range(len(bt))]))


def _sum_rows(rows: list[jax.Array], k: int) -> jax.Array:
    """Apply the transpose of `_transformed_rows`: [maps, height or more, width, batch]."""
    bt, _, _ = cook_toom(OUTPUTS, k)
    over = -(-len(bt) // OUTPUTS) - 1  # tiles that a row may extend beyond its own
    planes: list[jax.Array] = []
    for i, row in enumerate(_times(_transpose(bt), jnp.stack(rows))):
        tile, offset = divmod(i, OUTPUTS)
        row = jnp.pad(row, ((0, 0), (tile, over - tile), (0, 0), (0, 0)))
        if tile:
            planes[offset] += row
        else:
            planes.append(row)
    return _from_tiles(planes)[:, k // 2 :]


def _times(matrix: Matrix, parts: jax.Array) -> jax.Array:
    """Return matrix [q, p] @ parts [p, ...] as one matrix product, which reads every part once; a loop would read it q times."""
    product = jnp.asarray(matrix, parts.dtype) @ parts.reshape(len(parts), -1)
    return product.reshape(-1, *parts.shape[1:])


def _from_tiles(rows: list[jax.Array]) -> jax.Array:
    """Interleave rows: row i of every tile, [maps, tiles, width, batch], to images [maps, height, width, batch]."""
    maps, tiles, width, batch = rows[0].shape
    return jnp.stack(rows, axis=2).reshape(maps, tiles * len(rows), width, batch)


def _patches(row: jax.Array, k: int) -> jax.Array:
    """Stack k shifted copies of each row: [maps, tiles, width, batch] -> [k * maps, tiles * width * batch]."""
    width = row.shape[2]
    row = jnp.pad(row, ((0, 0), (0, 0), (k // 2, k // 2), (0, 0)))
    return jnp.concatenate([row[:, :, j : j + width] for j in range(k)]).reshape(k * len(row), -1)


def _sum_patches(patches: jax.Array) -> jax.Array:
    """Apply the transpose of `_patches`: [k, maps, tiles, width, batch] -> [maps, tiles, width, batch]."""
    k, width = len(patches), patches.shape[3]
    padded = jnp.pad(patches, ((0, 0), (0, 0), (0, 0), (k // 2, k // 2), (0, 0)))
    views = [padded[j, :, :, k - 1 - j : k - 1 - j + width] for j in range(k)]
    return sum(views[1:], views[0])


def _transpose(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
