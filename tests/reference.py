"""Random parameters and examples for the comparison with the plain networks of benchmarks/plain.py."""

import functools
import math

import jax
import numpy as np

from alexnet_jax.model import dropout_masks, shardings
from alexnet_jax.network.table import shapes as shapes_of
from benchmarks import plain


def random_parameters(shapes, seed=0, dtype=np.float64):
    """Return nonzero parameters for the shapes of a table that keep activations near the scale of the images."""
    generator = np.random.default_rng(seed)
    parameters = {}
    for shape in shapes:
        kernel = generator.normal(size=shape.kernel) * math.sqrt(2 / math.prod(shape.kernel[2:5]))
        if shape.spec.crossing == "sum":
            kernel *= 0.02  # so that the softmax of images with a deviation of 100 is not saturated
        parameters[shape.spec.name] = {
            "kernel": kernel.astype(dtype),
            "bias": generator.normal(size=shape.bias).astype(dtype),
        }
    return parameters


def random_examples(table, batch, seed=1, dtype=np.float64):
    """Return images [batch, height, width, channels] with a deviation of 100, about that of pixels, and labels."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(batch, *table.image)) * 100
    return images.astype(dtype), generator.integers(table.classes, size=batch).astype(np.int32)


def solved(table, batch):
    """Return (arguments of `loss_and_gradients` in 64 bits, loss and gradients of the plain network)."""
    parameters = random_parameters(shapes_of(table))
    images, labels = random_examples(table, batch)
    masks = dropout_masks(table, jax.random.key(3), batch)
    step = jax.jit(jax.value_and_grad(functools.partial(plain.loss, table)))
    with jax.enable_x64(True):
        expected = step(parameters, images, labels, masks)
    return (parameters, images.transpose(3, 1, 2, 0), labels, masks), jax.device_get(expected)


def same_gradients(table, placement, found, expected):
    """Assert that loss and gradients equal the reference's to 1e-10, and that gradients have the right shardings."""
    (loss, _), gradients = found
    expected_loss, expected = expected
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-10)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for path, leaf in jax.tree.leaves_with_path(expected):
        found = gradients[path[0].key][path[1].key]
        largest = np.abs(leaf).max()
        assert largest > 1e-6, f"{path}: a gradient of zero compares nothing"
        np.testing.assert_allclose(found, leaf, rtol=0, atol=1e-10 * largest, err_msg=str(path))
        assert found.sharding.is_equivalent_to(shardings(table, placement)[path[0].key][path[1].key], found.ndim), path
