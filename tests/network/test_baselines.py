"""Compare the baselines with published values: shapes, parameters, initial weights, rates and decays."""

import functools

import jax
import numpy as np
import pytest
import reference

from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.model import loss_and_gradients
from alexnet_jax.network import networks
from alexnet_jax.network.baselines import BASELINES
from alexnet_jax.network.table import LRN, AvgPool, Dense, MapNorm, MaxPool, parameter_count, shapes
from benchmarks import plain


def table(name, classes=10):
    return networks.build(Network(name, columns=1), classes)


def parts(found, kind):
    return [(spec.name, part) for spec in found.layers for part in spec.after if isinstance(part, kind)]


def outputs(found):
    return [shape.outputs for shape in shapes(found)]


def test_lenet5_has_lecuns_sizes():
    assert outputs(table("lenet5")) == [(6, 14, 14), (16, 5, 5), (120,), (84,), (10,)]
    # LeCun's C1, C3, C5, F6 with three input channels, all of S2's maps in C3 and a linear output layer.
    assert parameter_count(table("lenet5")) == 456 + 2_416 + 48_120 + 10_164 + 850


def test_simple_cnn():
    assert outputs(table("simple_cnn")) == [(32, 16, 16), (64, 8, 8), (128,), (10,)]


@pytest.mark.parametrize(
    ("name", "sizes", "deviations", "decays"),
    [
        (
            "cuda_convnet_26pct",
            [(32, 16, 16), (32, 8, 8), (64, 4, 4), (64,), (10,)],
            [1e-4, 0.01, 0.01, 0.1, 0.1],
            [0.004, 0.004, 0.004, 0.03, 0.03],
        ),
        (
            "cuda_convnet_18pct",
            [(32, 16, 16), (32, 8, 8), (64, 4, 4), (10,)],
            [1e-4, 0.01, 0.01, 0.01],
            [0.004, 0.004, 0.004, 1],
        ),
        (
            "cuda_convnet_13pct",
            [(64, 12, 12), (64, 6, 6), (32, 6, 6), (32, 6, 6), (10,)],
            [1e-4, 0.01, 0.04, 0.04, 0.01],
            [0, 0, 0.004, 0.004, 0.004],
        ),
        (
            "cuda_convnet_11pct",
            [(64, 12, 12), (64, 6, 6), (64, 6, 6), (32, 6, 6), (10,)],
            [1e-4, 0.01, 0.04, 0.04, 0.01],
            [0, 0, 0.004, 0.004, 0.01],
        ),
    ],
)
def test_the_cuda_convnet_nets_are_those_of_their_layer_files(name, sizes, deviations, decays):
    found = table(name)
    assert outputs(found) == sizes
    assert [spec.weight_std for spec in found.layers] == deviations
    assert [spec.decay for spec in found.layers] == decays
    assert {spec.rate for spec in found.layers} == {1} and {spec.bias for spec in found.layers} == {0}


def test_where_they_pool_and_normalize():
    first = table("cuda_convnet_26pct")
    assert parts(first, MaxPool) == [("conv1", MaxPool(3, 2))]
    assert parts(first, AvgPool) == [("conv2", AvgPool(3, 2)), ("conv3", AvgPool(3, 2))]
    within = MapNorm(size=3, k=1, alpha=5e-5 / 9)
    assert parts(table("cuda_convnet_18pct"), MapNorm) == [("conv1", within), ("conv2", within)]
    assert not parts(table("cuda_convnet_13pct"), LRN | MapNorm)
    across = LRN(size=9, k=1, alpha=1e-3 / 9)
    assert parts(table("cuda_convnet_11pct"), LRN) == [("conv1", across), ("conv2", across)]
    order = [type(part).__name__ for spec in table("cuda_convnet_11pct").layers[:2] for part in spec.after]
    assert order == ["ReLU", "MaxPool", "LRN", "ReLU", "LRN", "MaxPool"]


def test_local_layers_have_a_kernel_and_a_bias_for_every_pixel():
    shape = {s.spec.name: s for s in shapes(table("cuda_convnet_11pct"))}["local3"]
    assert shape.kernel == (1, 64, 64, 3, 3, 6, 6) and shape.bias == (1, 64, 6, 6)
    assert shape.parameters == 64 * 64 * 9 * 36 + 64 * 36
    assert shape.operations == 2 * 64 * 64 * 9 * 36 and shape.fan_in == 64 * 9


@pytest.mark.parametrize("name", BASELINES)
def test_each_ends_in_the_classes_asked_for(name):
    found = table(name, 7)
    assert found.classes == 7 and isinstance(found.layers[-1], Dense) and found.layers[-1].crossing == "sum"


@pytest.mark.parametrize("name", BASELINES)
def test_no_kernel_is_larger_than_its_image(name):
    assert all(min(shape.convolved) >= 1 for shape in shapes(table(name)))


LATER = {"cuda_convnet_18pct", "cuda_convnet_13pct"}
"""Their pooling is also in 26pct, and their local layers in 11pct, which the quick tier tests."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.evidence) if n in LATER else n for n in BASELINES])
def test_loss_and_every_gradient_equal_a_plain_network(name, float64):
    found = table(name)
    parameters = reference.random_parameters(shapes(found))
    images, labels = reference.random_examples(found, 4)
    run = jax.jit(functools.partial(loss_and_gradients, found, Columns.over(data=2)))
    (loss, error), gradients = run(parameters, images.transpose(3, 1, 2, 0), labels, {})
    expected = jax.jit(jax.value_and_grad(functools.partial(plain.loss, found)))(parameters, images, labels)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-10)
    answers = plain.logits(found, parameters, images).argmax(1)
    assert error == np.mean(np.asarray(answers) != labels)
    for path, leaf in jax.tree.leaves_with_path(expected[1]):
        largest = np.abs(leaf).max()
        assert largest > 1e-9, path
        np.testing.assert_allclose(
            gradients[path[0].key][path[1].key], leaf, rtol=0, atol=1e-10 * largest, err_msg=str(path)
        )


def test_an_unknown_network_is_no_baseline():
    with pytest.raises(UsageError, match="fc5"):
        table("lenet5", 0)
