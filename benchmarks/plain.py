"""The networks in plain jax on one device: grouped convolutions, `reduce_window`, powers and dense matrices.

This is the baseline of `benchmarks.step` and the reference of the tests. It therefore implements the definitions of the specs
in table.py and imports nothing else from the package. Activations are [batch, maps, height, width], the maps of column 0 first.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.network.table import LRN, AvgPool, Conv, Dropout, MapNorm, MaxPool, ReLU, Tanh


def loss(table, parameters, images, labels, masks=None):
    """Return the mean cross-entropy of images [batch, height, width, channels]."""
    scores = logits(table, parameters, images, masks)
    right = jnp.sum(scores * jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype), 1)
    return jnp.mean(jax.scipy.special.logsumexp(scores, axis=1) - right)


def logits(table, parameters, images, masks=None):
    """Return logits [batch, classes] of images [batch, height, width, channels].

    masks: {layer: [columns, units, batch]} in training, None at test time.
    """
    x, separate = images.transpose(0, 3, 1, 2), False  # separate: x contains different maps for each column
    for spec in table.layers:
        kernel, bias = parameters[spec.name]["kernel"], parameters[spec.name]["bias"]
        own_column = separate and spec.crossing is None
        if isinstance(spec, Conv) and spec.local:
            x = _local(spec, x, kernel)
        elif isinstance(spec, Conv):
            x = _convolution(spec, x, kernel, groups=table.columns if own_column else 1)
        else:
            x = _matrix(spec, x, kernel, own_column)
        x = x + bias.reshape(1, x.shape[1], *(bias.shape[2:] if bias.ndim > 2 else (1,) * (x.ndim - 2)))
        separate = spec.crossing != "sum"
        for part in spec.after:
            x = _after(part, x, table.columns if separate else 1, (masks or {}).get(spec.name))
    return x


def _convolution(spec, x, kernel, groups):
    return lax.conv_general_dilated(
        x,
        kernel.reshape(-1, *kernel.shape[2:]),
        window_strides=(spec.stride, spec.stride),
        padding=(spec.padding, spec.padding),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=groups,
    )


def _local(spec, x, kernel):
    """Apply unshared weights in one column: each output pixel has its own kernel, [out, in, k, k, height, width]."""
    own = kernel[0].reshape(kernel.shape[1], -1, *kernel.shape[5:])
    strides, padding = (spec.stride, spec.stride), [spec.padding, spec.padding]
    return lax.conv_general_dilated_local(x, own, strides, padding, kernel.shape[3:5])


def _matrix(spec, x, kernel, own_column):
    columns, units, inputs = kernel.shape
    x = x.reshape(x.shape[0], -1)
    if spec.crossing == "sum":
        return x @ kernel.transpose(1, 0, 2).reshape(units, columns * inputs).T
    if own_column:  # block diagonal
        return jnp.concatenate([x[:, c * inputs : (c + 1) * inputs] @ kernel[c].T for c in range(columns)], 1)
    return x @ kernel.reshape(columns * units, inputs).T


def _after(part, x, columns, mask):
    match part:
        case ReLU():
            return jnp.where(x > 0, x, 0)
        case Tanh():
            return jnp.tanh(x)
        case MaxPool():
            return _pool(part, x, lax.max, -np.inf)
        case AvgPool():
            inside = _pool(part, jnp.ones_like(x), lax.add, 0)
            return _pool(part, x, lax.add, 0) / inside
        case LRN():
            own = x.reshape(x.shape[0], 1 if part.across else columns, -1, *x.shape[2:])
            return _normalized(part, own, (1, 1, part.size, 1, 1)).reshape(x.shape)
        case MapNorm():
            return _normalized(part, x, (1, 1, part.size, part.size))
        case Dropout():
            kept = 1 - part.probability
            if mask is None:
                return x if part.inverted else x * kept
            x = x / kept if part.inverted else x
            return jnp.where(jnp.moveaxis(mask.reshape(*x.shape[1:], -1), -1, 0), x, 0)
    raise TypeError(part)


def _normalized(part, x, window):
    around = [(n // 2, n // 2) for n in window]
    total = lax.reduce_window(x**2, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, around)
    return x / (part.k + part.alpha * total) ** part.beta


def _pool(part, x, reduce, start):
    over = [(0, 0), (0, 0)]
    for size in x.shape[2:]:
        windows = math.ceil((size - part.window) / part.stride) + 1
        over.append((0, (windows - 1) * part.stride + part.window - size))
    window, strides = (1, 1, part.window, part.window), (1, 1, part.stride, part.stride)
    return lax.reduce_window(x, np.array(start, x.dtype), reduce, window, strides, over)
