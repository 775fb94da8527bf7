"""Check that the split equals a plain network on every mesh, and communicates only where the table defines it."""

import dataclasses
import functools
import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import other_programs
import pytest
import reference
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax import columns, train
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.model import dropout_masks, initialize, loss_and_gradients
from alexnet_jax.network import convolution, layers, networks
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.network.table import Dense, ReLU, shapes
from alexnet_jax.traffic import traced

MESHES = [(1, 1), (1, 2), (2, 1), (2, 2)]
LONG = pytest.mark.evidence
"""Mark of the cases that the quick tier omits, because each takes seven seconds to compile."""
BATCH = 4


# --- values and gradients --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem(narrow):
    """Return a function (order, columns) -> table, arguments of the step, and the reference's loss and gradients."""

    @functools.cache
    def solve(order, number, **options):
        table = narrow(order=order, columns=number, **options)
        return table, *reference.solved(table, BATCH)

    return solve


@pytest.fixture
def fast_forms(monkeypatch):
    """Use fast forms wherever they are possible, even in narrow layers, and return the list of chosen forms."""
    chosen = []

    def form(backend, x, kernel, stride, padding, bits):
        same = stride == 1 and padding == (kernel[-1] // 2,) * 2 and min(x[1:3]) > 1
        chosen.append("winograd" if same and x[0] > 4 else "im2col")
        return chosen[-1]

    monkeypatch.setattr(convolution, "convolution_form", form)
    return chosen


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_the_fast_forms_give_the_same_gradients(mesh, problem, float64, fast_forms):
    compare_gradients("paper", 2, mesh, problem)
    assert {"winograd", "im2col"} == set(fast_forms)


@pytest.mark.parametrize(
    ("order", "number", "mesh"),
    [("paper", 2, mesh) for mesh in MESHES]
    + [("paper", 1, (2, 1)), ("tutorial", 2, (1, 2)), ("original", 2, (1, 2))]
    + [pytest.param("paper", 1, (1, 1), marks=LONG)]
    + [pytest.param(o, 2, m, marks=LONG) for o in ("tutorial", "original") for m in MESHES if m != (1, 2)],
)
def test_loss_and_every_gradient_equal_a_plain_grouped_network(order, number, mesh, problem, float64):
    compare_gradients(order, number, mesh, problem)


@pytest.mark.parametrize(
    ("options", "mesh"),
    [
        ({"crossings": "none_before_fc8"}, (1, 2)),
        ({"crossings": "none_at_conv3", "activation": "tanh"}, (2, 2)),
        pytest.param({"crossings": "conv4_for_conv3", "lrn": "none"}, (1, 2), marks=LONG),
        pytest.param({"crossings": "everywhere"}, (1, 2), marks=LONG),
        ({"without": "conv3", "pooling": "non_overlapping", "lrn": "pixel_scale"}, (2, 2)),
        pytest.param({"without": "conv5", "biases": "ones"}, (1, 1), marks=LONG),
        pytest.param({"without": "fc7", "lrn": "not_conv2"}, (1, 2), marks=LONG),
    ],
    ids=str,
)
def test_ablations_equal_a_plain_network_too(options, mesh, problem, float64):
    compare_gradients("paper", 2, mesh, problem, **options)


def compare_gradients(order, number, mesh, problem, **options):
    table, arguments, expected = problem(order, number, **options)
    placement = Columns.over(*mesh)
    found = jax.jit(functools.partial(loss_and_gradients, table, placement))(*arguments)
    reference.same_gradients(table, placement, found, expected)


# --- communication ---------------------------------------------------------------------------------------------------


def sent(table, axis, mesh=(1, 2), batch=BATCH):
    """Return [(layer, direction, primitive, sent shape)] along a mesh axis in the gradients of one training step."""
    found = traced.step_collectives(table, Columns(columns.abstract_mesh(*mesh)), batch)
    return [(each.layer, each.direction, each.kind, each.shape) for each in found if each.axes == (axis,)]


def implied(table):
    """Return {(layer, direction, primitive): count} of the collectives that the crossings of a table require."""
    expected = Counter()
    for spec in table.layers:
        if spec.crossing == "gather":
            expected.update([(spec.name, "forward", "all_gather"), (spec.name, "backward", "reduce_scatter")])
        elif spec.crossing == "sum":
            expected.update([(spec.name, "forward", "psum")])
    return expected


def between_columns(table):
    return Counter(item[:3] for item in sent(table, "column"))


@pytest.mark.parametrize("order", ["full size", *networks.ORDERS])
def test_columns_talk_before_conv3_fc6_fc7_and_after_fc8_only(order, narrow):
    table = networks.ALEXNET if order == "full size" else narrow(order=order)
    assert between_columns(table) == Counter(
        {
            ("conv3", "forward", "all_gather"): 1,
            ("fc6", "forward", "all_gather"): 1,
            ("fc7", "forward", "all_gather"): 1,
            ("fc8", "forward", "psum"): 1,
            ("fc7", "backward", "reduce_scatter"): 1,
            ("fc6", "backward", "reduce_scatter"): 1,
            ("conv3", "backward", "reduce_scatter"): 1,
        }
    )
    assert between_columns(table) == implied(table)


def crossing(table, layer, value):
    return dataclasses.replace(
        table, layers=tuple(dataclasses.replace(s, crossing=value) if s.name == layer else s for s in table.layers)
    )


@pytest.mark.parametrize(("layer", "value"), [("conv2", "gather"), ("conv4", "gather"), ("conv3", None), ("fc7", None)])
def test_one_word_in_the_table_moves_a_crossing(layer, value, narrow):
    changed = crossing(narrow(), layer, value)
    found = between_columns(changed)
    assert found == implied(changed)
    assert found != implied(narrow())


def test_a_stray_sum_over_columns_would_be_found(monkeypatch, narrow):
    linear = layers.linear

    def leaky(spec, x, kernel):
        y = linear(spec, x, kernel)
        return lax.pcast(lax.psum(y, "column"), "column", to="varying") if spec.name == "conv4" else y

    monkeypatch.setattr(layers, "linear", leaky)
    extra = between_columns(narrow()) - implied(narrow())
    assert {layer for layer, _, _ in extra} == {"conv4"}


def test_gathered_numbers_are_those_of_the_table():
    forward = {
        layer: shape
        for layer, direction, _, shape in sent(networks.ALEXNET, "column", batch=8)
        if direction == "forward"
    }
    received = {s.spec.name: s.received for s in shapes(networks.ALEXNET) if s.received}
    assert {layer: np.prod(shape) // 8 for layer, shape in forward.items()} == received
    assert received == {"conv3": 128 * 13 * 13, "fc6": 128 * 6 * 6, "fc7": 2048, "fc8": 1000}


def test_caffes_normalization_receives_two_maps_only():
    table = other_programs.narrowed(FOREIGN["caffe_alexnet"](10))
    borders = Counter(
        {(layer, direction, "ppermute"): 2 for layer in ("conv1", "conv2") for direction in ("forward", "backward")}
    )
    assert between_columns(table) == implied(table) + borders
    forth = [
        shape
        for layer, direction, kind, shape in sent(table, "column")
        if (layer, direction, kind) == ("conv1", "forward", "ppermute")
    ]
    conv1 = next(iter(shapes(table)))
    assert {np.prod(shape) // BATCH for shape in forth} == {conv1.received} == {2 * np.prod(conv1.convolved[1:])}


def test_no_other_file_names_an_axis_or_communicates():
    """The exceptions are hybrid.py, the other placement, and distributed.py, in which processes agree on decisions."""
    package = Path(columns.__file__).parent
    word = re.compile(
        r"\b(PartitionSpec|psum\w*|pmean|p?all_gather|all_to_all|ppermute|pcast|pvary|axis_index)\(|PartitionSpec as"
    )
    found = {path.name for path in package.rglob("*.py") if word.search(path.read_text())}
    assert found == {"columns.py", "hybrid.py", "distributed.py"}


def test_data_parallel_devices_sum_each_gradient_once():
    """Kernel gradients are summed, not those of Winograd's transformed kernels, which are nearly twice as large."""
    found = Counter(sent(networks.ALEXNET, "data", mesh=(2, 1)))
    gradients = [
        (s.spec.name, "backward", "psum", leaf) for s in shapes(networks.ALEXNET) for leaf in (s.kernel, s.bias)
    ]
    assert found == Counter([("loss", "forward", "psum", (2,)), *gradients])


def test_the_compiled_forward_pass_moves_nothing_else(problem):
    table, (parameters, images, _, _), _ = problem("paper", 2)
    text = (
        jax.jit(forward(table, Columns.over(1, 2)))
        .lower(cast(parameters), images.astype(np.float32))
        .compile()
        .as_text()
    )
    moves = Counter(
        word for word in text.replace("-start(", "(").split() for word in [word.split("(")[0]] if word in COLLECTIVES
    )
    assert moves == {"all-gather": 3, "all-reduce": 1}


COLLECTIVES = {"all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast"}


def forward(table, placement):
    specs = (placement.parameter_specs(table), columns.BATCH_LAST)
    return placement.per_device(functools.partial(placement.forward, table), specs, columns.LOGITS)


def cast(tree):
    return jax.tree.map(lambda x: x.astype(np.float32), tree)


# --- independence of the columns between crossings -------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(1, 1), (1, 2)], ids=["one device", "two devices"])
def activations(request, problem):
    """Return (function parameters -> {layer: output [columns, maps, height, width, batch]}, parameters)."""
    table, (parameters, images, _, _), _ = problem("paper", 2)
    names, placement = ["conv2", "conv3", "conv4", "conv5"], Columns.over(*request.param)

    def per_device(parameters, images):
        upto = {
            spec.name: dataclasses.replace(table, layers=table.layers[: i + 1]) for i, spec in enumerate(table.layers)
        }
        return {name: placement.forward(upto[name], parameters, images) for name in names}

    specs = (placement.parameter_specs(table), columns.BATCH_LAST)
    outputs = {name: P("column", None, None, None, "data") for name in names}
    run = jax.jit(placement.per_device(per_device, specs, outputs))
    return lambda p: jax.device_get(run(p, cast(images))), cast(parameters)


def changed(parameters, layer, column):
    kernel = parameters[layer]["kernel"].copy()
    kernel[column] *= 1.5
    return {**parameters, layer: {**parameters[layer], "kernel": kernel}}


@pytest.mark.parametrize(
    ("perturbed", "alone"),
    [
        *[("conv2", "conv2"), ("conv4", "conv4"), ("conv5", "conv5")],  # kernels of one column
        *[("conv1", "conv2"), ("conv3", "conv4"), ("conv4", "conv5")],  # inputs of one column
    ],
)
@pytest.mark.parametrize("column", [0, 1])
def test_changing_one_column_leaves_the_other_bit_identical(perturbed, alone, column, activations):
    run, parameters = activations
    before, after = run(parameters)[alone], run(changed(parameters, perturbed, column))[alone]
    assert np.array_equal(before[1 - column], after[1 - column])
    assert not np.array_equal(before[column], after[column])


def test_conv3_hears_the_other_column(activations):
    run, parameters = activations
    before, after = run(parameters)["conv3"], run(changed(parameters, "conv1", 0))["conv3"]
    assert not np.array_equal(before[1], after[1])


# --- random draws and shardings --------------------------------------------------------------------------------------


def test_initial_parameters_are_the_same_bits_on_every_mesh(narrow):
    table = narrow()
    drawn = [jax.device_get(initialize(table, jax.random.key(5), Columns.over(*mesh))) for mesh in MESHES]
    for other in drawn[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, drawn[0])
    kernel = drawn[0]["conv4"]["kernel"]
    assert not np.array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel, initialize(table, jax.random.key(6), Columns.over())["conv4"]["kernel"])


def masks_as_devices_use_them(table, key, placement, batch):
    """Draw dropout masks as in a training step, distribute them to the devices, and return the reassembled masks."""
    per_device = placement.per_device(lambda masks: masks, (columns.MASKS,), columns.MASKS)
    return jax.device_get(jax.jit(lambda key: per_device(dropout_masks(table, key, batch)))(key))


def test_dropout_masks_differ_except_between_meshes(narrow):
    table = narrow(fc_units=128)
    keys = [jax.random.fold_in(train.stream(0, train.DROPOUT), step) for step in (0, 1)]
    first, later = (masks_as_devices_use_them(table, key, Columns.over(), 16) for key in keys)
    assert set(first) == {"fc6", "fc7"}
    assert all(mask.shape == (2, 64, 16) for mask in first.values())
    for mesh in MESHES[1:]:
        found = masks_as_devices_use_them(table, keys[0], Columns.over(*mesh), 16)
        jax.tree.map(np.testing.assert_array_equal, found, first)

    fc6, fc7 = first["fc6"], first["fc7"]
    pairs = [
        (fc6[0], fc6[1]),
        (fc7[0], fc7[1]),
        (fc6, fc7),
        (fc6, later["fc6"]),
        (fc7, later["fc7"]),
        (fc6[..., 0], fc6[..., 1]),
    ]
    pairs += [(fc6[..., :8], fc6[..., 8:])]  # the halves of two data-parallel devices
    for a, b in pairs:
        assert 0.3 < np.mean(a == b) < 0.7  # 0.5 for independent masks, 1 for equal ones


def test_masks_keep_the_complement_of_the_probability(narrow):
    masks = dropout_masks(narrow(dropout=0.2), jax.random.key(0), 1000)
    assert abs(np.mean(masks["fc6"]) - 0.8) < 5 * np.sqrt(0.2 * 0.8 / masks["fc6"].size)


def test_each_device_holds_its_own_column_and_nothing_else(narrow):
    mesh = columns.make_mesh(2, 2)
    parameters = initialize(narrow(), jax.random.key(0), Columns(mesh))
    assert [len(parameters), mesh.shape["data"], mesh.shape["column"]] == [8, 2, 2]
    for path, leaf in jax.tree.leaves_with_path(parameters):
        layer, kind = path[0].key, path[1].key
        assert len(leaf.addressable_shards) == 4
        for shard in leaf.addressable_shards:
            (column,) = np.argwhere(mesh.devices == shard.device)[:, 1]
            if (layer, kind) == ("fc8", "bias"):
                assert shard.data.shape == leaf.shape
            else:
                assert shard.data.shape == (1, *leaf.shape[1:])
                assert shard.index[0] == slice(column, column + 1)
    assert parameters["fc8"]["bias"].is_fully_replicated


# --- meshes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "number", "expected"),
    [
        (1, 1, (1, 1)),
        (1, 2, (1, 1)),
        (2, 1, (2, 1)),
        (2, 2, (1, 2)),
        (3, 2, (1, 2)),
        (4, 1, (4, 1)),
        (4, 2, (2, 2)),
        (8, 1, (8, 1)),
        (8, 2, (4, 2)),
    ],
)
def test_left_to_itself_a_mesh_takes_all_devices_columns_first(devices, number, expected):
    assert columns.mesh_shape(devices, number) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"data": 1}, (1, 2)),
        ({"data": 2}, (2, 2)),
        ({"data": 4}, (4, 1)),
        ({"column": 1}, (4, 1)),
        ({"column": 2}, (2, 2)),
        ({"data": 1, "column": 1}, (1, 1)),
    ],
)
def test_a_mesh_keeps_what_is_given_and_chooses_the_rest(asked, expected):
    assert columns.mesh_shape(4, 2, **asked) == expected


