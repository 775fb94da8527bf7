"""Compare the tables with their three sources, and check the command-line record that builds them."""

import dataclasses
import math
import typing

import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.network import networks
from alexnet_jax.network.table import LRN, Dropout, MapNorm, MaxPool, ReLU, shapes

TABLES = [networks.ALEXNET, networks.ALEXNET_TUTORIAL, networks.ALEXNET_ORIGINAL, networks.ALEXNET_CIFAR]


def after(table):
    return {spec.name: [type(part).__name__ for part in spec.after] for spec in table.layers}


REST = {"conv5": ["ReLU", "MaxPool"], "fc6": ["ReLU", "Dropout"], "fc7": ["ReLU", "Dropout"], "fc8": []}


def test_the_papers_order_is_relu_lrn_pool():
    first = ["ReLU", "LRN", "MaxPool"]
    assert after(networks.ALEXNET) == {"conv1": first, "conv2": first, "conv3": ["ReLU"], "conv4": ["ReLU"], **REST}


def test_the_tutorials_order_is_relu_pool_lrn():
    first, middle = ["ReLU", "MaxPool", "LRN"], ["ReLU", "LRN"]
    assert after(networks.ALEXNET_TUTORIAL) == {
        "conv1": first,
        "conv2": first,
        "conv3": middle,
        "conv4": middle,
        **REST,
    }


def test_net_145_normalizes_and_pools_before_conv1s_relu():
    assert after(networks.ALEXNET_ORIGINAL) == {
        "conv1": ["LRN", "MaxPool", "ReLU"],
        "conv2": ["ReLU", "LRN", "MapNorm", "MaxPool"],
        "conv3": ["ReLU"],
        "conv4": ["ReLU"],
        **REST,
    }


def parts(table, kind):
    return {part for spec in table.layers for part in spec.after if isinstance(part, kind)}


def test_constants_of_the_parts():
    assert parts(networks.ALEXNET, LRN) == parts(networks.ALEXNET_TUTORIAL, LRN) == {LRN(5, 2.0, 1e-4, 0.75)}
    assert parts(networks.ALEXNET_ORIGINAL, LRN) == {LRN(5, 2.0, 1e-4 / 5, 0.75)}
    assert parts(networks.ALEXNET_ORIGINAL, MapNorm) == {MapNorm(5, 1.0, 0.001 / 25, 0.75)}
    for table in TABLES:
        assert parts(table, MaxPool) == {MaxPool(3, 2)}
        assert parts(table, Dropout) == {Dropout(0.5)}


@pytest.mark.parametrize("table", TABLES)
def test_columns_cross_before_conv3_fc6_fc7_and_in_fc8(table):
    crossings = {spec.name: spec.crossing for spec in table.layers if spec.crossing}
    assert crossings == {"conv3": "gather", "fc6": "gather", "fc7": "gather", "fc8": "sum"}
    assert table.columns == 2


def initial(table):
    return {spec.name: spec.weight_std for spec in table.layers}, {spec.name: spec.bias for spec in table.layers}


ONES = {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0}


def test_initial_values_of_the_paper_of_net_145_and_of_he():
    weights, biases = initial(networks.ALEXNET)
    assert weights == dict.fromkeys(ONES, 0.01) and biases == ONES
    weights, biases = initial(networks.ALEXNET_ORIGINAL)
    assert weights == dict.fromkeys(ONES, 0.01) | dict.fromkeys(["conv3", "conv4", "conv5"], 0.03) and biases == ONES
    weights, biases = initial(networks.build(Network(init="he"), 10))
    assert weights == dict.fromkeys(ONES, "he") and biases == dict.fromkeys(ONES, 0)


@pytest.mark.parametrize("width", [1, 0.5, 0.125, 1 / 16, 0.3, 2])
@pytest.mark.parametrize("columns", [1, 2])
def test_width_scales_to_a_multiple_of_the_columns(width, columns):
    table = networks.build(Network("alexnet_cifar", width, 32, columns), 10)
    for spec, full in zip(table.layers, (96, 256, 384, 384, 256), strict=False):
        assert spec.maps % columns == 0
        assert abs(spec.maps - full * width) <= columns / 2
    assert [spec.units for spec in table.layers[5:]] == [32, 32, 10]


def test_the_narrowest_network_keeps_one_map_per_column():
    assert [spec.maps for spec in networks.build(Network(width=1e-6, fc_units=2), 2).layers[:5]] == [2] * 5


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_nonsense_widths_are_refused(width):
    with pytest.raises(UsageError, match="--network.width"):
        networks.build(Network(width=width), 10)


@pytest.mark.parametrize(
    ("network", "classes", "message"),
    [
        (Network(fc_units=33), 10, "fc6: 33 outputs do not divide into 2 columns"),
        (Network(fc_units=0), 10, "fc6: 0 outputs"),
        (Network(), 0, "fc8: 0 outputs"),
    ],
)
def test_numbers_that_do_not_fit_name_the_layer(network, classes, message):
    with pytest.raises(UsageError, match=message):
        networks.build(network, classes)


def test_networks_of_the_command_line_are_the_registered_ones():
    names = typing.get_args(typing.get_type_hints(Network)["name"])
    assert sorted(names) == sorted((*networks.ALEXNETS, *networks.FIXED))
    for name in names:
        assert networks.build(Network(name), 7).name == name


def test_an_unregistered_network_is_an_error_with_the_names():
    with pytest.raises(UsageError, match="--network.name=vgg: expected one of alexnet, alexnet_cifar, lenet5, "):
        networks.build(Network("vgg"), 10)


@pytest.mark.parametrize("name", ["lenet5", "alexnet_cifar"])
def test_a_network_is_built_for_the_crops_of_its_images(name):
    columns = 2 if name == "alexnet_cifar" else 1
    cropped, whole = (networks.build(Network(name, columns=columns), 10, side) for side in (28, 0))
    assert cropped.image == (28, 28, 3) and whole.image == (32, 32, 3)
    assert cropped.layers == whole.layers


def test_crops_that_are_too_small_name_the_option():
    with pytest.raises(UsageError, match="--data.crop=4"):
        networks.build(Network("lenet5", columns=1), 10, 4)


def test_classes_are_the_outputs_of_fc8():
    for classes in (1, 7, 1000):
        table = networks.build(Network(), classes)
        assert table.classes == classes
        assert list(shapes(table))[-1].outputs == (classes,)


def test_one_column_of_the_two_column_network_sees_all_its_maps():
    kernels = [shape.kernel for shape in shapes(networks.build(Network("alexnet", columns=1), 1000))]
    assert kernels[:2] == [(1, 96, 3, 11, 11), (1, 256, 96, 5, 5)]


def test_dropout_has_the_given_probability_or_is_absent():
    assert not parts(networks.build(Network(dropout=0), 10), Dropout)
    assert parts(networks.build(Network(dropout=0.2), 10), Dropout) == {Dropout(0.2)}


def test_an_ablation_is_a_replaced_part_of_a_table():
    def without_lrn(spec):
        return dataclasses.replace(spec, after=tuple(part for part in spec.after if not isinstance(part, LRN)))

    table = dataclasses.replace(networks.ALEXNET, layers=tuple(map(without_lrn, networks.ALEXNET.layers)))
    assert after(table)["conv1"] == ["ReLU", "MaxPool"]
    assert [s.outputs for s in shapes(table)] == [s.outputs for s in shapes(networks.ALEXNET)]
    assert table.layers[0].after[0] == ReLU()
