"""Check the tables of Caffe's and torchvision's AlexNet: sizes, counts, constants, gradients and communication."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import other_programs
import pytest
import reference

from alexnet_jax import columns
from alexnet_jax.checks import check
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment, Network
from alexnet_jax.model import dropout_masks, initialize, loss_and_gradients
from alexnet_jax.network import networks
from alexnet_jax.network.foreign import FOREIGN, INPUTS
from alexnet_jax.network.table import LRN, Conv, Dense, Dropout, MaxPool, ReLU, Table, parameter_count, shapes
from benchmarks import plain


def test_caffes_network_has_its_own_normalization():
    table = FOREIGN["caffe_alexnet"](1000)
    assert parameter_count(table) == parameter_count(networks.ALEXNET) == 60_965_224
    assert [s.convolved for s in shapes(table)][:2] == [(48, 55, 55), (128, 27, 27)]
    assert [s.outputs for s in shapes(table)] == [s.outputs for s in shapes(networks.ALEXNET)]
    assert [s.kernel for s in shapes(table)] == [s.kernel for s in shapes(networks.ALEXNET)]
    norm = LRN(size=5, k=1, alpha=2e-5, beta=0.75, across=True)
    assert table.layers[0].after == table.layers[1].after == (ReLU(), norm, MaxPool(3, 2))
    assert [spec.bias for spec in table.layers] == [0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0]
    assert [spec.weight_std for spec in table.layers] == [0.01] * 5 + [0.005, 0.005, 0.01]


def test_torchvisions_network_is_one_column_of_its_own_sizes():
    table = FOREIGN["torchvision_alexnet"](1000)
    assert table.columns == 1
    assert parameter_count(table) == 61_100_840  # num_params in torchvision's documentation
    outputs = [(64, 27, 27), (192, 13, 13), (384, 13, 13), (256, 13, 13), (256, 6, 6), (4096,), (4096,), (1000,)]
    assert [s.outputs for s in shapes(table)] == outputs
    assert [s.spec.name for s in shapes(table) if Dropout(0.5, inverted=True) in s.spec.after] == ["conv5", "fc6"]
    assert not any(isinstance(part, LRN) for spec in table.layers for part in spec.after)


def test_torchvisions_pools_in_floor_mode_end_where_ours_do():
    table = FOREIGN["torchvision_alexnet"](1000)
    for shape in shapes(table):
        if MaxPool() in shape.spec.after:
            assert shape.outputs[1] == (shape.convolved[1] - 3) // 2 + 1


def test_their_inputs_are_those_of_their_transforms():
    found = INPUTS["torchvision_alexnet"]
    np.testing.assert_allclose(found.mean, 255 * np.array([0.485, 0.456, 0.406]))
    np.testing.assert_allclose(found.scale, 255 * np.array([0.229, 0.224, 0.225]))
    red, green, blue = INPUTS["caffe_alexnet"].mean
    assert (round(blue), round(green), round(red)) == (104, 117, 123)  # Caffe's, in BGR
    assert set(INPUTS) == set(FOREIGN)


@pytest.mark.parametrize(
    ("network", "option"),
    [
        (Network("caffe_alexnet", columns=1), "network.columns=1: expected 2"),
        (Network("torchvision_alexnet"), "network.columns=2: expected 1"),
        (Network("caffe_alexnet", lrn="none"), "network.lrn=none: expected paper"),
    ],
)
def test_no_option_changes_them(network, option):
    with pytest.raises(UsageError, match=option):
        check(Experiment("e", network=network))


TINY = Table(
    "what both have that the paper's has not",
    (15, 12, 3),
    2,
    (
        Conv("conv1", 8, 3, after=(ReLU(), LRN(k=1.0, alpha=2e-5, across=True), MaxPool())),
        Conv("conv2", 12, 3, padding=(1, 1), after=(ReLU(), MaxPool(), Dropout(0.3, inverted=True))),
        Dense("fc3", 10, "gather", after=(ReLU(), Dropout(0.5, inverted=True))),
        Dense("fc4", 7, "sum"),
    ),
)


def test_loss_and_every_gradient_equal_a_plain_network(float64):
    """This includes LRN across the border between columns on two devices, and dropout of maps."""
    parameters = reference.random_parameters(shapes(TINY))
    images, labels = reference.random_examples(TINY, 4)
    masks = dropout_masks(TINY, jax.random.key(3), 4)
    step = jax.jit(functools.partial(loss_and_gradients, TINY, Columns.over(2, 2)))
    (loss, _), gradients = step(parameters, images.transpose(3, 1, 2, 0), labels, masks)
    plain_step = jax.jit(jax.value_and_grad(functools.partial(plain.loss, TINY)))
    expected_loss, expected = plain_step(parameters, images, labels, masks)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-10)
    for path, leaf in jax.tree.leaves_with_path(expected):
        found, largest = gradients[path[0].key][path[1].key], np.abs(leaf).max()
        assert largest > 1e-9, path
        np.testing.assert_allclose(found, leaf, rtol=0, atol=1e-10 * largest, err_msg=str(path))


@pytest.mark.parametrize("devices", [1, 2])
def test_bordered_maps_are_those_of_the_columns_beside(devices):
    h = jnp.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    run = Columns.over(1, devices).per_device(lambda h: columns.bordered(h, 2), columns.COLUMNS, columns.COLUMNS)
    nothing = np.zeros((2, 4))
    first = np.concatenate([nothing, h[0], h[1, :2]])
    second = np.concatenate([h[0, 1:], h[1], nothing])
    np.testing.assert_array_equal(jax.jit(run)(h), [first, second])


def test_dropout_of_maps_is_one_draw_for_each_pixel():
    table = other_programs.narrowed(FOREIGN["torchvision_alexnet"](7))
    masks = dropout_masks(table, jax.random.key(0), 64)
    assert {name: mask.shape for name, mask in masks.items()} == {"conv5": (1, 12 * 2 * 3, 64), "fc6": (1, 32, 64)}
    assert abs(np.mean(masks["conv5"]) - 0.5) < 5 * 0.5 / np.sqrt(masks["conv5"].size)


def test_they_can_be_trained_from_nothing_too():
    table = other_programs.narrowed(FOREIGN["caffe_alexnet"](7))
    drawn = initialize(table, jax.random.key(0), Columns.over())
    assert set(np.unique(drawn["conv2"]["bias"])) == {np.float32(0.1)}
    assert abs(np.std(drawn["fc6"]["kernel"]) - 0.005) < 0.001
