"""Check the sizes, parameters and operations computed from a table, and the errors for layers that do not fit."""

import dataclasses
import math

import pytest

from alexnet_jax.network import networks
from alexnet_jax.network.table import Conv, Dense, MaxPool, ReLU, Table, parameter_count, pooled, shapes


def by_name(table):
    return {shape.spec.name: shape for shape in shapes(table)}


def test_alexnet_has_the_papers_shapes_in_two_columns():
    convolved = {name: shape.convolved for name, shape in by_name(networks.ALEXNET).items()}
    outputs = {name: shape.outputs for name, shape in by_name(networks.ALEXNET).items()}
    assert convolved["conv1"] == (48, 55, 55) and outputs["conv1"] == (48, 27, 27)
    assert convolved["conv2"] == (128, 27, 27) and outputs["conv2"] == (128, 13, 13)
    assert convolved["conv3"] == outputs["conv3"] == (192, 13, 13)
    assert convolved["conv4"] == outputs["conv4"] == (192, 13, 13)
    assert convolved["conv5"] == (128, 13, 13) and outputs["conv5"] == (128, 6, 6)
    assert outputs["fc6"] == outputs["fc7"] == (2048,)
    assert outputs["fc8"] == (1000,)
    assert by_name(networks.ALEXNET)["fc6"].inputs == (9216,)


def test_kernels_per_column_see_what_the_paper_says():
    kernels = {name: shape.kernel for name, shape in by_name(networks.ALEXNET).items()}
    assert kernels == {
        "conv1": (2, 48, 3, 11, 11),
        "conv2": (2, 128, 48, 5, 5),  # its own 48 maps, not 96
        "conv3": (2, 192, 256, 3, 3),  # both columns' maps
        "conv4": (2, 192, 192, 3, 3),
        "conv5": (2, 128, 192, 3, 3),
        "fc6": (2, 2048, 9216),
        "fc7": (2, 2048, 4096),
        "fc8": (2, 1000, 2048),
    }
    biases = {name: shape.bias for name, shape in by_name(networks.ALEXNET).items()}
    assert biases["conv1"] == (2, 48) and biases["fc7"] == (2, 2048)
    assert biases["fc8"] == (1000,)  # stored once


@pytest.mark.parametrize("table", [networks.ALEXNET, networks.ALEXNET_TUTORIAL, networks.ALEXNET_ORIGINAL])
def test_alexnet_has_60_965_224_parameters_layer_by_layer(table):
    counts = {name: shape.parameters for name, shape in by_name(table).items()}
    assert counts == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    assert parameter_count(table) == 60_965_224


def test_one_gpu_network_has_nearly_as_many_parameters():
    found = by_name(networks.ALEXNET_ONE_COLUMN)
    assert {name: shape.kernel for name, shape in found.items()} == {
        "conv1": (1, 48, 3, 11, 11),
        "conv2": (1, 128, 48, 5, 5),
        "conv3": (1, 192, 128, 3, 3),
        "conv4": (1, 192, 192, 3, 3),
        "conv5": (1, 256, 192, 3, 3),
        "fc6": (1, 4096, 9216),
        "fc7": (1, 4096, 4096),
        "fc8": (1, 1000, 4096),
    }
    convolutions = (
        (48 * 363 + 48) + (128 * 48 * 25 + 128) + (192 * 128 * 9 + 192) + (192 * 192 * 9 + 192) + (256 * 192 * 9 + 256)
    )
    assert (
        parameter_count(networks.ALEXNET_ONE_COLUMN) == convolutions + 37_752_832 + 16_781_312 + 4_097_000 == 59_798_312
    )
    assert all(shape.received == 0 for shape in found.values())


def test_alexnet_cifar_is_32_16_8_4():
    found = by_name(networks.ALEXNET_CIFAR)
    sizes = [
        found["conv1"].convolved[1:],
        *(found[name].outputs[1:] for name in ("conv1", "conv2", "conv3", "conv4", "conv5")),
    ]
    assert sizes == [(32, 32), (16, 16), (8, 8), (8, 8), (8, 8), (4, 4)]
    assert found["conv1"].kernel == (2, 48, 3, 5, 5)
    assert found["fc6"].inputs == (256 * 4 * 4,)
    assert networks.ALEXNET_CIFAR.classes == 10


