"""Reference implementations of Caffe's and torchvision's AlexNet in NumPy and 64 bits, and files in their formats.

They follow the definitions of the layers, on images [batch, channels, height, width], and use no code of alexnet_jax.
"""

import dataclasses
import math
import struct

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# --- forward passes --------------------------------------------------------------------------------------------------


def caffe(weights, images):
    """Return {layer: output} of bvlc_alexnet for {'conv1': (weight, bias)}; images are BGR, 0..255 minus the mean."""
    outputs = {}
    x = relu(convolution(images, *weights["conv1"], stride=4))
    x = outputs["conv1"] = max_pool(normalize(x), math.ceil)
    x = relu(convolution(x, *weights["conv2"], pad=2, groups=2))
    x = outputs["conv2"] = max_pool(normalize(x), math.ceil)
    x = outputs["conv3"] = relu(convolution(x, *weights["conv3"], pad=1))
    x = outputs["conv4"] = relu(convolution(x, *weights["conv4"], pad=1, groups=2))
    x = relu(convolution(x, *weights["conv5"], pad=1, groups=2))
    x = outputs["conv5"] = max_pool(x, math.ceil)
    return outputs | hidden(weights, x)


def torchvision(weights, images):
    """Return {layer: output} of torchvision's alexnet in eval mode; images are RGB, normalized."""
    outputs = {}
    x = outputs["conv1"] = max_pool(relu(convolution(images, *weights["conv1"], stride=4, pad=2)), math.floor)
    x = outputs["conv2"] = max_pool(relu(convolution(x, *weights["conv2"], pad=2)), math.floor)
    x = outputs["conv3"] = relu(convolution(x, *weights["conv3"], pad=1))
    x = outputs["conv4"] = relu(convolution(x, *weights["conv4"], pad=1))
    x = outputs["conv5"] = max_pool(relu(convolution(x, *weights["conv5"], pad=1)), math.floor)
    return outputs | hidden(weights, x)


def hidden(weights, x):
    """Return the outputs of fc6 to fc8, without dropout or scaling, because both programs scale dropout in training."""
    outputs = {}
    x = outputs["fc6"] = relu(inner_product(x.reshape(len(x), -1), *weights["fc6"]))
    x = outputs["fc7"] = relu(inner_product(x, *weights["fc7"]))
    outputs["fc8"] = inner_product(x, *weights["fc8"])
    return outputs


