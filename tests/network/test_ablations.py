"""Check that each ablation changes a table as in the net that it follows, and changes nothing else."""

import dataclasses

import pytest

from alexnet_jax.experiment import Network
from alexnet_jax.network import networks
from alexnet_jax.network.table import LRN, Dense, MapNorm, MaxPool, ReLU, Tanh, parameter_count, shapes

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def build(**options):
    return networks.build(Network("alexnet", **options), 1000)


def specs(table):
    return {spec.name: spec for spec in table.layers}


def sizes(table):
    return {shape.spec.name: (shape.convolved[-1], shape.outputs[-1]) for shape in shapes(table)}


def crossings(table):
    return {spec.name: spec.crossing for spec in table.layers if spec.crossing}


def normalizations(table):
    return [(spec.name, part) for spec in table.layers for part in spec.after if isinstance(part, LRN | MapNorm)]


def test_the_defaults_change_nothing():
    assert build() == networks.ALEXNET


def test_non_overlapping_pooling_has_the_sizes_of_net_147():
    table = build(pooling="non_overlapping")
    found = sizes(table)
    assert (found["conv1"], found["conv2"], found["conv3"], found["conv5"]) == ((55, 28), (26, 13), (13, 13), (11, 6))
    assert {part for spec in table.layers for part in spec.after if isinstance(part, MaxPool)} == {MaxPool(2, 2)}
    assert parameter_count(table) == parameter_count(networks.ALEXNET)


def test_at_32x32_both_poolings_give_the_same_sizes():
    overlapping, apart = (networks.build(Network(pooling=name), 10) for name in ("overlapping", "non_overlapping"))
    assert sizes(overlapping) == sizes(apart)
    assert [spec.padding for spec in overlapping.layers[:5]] == [spec.padding for spec in apart.layers[:5]]


def test_at_28x28_fc6_keeps_its_inputs_without_overlap():
    overlapping, apart = (networks.build(Network(pooling=name), 10, 28) for name in ("overlapping", "non_overlapping"))
    assert sizes(overlapping)["conv5"] == (7, 3) and sizes(apart)["conv5"] == (5, 3)
    assert {name: size for name, size in sizes(overlapping).items() if name != "conv5"}.items() <= sizes(apart).items()
    assert parameter_count(overlapping) == parameter_count(apart)


@pytest.mark.parametrize("order", networks.ORDERS)
def test_no_normalization_of_either_kind(order):
    assert not normalizations(build(order=order, lrn="none"))


def test_lrn_divided_scaled_and_left_out_after_conv2():
    assert normalizations(build(lrn="divided")) == [("conv1", LRN(alpha=2e-5)), ("conv2", LRN(alpha=2e-5))]
    assert [part.alpha for _, part in normalizations(build(lrn="pixel_scale"))] == pytest.approx([0.4096] * 2)
    assert [name for name, _ in normalizations(build(lrn="not_conv2"))] == ["conv1"]
    assert [name for name, _ in normalizations(build(order="tutorial", lrn="not_conv2"))] == ["conv1", "conv3", "conv4"]


def test_tanh_takes_the_place_of_every_relu():
    for relu, tanh in zip(networks.ALEXNET.layers, build(activation="tanh").layers, strict=True):
        assert tuple(Tanh() if part == ReLU() else part for part in relu.after) == tanh.after


def test_net_150_crosses_at_fc8_only_and_is_wider():
    table = build(crossings="none_before_fc8")
    assert crossings(table) == {"fc8": "sum"}
    found = specs(table)
    assert (found["conv2"].maps, found["fc6"].units, found["fc7"].units) == (2 * 160, 2 * 4096, 2 * 2048)
    kernels = {shape.spec.name: shape.kernel for shape in shapes(table)}
    assert kernels["conv3"] == (2, 192, 160, 3, 3) and kernels["fc7"] == (2, 2048, 4096)