def test_received_numbers_are_the_other_columns_maps():
    received = {name: shape.received for name, shape in by_name(networks.ALEXNET).items() if shape.received}
    assert received == {"conv3": 128 * 13 * 13, "fc6": 128 * 6 * 6, "fc7": 2048, "fc8": 1000}


def test_operations_are_two_per_weight_and_position():
    found = {name: shape.operations for name, shape in by_name(networks.ALEXNET).items()}
    assert found == {
        "conv1": 2 * 55 * 55 * 96 * 3 * 121,
        "conv2": 2 * 27 * 27 * 256 * 48 * 25,
        "conv3": 2 * 13 * 13 * 384 * 256 * 9,
        "conv4": 2 * 13 * 13 * 384 * 192 * 9,
        "conv5": 2 * 13 * 13 * 256 * 192 * 9,
        "fc6": 2 * 4096 * 9216,
        "fc7": 2 * 4096 * 4096,
        "fc8": 2 * 1000 * 4096,
    }


def test_fan_in_counts_every_input_of_a_unit_on_both_columns():
    fan_in = {name: shape.fan_in for name, shape in by_name(networks.ALEXNET).items()}
    assert fan_in == {
        "conv1": 363,
        "conv2": 48 * 25,
        "conv3": 256 * 9,
        "conv4": 192 * 9,
        "conv5": 192 * 9,
        "fc6": 9216,
        "fc7": 4096,
        "fc8": 4096,
    }


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 13])
def test_pooling_windows_start_inside_and_reach_the_end(size, stride, window):
    starts = [stride * i for i in range(pooled(size, MaxPool(window, stride)))]
    assert starts and starts[-1] < size  # no window is completely outside
    assert starts[-1] + window >= size or starts[-1] + stride >= size  # no window is missing
    assert len(starts) == 1 or starts[-2] + window < size  # no window is superfluous


def small(*layers, image=(8, 8, 3), number=2):
    return Table("small", image, number, layers)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (small(Conv("a", 5, 3)), "a: 5 outputs do not divide into 2 columns"),
        (small(Conv("a", 0, 3)), "a: 0 outputs"),
        (small(Dense("a", 7)), "a: 7 outputs"),
        (small(Conv("a", 4, 9)), r"a: its 9x9 kernel does not fit into \(8, 8\) pixels"),
        (small(Conv("a", 4, 3), Conv("b", 4, 7)), r"b: its 7x7 kernel does not fit into \(6, 6\) pixels"),
        (small(Conv("a", 4, 3, crossing="gather")), "a: nothing to gather"),
        (small(Dense("a", 4), Dense("b", 4, "sum"), Dense("c", 4, "gather")), "c: nothing to gather"),
        (small(Dense("a", 4), Dense("b", 0, "sum")), "b: 0 outputs"),
    ],
)
def test_parts_that_do_not_fit_name_the_layer(table, message):
    with pytest.raises(ValueError, match=message):
        list(shapes(table))


def test_padding_and_stride_count_as_in_the_formula():
    for padding in [(0, 0), (0, 3), (2, 1)]:
        for stride in (1, 2, 3):
            (found,) = shapes(small(Conv("a", 4, 3, stride, padding), image=(9, 14, 2)))
            expected = tuple(math.floor((n + sum(padding) - 3) / stride) + 1 for n in (9, 14))
            assert found.convolved == (2, *expected)


def test_a_layer_after_a_sum_sees_the_whole_sum_in_each_column():
    found = by_name(small(Dense("a", 4), Dense("b", 6, "sum"), Dense("c", 8), Dense("d", 2)))
    assert found["c"].kernel == (2, 4, 6)
    assert found["d"].kernel == (2, 1, 4)  # each column again reads only its own outputs


def test_a_table_is_a_value():
    assert dataclasses.replace(networks.ALEXNET) == networks.ALEXNET
    assert len({networks.ALEXNET, dataclasses.replace(networks.ALEXNET), networks.ALEXNET_TUTORIAL}) == 2
    assert Conv("a", 4, 3) == Conv("a", 4, 3, after=(ReLU(),))


def test_a_network_until_a_layer():
    cut = networks.ALEXNET.until("conv3")
    assert [spec.name for spec in cut.layers] == ["conv1", "conv2", "conv3"]
    assert cut.layers == networks.ALEXNET.layers[:3] and cut.image == networks.ALEXNET.image
    assert networks.ALEXNET.until("fc8") == networks.ALEXNET
    with pytest.raises(ValueError):
        networks.ALEXNET.until("conv6")
