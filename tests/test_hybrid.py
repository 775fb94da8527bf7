"""Check that hybrid parallelism equals a plain network, and has only the collectives of "One weird trick"."""

import dataclasses
import functools
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
import reference
from running import epochs, numbers, state, train, trainer

from alexnet_jax import columns, hybrid
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.hybrid import Hybrid
from alexnet_jax.model import activations, initialize, logits, loss_and_gradients
from alexnet_jax.network import networks
from alexnet_jax.network.table import Conv, Dense, Dropout, MaxPool, ReLU, Table, shapes
from alexnet_jax.traffic import traced
from benchmarks import plain

pytest_plugins = ["running"]

LONG = pytest.mark.evidence

CONVOLUTIONS = (
    Conv("conv1", 4, 3, padding=(1, 1), after=(ReLU(), MaxPool())),
    Conv("conv2", 8, 3, padding=(1, 1), after=(ReLU(), Dropout(0.25))),
)
SMALL = Table(
    "small",
    (6, 6, 3),
    1,
    (
        *CONVOLUTIONS,
        Dense("fc3", 16, "gather", after=(ReLU(), Dropout(0.25))),
        Dense("fc4", 24, after=(ReLU(),)),
        Dense("fc5", 5, "sum"),
    ),
)
"""Layers that compile quickly and cover every case of the placement; five classes divide over no number of devices."""

SUM_ALONE = Table("sum_alone", (6, 6, 3), 1, (*CONVOLUTIONS, Dense("fc3", 5, "sum", after=(Dropout(0.25),))))
"""A summing layer directly after the convolutions, as in the author's networks for CIFAR-10."""


@pytest.fixture(scope="module")
def problem():
    """Return a function (table, batch) -> arguments of the step, and the reference's loss and gradients."""

    return functools.cache(reference.solved)


@pytest.mark.parametrize(
    ("table", "devices", "batch", "scheme"),
    [
        *[(SMALL, devices, 8, "whole") for devices in (1, 2, 4, 8)],
        *[(SMALL, devices, 16, "slices") for devices in (2, 4)],
        pytest.param(SMALL, 8, 64, "slices", marks=LONG),
        (SUM_ALONE, 4, 16, "slices"),
        *[pytest.param(SUM_ALONE, devices, 8, "whole", marks=LONG) for devices in (1, 2, 4, 8)],
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_loss_and_every_gradient_equal_a_plain_network(table, devices, batch, scheme, problem, float64):
    arguments, expected = problem(table, batch)
    placement = Hybrid.over(devices, scheme)
    found = jax.jit(functools.partial(loss_and_gradients, table, placement))(*arguments)
    reference.same_gradients(table, placement, found, expected)


@pytest.mark.parametrize(
    ("devices", "scheme"),
    [(8, "whole"), *[pytest.param(n, "whole", marks=LONG) for n in (1, 2, 4)], pytest.param(2, "slices", marks=LONG)],
)
def test_the_merged_networks_too(devices, scheme, narrow, problem, float64):
    table = narrow(columns=1, kernels="merged")
    arguments, expected = problem(table, 8)
    placement = Hybrid.over(devices, scheme)
    found = jax.jit(functools.partial(loss_and_gradients, table, placement))(*arguments)
    reference.same_gradients(table, placement, found, expected)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=LONG), 4])
def test_logits_and_activations_are_the_references(devices, problem, float64):
    (parameters, images, _, _), _ = problem(SMALL, 8)
    images, placement = images.transpose(3, 1, 2, 0), Hybrid.over(devices)
    found = logits(SMALL, placement, parameters, images, None)
    np.testing.assert_allclose(found, plain.logits(SMALL, parameters, images))
    for layer in ("conv2", "fc3"):
        expected = np.asarray(plain.logits(SMALL.until(layer), parameters, images)).reshape(8, -1)
        np.testing.assert_allclose(activations(SMALL, placement, parameters, images, layer), expected, atol=1e-9)


# --- communication ---------------------------------------------------------------------------------------------------


def found(table, devices, batch=16, scheme="whole"):
    """Return {(layer, direction, primitive): count} of the collectives in one training step."""
    collectives = traced.step_collectives(table, Hybrid(hybrid.abstract_mesh(devices), scheme), batch)
    return Counter((each.layer, each.direction, each.kind) for each in collectives)


CROSSINGS = {
    ("fc6", "forward", "all_gather"): 1,
    ("fc6", "backward", "reduce_scatter"): 1,
    ("fc7", "forward", "all_gather"): 1,
    ("fc7", "backward", "reduce_scatter"): 1,
    ("fc8", "forward", "reduce_scatter"): 1,
    ("fc8", "backward", "all_gather"): 1,
}


@pytest.mark.parametrize(("scheme", "times"), [("whole", 1), ("slices", 4)])
def test_collectives_are_those_of_one_weird_trick(scheme, times):
    sums = {(f"conv{i}", "backward", "psum"): 2 for i in range(1, 6)}  # kernel and bias
    sums |= {("fc8", "backward", "psum"): 1, ("loss", "forward", "psum"): 1}  # the bias after the sum
    expected = Counter(sums) + Counter({key: times * once for key, once in CROSSINGS.items()})
    assert found(networks.ALEXNET_MERGED, 4, scheme=scheme) == expected


