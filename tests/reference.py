"""The networks once more, plainly, for comparison: grouped convolutions, `reduce_window`, powers, whole matrices, one device.

Written from the meaning of the specs in table.py, with nothing imported from the modules under test but those specs.
Activations are [batch, maps, height, width] with the columns' maps one after the other.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.table import LRN, Conv, Dropout, MapNorm, MaxPool, ReLU


def loss(table, parameters, images, labels, masks=None):
    """Mean cross-entropy of images [batch, height, width, channels]."""
    scores = logits(table, parameters, images, masks)
    right = jnp.sum(scores * jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype), 1)
    return jnp.mean(jax.scipy.special.logsumexp(scores, axis=1) - right)


def logits(table, parameters, images, masks=None):
    """Of images [batch, height, width, channels]: [batch, classes]. masks {layer: [columns, units, batch]} in training."""
    x, split = images.transpose(0, 3, 1, 2), False  # split: x holds different maps for each column
    for spec in table.layers:
        kernel, bias = parameters[spec.name]["kernel"], parameters[spec.name]["bias"]
        alone = split and spec.crossing is None
        if isinstance(spec, Conv):
            x = convolution(spec, x, kernel, groups=table.columns if alone else 1)
        else:
            x = matrix(spec, x, kernel, alone)
        x = x + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
        split = spec.crossing != "sum"
        for part in spec.after:
            x = after(part, x, table.columns if split else 1, (masks or {}).get(spec.name))
    return x


def convolution(spec, x, kernel, groups):
    return lax.conv_general_dilated(
        x,
        kernel.reshape(-1, *kernel.shape[2:]),
        window_strides=(spec.stride, spec.stride),
        padding=(spec.padding, spec.padding),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=groups,
    )


def matrix(spec, x, kernel, alone):
    columns, units, inputs = kernel.shape
    x = x.reshape(x.shape[0], -1)
    if spec.crossing == "sum":
        return x @ kernel.transpose(1, 0, 2).reshape(units, columns * inputs).T
    if alone:  # block diagonal
        return jnp.concatenate([x[:, c * inputs : (c + 1) * inputs] @ kernel[c].T for c in range(columns)], 1)
    return x @ kernel.reshape(columns * units, inputs).T


def after(part, x, columns, mask):
    match part:
        case ReLU():
            return jnp.where(x > 0, x, 0)
        case MaxPool():
            return pool(part, x)
        case LRN():
            own = x.reshape(x.shape[0], columns, -1, *x.shape[2:])
            return normalized(part, own, (1, 1, part.size, 1, 1)).reshape(x.shape)
        case MapNorm():
            return normalized(part, x, (1, 1, part.size, part.size))
        case Dropout():
            if mask is None:
                return x * (1 - part.probability)
            return jnp.where(mask.reshape(x.shape[::-1]).T, x, 0)
    raise TypeError(part)


def normalized(part, x, window):
    around = [(n // 2, n // 2) for n in window]
    total = lax.reduce_window(x**2, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, around)
    return x / (part.k + part.alpha * total) ** part.beta


def pool(part, x):
    over = [(0, 0), (0, 0)]
    for size in x.shape[2:]:
        windows = math.ceil((size - part.window) / part.stride) + 1
        over.append((0, (windows - 1) * part.stride + part.window - size))
    window, strides = (1, 1, part.window, part.window), (1, 1, part.stride, part.stride)
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, strides, over)


def random_parameters(shapes, seed=0, dtype=np.float64):
    """Parameters for the shapes of a table that keep activations near the scale of the images; no bias is zero."""
    generator = np.random.default_rng(seed)
    parameters = {}
    for shape in shapes:
        kernel = generator.normal(size=shape.kernel) * math.sqrt(2 / math.prod(shape.kernel[2:]))
        if shape.spec.crossing == "sum":
            kernel *= 0.02  # so that the softmax of images with a deviation of 100 is not saturated
        parameters[shape.spec.name] = {
            "kernel": kernel.astype(dtype),
            "bias": generator.normal(size=shape.bias).astype(dtype),
        }
    return parameters


def random_examples(table, batch, seed=1, dtype=np.float64):
    """Images [batch, height, width, channels] with a deviation of 100, about that of pixels, and labels."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(batch, *table.image)) * 100
    return images.astype(dtype), generator.integers(table.classes, size=batch).astype(np.int32)