@pytest.mark.parametrize(("devices", "data", "column"), [(1, 1, 2), (1, None, 2), (2, 2, 2), (4, 8, None), (2, 3, 1)])
def test_a_mesh_larger_than_the_machine_names_both_numbers(devices, data, column):
    with pytest.raises(UsageError) as problem:
        columns.mesh_shape(devices, 2, data, column)
    message = str(problem.value)
    assert f"needs {(data or 1) * (column or 1)} devices" in message
    assert f"there {'is 1' if devices == 1 else f'are {devices}'}" in message
    assert "--mesh.data" in message and "--mesh.column" in message


def test_make_mesh_uses_the_first_devices():
    assert columns.make_mesh(1, 2).devices.tolist() == [jax.devices()[:2]]
    assert Columns.over(4, 1).replicas == 4
    with pytest.raises(UsageError, match="needs 10 devices"):
        columns.make_mesh(5, 2)


# --- a sum computed by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", MESHES)
def test_a_sum_adds_its_bias_once(mesh):
    table = dataclasses.replace(
        networks.ALEXNET_CIFAR,
        image=(1, 1, 3),
        layers=(Dense("a", 4, after=(ReLU(),)), Dense("b", 2, "sum", after=(ReLU(),))),
    )
    kernels = np.arange(12.0).reshape(2, 2, 3), np.arange(8.0).reshape(2, 2, 2)
    parameters = {
        "a": {"kernel": kernels[0], "bias": np.zeros((2, 2))},
        "b": {"kernel": kernels[1], "bias": np.array([100.0, -1e4])},
    }
    images = np.arange(12.0).reshape(3, 1, 1, 4)
    hidden = kernels[0].reshape(4, 3) @ images.reshape(3, 4)
    by_hand = kernels[1][0] @ hidden[:2] + kernels[1][1] @ hidden[2:] + np.array([[100], [-1e4]])
    out = jax.jit(forward(table, Columns.over(*mesh)))(cast(parameters), images.astype(np.float32))
    np.testing.assert_array_equal(out, np.maximum(by_hand, 0))