def test_a_stray_sum_would_be_found(monkeypatch):
    usual = found(SMALL, 4)
    monkeypatch.setattr(
        hybrid, "every_unit", lambda h: usual_every_unit(columns.for_each_share(columns.mean_over_data(h)))
    )
    extra = found(SMALL, 4) - usual
    assert {layer for layer, _, _ in extra} == {"fc4"}


usual_every_unit = hybrid.every_unit


# --- shardings -------------------------------------------------------------------------------------------------------


def test_each_device_holds_the_convolutions_and_its_own_units():
    mesh = hybrid.make_mesh(4)
    parameters = initialize(SMALL, jax.random.key(0), Hybrid(mesh))
    assert parameters["conv1"]["kernel"].is_fully_replicated and parameters["fc5"]["bias"].is_fully_replicated
    for layer, axis in {"fc3": 1, "fc4": 1, "fc5": 2}.items():
        kernel = parameters[layer]["kernel"]
        quarter = kernel.shape[axis] // 4
        for i, device in enumerate(mesh.devices):
            (shard,) = [shard for shard in kernel.addressable_shards if shard.device == device]
            assert shard.data.shape[axis] == quarter and shard.index[axis] == slice(i * quarter, (i + 1) * quarter)
    elsewhere = initialize(SMALL, jax.random.key(0), Columns.over())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(parameters), jax.device_get(elsewhere))


def test_the_merged_network_has_its_papers_maps():
    maps = [shape.outputs[0] for shape in shapes(networks.ALEXNET_MERGED)]
    assert maps == [64, 192, 384, 384, 256, 4096, 4096, 1000]
    assert networks.ALEXNET_MERGED.columns == 1


@pytest.mark.parametrize(
    ("table", "devices", "message"),
    [
        (networks.ALEXNET, 2, "alexnet has 2 columns; the hybrid placement is for one"),
        (SMALL, 5, "The 16 units of fc3 do not divide over 5 devices"),
        (networks.build(Network("lenet5"), 10), 8, "The 84 units of fc4 do not divide over 8 devices"),
        (SUM_ALONE, 5, "The 72 inputs of fc3 do not divide over 5 devices"),
    ],
    ids=["columns", "units", "a baseline", "inputs"],
)
def test_a_table_that_does_not_fit_is_refused_with_the_numbers(table, devices, message):
    with pytest.raises(UsageError, match=message):
        initialize(table, jax.random.key(0), Hybrid.over(devices))


# --- training --------------------------------------------------------------------------------------------------------

MERGED = {"network__columns": 1, "network__kernels": "merged"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compile_cache):
    """Return a finished run of five steps on two devices, started through the command line."""
    run = tmp_path_factory.mktemp("hybrid") / "run"
    assert train(run, train__epochs=epochs(5), mesh__placement="hybrid", mesh__data=2, **MERGED) == 0
    return run


def test_checkpoints_restore_in_the_other_placement(trained):
    by_columns = trainer(columns=1, kernels="merged")
    saved = state(trained, on=by_columns)
    for devices in (2, 4):
        hybrid_trainer = dataclasses.replace(by_columns, placement=Hybrid.over(devices))
        found = state(trained, on=hybrid_trainer)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(saved))
        for leaf, sharding in zip(
            jax.tree.leaves(found[0]), jax.tree.leaves(hybrid_trainer.shardings.parameters), strict=True
        ):
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


@pytest.mark.evidence
@pytest.mark.parametrize("mesh", [{"data": 1}, {"data": 2}, {"data": 4, "placement": "hybrid", "scheme": "slices"}])
def test_first_losses_agree_on_every_mesh_and_placement(mesh, trained, tmp_path):
    options = {f"mesh__{name}": value for name, value in mesh.items()}
    assert train(tmp_path / "run", train__epochs=epochs(5), **MERGED, **options) == 0
    for other, line in zip(numbers(tmp_path / "run"), numbers(trained), strict=True):
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-5)


@pytest.mark.evidence
def test_a_run_goes_on_in_the_other_placement(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    assert train(run, train__epochs=epochs(8), **MERGED) == 0
    assert [line["step"] for line in numbers(run)] == list(range(1, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mesh__data": 2}, "--mesh.placement=hybrid: expected columns, unless network.columns=1"),
        (
            {**MERGED, "mesh__data": 3, "train__batch": 33},
            "--network.fc_units=32: expected a multiple of the 3 devices",
        ),
        (
            {**MERGED, "mesh__data": 8, "mesh__scheme": "slices"},
            "--train.batch=32 does not divide over 8 data-parallel",
        ),
        ({**MERGED, "mesh__placement": "columns", "mesh__scheme": "slices"}, "--mesh.scheme=slices: expected whole"),
        ({"network__kernels": "merged"}, "--network.kernels=merged: expected paper or half, or network.columns=1"),
        ({**MERGED, "mesh__data": 16, "network__fc_units": 16}, "needs 16 devices, but there are 8"),
    ],
)
def test_options_that_do_not_fit_get_one_message(options, message, tmp_path, capsys):
    assert train(tmp_path / "run", **{"mesh__placement": "hybrid", **options}) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