def test_no_crossing_at_conv3_is_compensated_by_width():
    table = build(crossings="none_at_conv3")
    assert crossings(table) == {"fc6": "gather", "fc7": "gather", "fc8": "sum"}
    weights = [
        sum(s.parameters for s in shapes(t) if s.spec.name in ("conv3", "conv4")) for t in (table, networks.ALEXNET)
    ]
    assert weights[0] == pytest.approx(weights[1], rel=0.002)


def test_conv4_may_cross_instead_of_conv3():
    table = build(crossings="conv4_for_conv3")
    assert crossings(table) == {"conv4": "gather", "fc6": "gather", "fc7": "gather", "fc8": "sum"}
    assert {shape.spec.name: shape.kernel[2] for shape in shapes(table)}["conv4"] == 384


def test_crossings_everywhere_reach_every_layer():
    table = build(crossings="everywhere")
    assert crossings(table) == {f"conv{i}": "gather" for i in (2, 3, 4, 5)} | crossings(networks.ALEXNET)
    seen = {shape.spec.name: shape.kernel[2] for shape in shapes(table) if shape.spec.name.startswith("conv")}
    assert seen == {"conv1": 3, "conv2": 96, "conv3": 256, "conv4": 384, "conv5": 384}


@pytest.mark.parametrize("layer", ["conv3", "conv4", "conv5", "fc7"])
@pytest.mark.parametrize("name", ["alexnet", "alexnet_cifar"])
def test_a_layer_left_out_leaves_its_pooling_and_its_crossing(name, layer):
    whole = networks.build(Network(name), 10)
    table = networks.build(Network(name, without=layer), 10)
    assert [spec.name for spec in table.layers] == [other for other in LAYERS if other != layer]
    pools = [sum(isinstance(part, MaxPool) for spec in t.layers for part in spec.after) for t in (whole, table)]
    assert pools == [3, 3]
    assert dict(sizes(table))["fc8"] == dict(sizes(whole))["fc8"]
    expected = {"fc6": "gather", "fc7": "gather", "fc8": "sum"} | {"conv4" if layer == "conv3" else "conv3": "gather"}
    assert crossings(table) == {k: v for k, v in expected.items() if k != layer}


def test_one_column_network_has_the_papers_kernels():
    found = specs(build(columns=1, kernels="half"))
    assert [found[f"conv{i}"].maps for i in range(1, 6)] == [48, 128, 192, 192, 256]
    assert found["fc6"].units == found["fc7"].units == 4096


@pytest.mark.parametrize(("name", "values"), [("zeros", [0] * 8), ("ones", [0, 1, 0, 1, 1, 1, 1, 0])])
def test_biases_may_be_chosen_apart_from_the_weights(name, values):
    table = build(init="original", biases=name)
    assert [spec.bias for spec in table.layers] == values
    assert [spec.weight_std for spec in table.layers] == [spec.weight_std for spec in build(init="original").layers]


@pytest.mark.parametrize("width", [1, 0.5, 0.3, 1 / 16])
@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "non_overlapping"},
        {"crossings": "none_before_fc8"},
        {"crossings": "none_at_conv3"},
        {"without": "conv4", "crossings": "everywhere"},
        {"without": "conv3", "crossings": "conv4_for_conv3"},
        {"without": "conv5", "lrn": "none", "activation": "tanh"},
        {"columns": 1, "kernels": "half", "without": "fc7"},
    ],
    ids=str,
)
def test_ablations_fit_together_at_every_width(width, options):
    table = networks.build(Network("alexnet_cifar", width, 32, **options), 10)
    assert all(min(shape.kernel) >= 1 for shape in shapes(table))
    assert all((spec.units if isinstance(spec, Dense) else spec.maps) % table.columns == 0 for spec in table.layers)


def test_what_is_not_named_stays_as_it_was():
    changed = build(crossings="none_at_conv3")
    for spec, other in zip(networks.ALEXNET.layers, changed.layers, strict=True):
        same = dataclasses.replace(other, maps=spec.maps, crossing=spec.crossing) if spec.name == "conv3" else other
        assert same == spec
