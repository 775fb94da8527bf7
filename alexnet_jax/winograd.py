"""Convolution with fewer multiplications (Lavin and Gray, 2015), for stride 1, odd kernels and 'same' padding.

F(m, r) computes m outputs of a correlation with r taps from n = m + r - 1 inputs with n multiplications instead of m * r:
y = A^T [(G w) * (B^T x)]. In two dimensions the images are cut into overlapping n x n tiles; each of the n * n positions of
the transformed tiles is one ordinary matrix product over the input maps. With m = 2 a 3x3 kernel needs 16 products instead
of 36 and a 5x5 one 36 instead of 100, for a rounding error a few times that of the plain form.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

import jax
import jax.numpy as jnp

Matrix = tuple[tuple[float, ...], ...]
T = TypeVar("T")

OUTPUTS = 2
"""Outputs per tile and axis. 4 saves more products but needs a gradient of its own and gains nothing in a whole step."""


@functools.cache
def cook_toom(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """B^T [n, n], G [n, r] and A^T [m, n] of F(m, r), by evaluation at n - 1 small points and at infinity, exactly.

    A polynomial product is evaluated, multiplied pointwise and interpolated back (V^-1 for the Vandermonde matrix V of the
    points); the correlation is its transpose. Denominators of B^T are moved into G, so that images see small integers.
    """
    n = m + r - 1
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
    """Gauss-Jordan elimination in exact fractions."""
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
    """matrix @ parts for a small constant matrix and a list of arrays; zeros and ones cost nothing."""
    out = []
    for row in matrix:
        terms = [p if c == 1 else -p if c == -1 else c * p for c, p in zip(row, parts, strict=True) if c]
        out.append(sum(terms[1:], terms[0]))
    return out


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of x [in, height, width, batch] with kernel [out, in, k, k], k odd, to [out, height, width, batch].

    Rows are transformed first, at full width, then columns: extracting two-dimensional tiles at once is slow on a CPU, and
    so is one batched product instead of n * n plain ones.
    """
    out_maps, in_maps, k, _ = kernel.shape
    _, height, width, batch = x.shape
    m, n, pad = OUTPUTS, OUTPUTS + k - 1, k // 2
    bt, g, at = cook_toom(m, k)
    tiles = (-(-height // m), -(-width // m))
    ends = [t * m + k - 1 - size - pad for t, size in zip(tiles, (height, width), strict=True)]
    x = jnp.pad(x, ((0, 0), (pad, ends[0]), (pad, ends[1]), (0, 0)))
    down, right = m * (tiles[0] - 1) + 1, m * (tiles[1] - 1) + 1
    rows = combine(bt, [x[:, i : i + down : m] for i in range(n)])
    images = [combine(bt, [r[:, :, j : j + right : m] for j in range(n)]) for r in rows]
    kernel_rows = combine(g, [kernel[:, :, i] for i in range(k)])
    kernels = [combine(g, [r[:, :, j] for j in range(k)]) for r in kernel_rows]
    products = [[kernels[i][j] @ images[i][j].reshape(in_maps, -1) for j in range(n)] for i in range(n)]
    across = [combine(at, [products[i][j] for i in range(n)]) for j in range(n)]
    y = [combine(at, [across[j][a] for j in range(n)]) for a in range(m)]  # y[a][b]: row a and column b of every tile
    shape = (out_maps, *tiles, batch)
    y = jnp.stack([jnp.stack([y[a][b].reshape(shape) for b in range(m)], 3) for a in range(m)], 2)
    return y.reshape(out_maps, tiles[0] * m, tiles[1] * m, batch)[:, :height, :width]