def convolution(x, weight, bias, stride=1, pad=0, groups=1):
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = []
    for own, kernels in zip(np.split(x, groups, 1), np.split(weight.astype(np.float64), groups), strict=True):
        windows = sliding_window_view(own, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
        out.append(np.einsum("bchwij,ocij->bohw", windows, kernels, optimize=True))
    return np.concatenate(out, 1) + bias[:, None, None]


def inner_product(x, weight, bias):
    return x @ weight.astype(np.float64).T + bias


def relu(x):
    return np.maximum(x, 0)


def normalize(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """Apply Caffe's LRN: across the groups, with alpha divided by the size of the window."""
    squares = np.pad(x**2, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (k + alpha / size * total) ** beta


def max_pool(x, rounding, size=3, stride=2):
    out = [rounding((n - size) / stride) + 1 for n in x.shape[2:]]
    y = np.empty((*x.shape[:2], *out))
    for i in range(out[0]):
        for j in range(out[1]):
            y[:, :, i, j] = x[:, :, stride * i : stride * i + size, stride * j : stride * j + size].max((2, 3))
    return y


# --- files -----------------------------------------------------------------------------------------------------------


def caffemodel(weights, *, old=False, between=()):
    """Return the bytes of a .caffemodel with {'conv1': (weight, bias)} in this order, encoded by hand.

    old: use the format until 2014, with `layers` and four-dimensional blobs. between: (layer, name of a layer without
    blobs to insert after it).
    """
    net = text(1, "AlexNet")
    for name, blobs in weights.items():
        net += layer(name, blobs, old)
        for after, other in between:
            net += layer(other, (), old) if after == name else b""
    return net


def layer(name, blobs, old):
    kind = number(5, 4) if old else text(2, "Convolution")  # a field that the reader does not need
    body = text(4 if old else 1, name) + kind
    for blob in blobs:
        body += field(6 if old else 7, four_dimensional(blob) if old else shaped(blob))
    return field(2 if old else 100, body)


def four_dimensional(blob):
    dims = (1,) * (4 - blob.ndim) + blob.shape
    return b"".join(number(i, dim) for i, dim in enumerate(dims, 1)) + floats(blob)


def shaped(blob):
    return floats(blob) + field(7, field(1, b"".join(map(varint, blob.shape))))


def binaryproto(mean):
    """Return the bytes of a mean image [3, height, width]."""
    return four_dimensional(mean)


def floats(blob):
    return field(5, struct.pack(f"<{blob.size}f", *blob.ravel().tolist()))


def text(key, value):
    return field(key, value.encode())


def field(key, payload):
    return varint(key << 3 | 2) + varint(len(payload)) + payload


def number(key, value):
    return varint(key << 3) + varint(value)


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
"""Indices of the layers in torchvision's two Sequentials."""


def state_dict(weights, names=TORCHVISION):
    """Return {'features.0.weight': ..., ...} for {'conv1': (weight, bias)}."""
    both = ((name, kind) for name in weights for kind in (0, 1))
    return {f"{names.get(name, name)}.{('weight', 'bias')[kind]}": weights[name][kind] for name, kind in both}


# --- random weights --------------------------------------------------------------------------------------------------

MAPS = {
    "caffe_alexnet": {"conv1": 12, "conv2": 16, "conv3": 24, "conv4": 20, "conv5": 12, "fc6": 32, "fc7": 24},
    "torchvision_alexnet": {"conv1": 8, "conv2": 12, "conv3": 20, "conv4": 16, "conv5": 12, "fc6": 32, "fc7": 24},
}
"""Narrow versions of both networks, with maps and units that differ from layer to layer."""

IMAGES = {"caffe_alexnet": (99, 131, 3), "torchvision_alexnet": (95, 127, 3)}
"""Height, width and channels such that fc6 reads maps of 2x3, so that an exchange of axes changes the result."""


FULL_MAPS = {
    "caffe_alexnet": {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096},
    "torchvision_alexnet": {
        "conv1": 64,
        "conv2": 192,
        "conv3": 384,
        "conv4": 256,
        "conv5": 256,
        "fc6": 4096,
        "fc7": 4096,
    },
}


def random_weights(name, classes, maps=None, pixels=2 * 3):
    """Return float32 {'conv1': (weight, bias)} in the program's own order. pixels: number per map that fc6 reads."""
    maps, groups = maps or MAPS[name], 2 if name == "caffe_alexnet" else 1
    shapes = {
        "conv1": (maps["conv1"], 3, 11, 11),
        "conv2": (maps["conv2"], maps["conv1"] // groups, 5, 5),
        "conv3": (maps["conv3"], maps["conv2"], 3, 3),
        "conv4": (maps["conv4"], maps["conv3"] // groups, 3, 3),
        "conv5": (maps["conv5"], maps["conv4"] // groups, 3, 3),
        "fc6": (maps["fc6"], maps["conv5"] * pixels),
        "fc7": (maps["fc7"], maps["fc6"]),
        "fc8": (classes, maps["fc7"]),
    }
    generator = np.random.default_rng(0)
    return {layer: _layer(generator, shape) for layer, shape in shapes.items()}


def _layer(generator, shape):
    weight = generator.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))
    return weight.astype(np.float32), (10 * generator.normal(size=shape[0])).astype(np.float32)


def narrowed(table):
    """Return one of our tables with the maps, units and images of the narrow version."""
    sizes = MAPS[table.name]
    layers = []
    for spec in table.layers[:-1]:
        width = "maps" if hasattr(spec, "maps") else "units"
        layers.append(dataclasses.replace(spec, **{width: sizes[spec.name]}))
    return dataclasses.replace(table, image=IMAGES[table.name], layers=(*layers, table.layers[-1]))
