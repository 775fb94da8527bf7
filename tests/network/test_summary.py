"""Check the printed table of layers."""

import dataclasses

import pytest

from alexnet_jax.experiment import Network
from alexnet_jax.network import networks
from alexnet_jax.network.summary import summary
from alexnet_jax.network.table import parameter_count, shapes


def rows(table):
    return {line.split()[0]: line for line in summary(table).splitlines() if line}


def test_the_papers_network():
    shown = rows(networks.ALEXNET)
    assert "60,965,224" in shown["total"]
    assert shown["alexnet:"] == "alexnet: images 224x224x3, columns 2, classes 1000"
    assert shown["conv1"].endswith(" -")
    assert shown["conv3"].endswith("128 maps of 13x13")
    assert shown["fc6"].endswith("4,608 activations")
    assert shown["fc7"].endswith("2,048 activations")
    assert shown["fc8"].endswith("partial sums of 1,000 units")


def test_nothing_crosses_in_one_column():
    shown = rows(networks.ALEXNET_ONE_COLUMN)
    assert "columns 1," in shown["alexnet:"]
    assert all(shown[spec.name].endswith(" -") for spec in networks.ALEXNET_ONE_COLUMN.layers)


def test_rectangular_images_show_their_own_shapes():
    shown = rows(dataclasses.replace(networks.ALEXNET, image=(224, 288, 3)))
    assert shown["conv3"].endswith("128 maps of 13x17")
    caffe = dataclasses.replace(networks.build(Network("caffe_alexnet"), 10), image=(227, 291, 3))
    assert rows(caffe)["conv1"].endswith("2 maps of 55x71 for LRN")


@pytest.mark.parametrize(
    "name", ["ALEXNET", "ALEXNET_TUTORIAL", "ALEXNET_ORIGINAL", "ALEXNET_ONE_COLUMN", "ALEXNET_CIFAR"]
)
def test_every_layer_and_the_sum_of_its_numbers(name):
    table = getattr(networks, name)
    shown = rows(table)
    for shape in shapes(table):
        assert f" {shape.parameters:,} " in shown[shape.spec.name]
        assert "x".join(map(str, shape.outputs)) in shown[shape.spec.name]
    assert f" {parameter_count(table):,} " in shown["total"]
    assert f"{sum(shape.operations for shape in shapes(table)) / 1e6:,.1f} M" in shown["total"]


def test_columns_of_the_text_are_aligned():
    lines = summary(networks.ALEXNET).splitlines()[2:-2]
    edge = lines[0].index("from the other column")
    assert all(line[edge - 2 : edge] == "  " for line in lines if len(line) > edge)
