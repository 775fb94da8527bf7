"""Check that predicted bytes and operations equal those of the traced step for each collective, and sums by hand."""

import dataclasses
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import other_programs
import pytest

from alexnet_jax import columns, hybrid
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.hybrid import Hybrid
from alexnet_jax.model import abstract
from alexnet_jax.network import networks
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.network.table import LRN, Conv, Dense, Table, operation_count, parameter_count
from alexnet_jax.traffic import predicted, traced
from alexnet_jax.traffic.moves import Move, sent
from alexnet_jax.traffic.predicted import Partition

ROOT = Path(__file__).parents[2]

CAFFE = other_programs.narrowed(FOREIGN["caffe_alexnet"](10))

MIXED = Table(
    "mixed",
    (9, 9, 3),
    2,
    (
        Conv("conv1", 8, 3, after=(LRN(3, across=True),)),
        Dense("fc2", 4, "sum"),
        Dense("fc3", 8),
        Dense("fc4", 3, "sum"),
    ),
)
"""A table with normalization across the columns, and with a layer after a sum, whose input gradient is all-reduced."""


def placement_of(partition):
    if partition.kind == "hybrid":
        scheme = "slices" if partition.slices > 1 else "whole"
        return Hybrid(hybrid.abstract_mesh(partition.data), scheme)
    return Columns(columns.abstract_mesh(partition.data, partition.column))


def split_everywhere(table, devices):
    """Return the table with one column per device and a crossing before every layer, as `model` defines it."""
    layers = []
    for before, spec in zip((None, *table.layers), table.layers, strict=False):
        if before is not None and "sum" not in (before.crossing, spec.crossing):
            spec = dataclasses.replace(spec, crossing="gather")
        parts = (dataclasses.replace(part, across=True) if isinstance(part, LRN) else part for part in spec.after)
        layers.append(dataclasses.replace(spec, after=tuple(parts)))
    return dataclasses.replace(table, columns=devices, layers=tuple(layers))


def agree(table, partition, batch=16, precision="float32", traced_table=None):
    placement = placement_of(dataclasses.replace(partition, kind="columns") if partition.kind == "model" else partition)
    counted = traced.moves(traced_table or table, placement, batch, precision)
    assert Counter(predicted.moves(table, partition, batch, precision)) == Counter(counted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2)])
def test_columns_move_what_the_traced_step_does(shape, narrow):
    agree(narrow(), Partition("columns", *shape))
    agree(MIXED, Partition("columns", *shape))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_hybrid_moves_what_the_traced_step_does(devices, narrow):
    agree(narrow(columns=1, kernels="merged"), Partition("hybrid", devices))


@pytest.mark.parametrize(
    ("table", "partition"),
    [
        (networks.ALEXNET, Partition("columns", 4, 2)),
        (networks.ALEXNET_MERGED, Partition("hybrid", 4)),
        (networks.ALEXNET_MERGED, Partition("hybrid", 2, slices=2)),
        (networks.build(Network("cuda_convnet_13pct"), 10), Partition("hybrid", 4)),
        (networks.ALEXNET_MERGED, Partition("columns", 8)),
        (CAFFE, Partition("columns", 2, 2)),
    ],
    ids=["full size", "full size, hybrid", "slices", "a sum after local layers", "data parallel", "LRN across"],
)
def test_full_size_networks_move_what_the_traced_step_does(table, partition):
    agree(table, partition)


@pytest.mark.parametrize("partition", [Partition("columns", 2, 2), Partition("hybrid", 4)])
def test_bfloat16_halves_activations_and_nothing_else(partition, narrow):
    table = narrow(columns=1, kernels="merged") if partition.kind == "hybrid" else narrow()
    agree(table, partition, precision="bfloat16")
    wide, narrowed = (predicted.moves(table, partition, 16, precision) for precision in ("float32", "bfloat16"))
    for before, after in zip(wide, narrowed, strict=True):
        activations = before.layer != "fc8" and not before.update and before.layer != "loss"
        assert after.size * (2 if activations else 1) == before.size


@pytest.mark.parametrize("devices", [2, 4])
def test_model_parallelism_is_a_table_with_crossings_everywhere(devices, narrow):
    one_column = (narrow(columns=1, width=1 / 8), dataclasses.replace(MIXED, columns=1))
    for table in one_column:
        agree(table, Partition("model", 2, devices), traced_table=split_everywhere(table, devices))


def test_two_columns_are_a_part_of_model_parallelism(narrow):
    assert Counter(predicted.moves(narrow(), Partition("model", 1, 2), 8)) >= Counter(
        m for m in predicted.moves(narrow(), Partition("columns", 1, 2), 8) if m.layer in ("conv3", "fc6", "fc7", "fc8")
    )


# --- computed by hand -----------------------------------------------------------------------------------------------------------


def test_bytes_of_each_ring_collective_by_hand():
    def bytes_of(kind, devices, pairs=0):
        return Move("x", "forward", kind, 800, devices, pairs).sent

    assert [bytes_of("all_gather", n) for n in (1, 2, 4)] == [0, 400, 600]
    assert [bytes_of("reduce_scatter", n) for n in (1, 2, 4)] == [0, 400, 600]
    assert [bytes_of("all_to_all", n) for n in (1, 2, 4)] == [0, 400, 600]
    assert [bytes_of("psum", n) for n in (1, 2, 4)] == [0, 800, 1200]
    assert [bytes_of("ppermute", n, n - 1) for n in (1, 2, 4)] == [0, 400, 600]


def test_the_two_gpus_of_2012_by_hand():
    """For each of 128 images, conv3 receives 128 maps of 13x13, fc6 4,608 values and fc7 2,048; fc8 sums 1,000."""
    moves = predicted.moves(networks.ALEXNET, Partition("columns", 1, 2), 128)
    crossing = {"conv3": 128 * 13 * 13, "fc6": 128 * 6 * 6, "fc7": 2048, "fc8": 1000}
    for layer, numbers in crossing.items():
        assert sent(moves, layer, "forward") == numbers * 128 * 4
        assert sent(moves, layer, "backward") == (0 if layer == "fc8" else numbers * 128 * 4)
    assert sent(moves) == 2 * 128 * 4 * sum(crossing.values()) - 128 * 4 * 1000


def test_data_parallel_devices_all_reduce_all_gradients():
    moves = predicted.moves(networks.ALEXNET, Partition("columns", 8), 1024)
    assert sent(m for m in moves if m.update) == 2 * 7 / 8 * 4 * parameter_count(networks.ALEXNET)


def test_hybrid_sums_gradients_of_convolutions():
    moves = predicted.moves(networks.ALEXNET_MERGED, Partition("hybrid", 4), 512)
    assert sent(moves, "fc6", "forward") == 3 / 4 * 9216 * 512 * 4 == sent(moves, "fc6", "backward")
    assert sent(moves, "fc7", "forward") == 3 / 4 * 4096 * 512 * 4
    assert {m.layer for m in moves if m.update} == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc8"}


@pytest.mark.parametrize("partition", [Partition("columns", 2, 2), Partition("hybrid", 4), Partition("model", 1, 4)])
def test_devices_share_the_operations(partition):
    table = networks.ALEXNET
    work = predicted.work(table, partition, 128)
    assert sum(layer.forward for layer in work) == pytest.approx(operation_count(table) * 128 / 4)
    assert [layer.backward / layer.forward for layer in work] == [1] + 7 * [2]


@pytest.mark.parametrize(
    ("partition", "make"),
    [
        (Partition("columns", 4, 2), lambda: Columns.over(4, 2)),
        (Partition("columns", 2), lambda: Columns.over(2)),
        (Partition("hybrid", 8), lambda: Hybrid.over(8)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_device_holds_the_predicted_parameters(partition, make, narrow):
    table = narrow(columns=1, kernels="merged") if partition.kind == "hybrid" else narrow()
    leaves = jax.tree.leaves(abstract(table, make()))
    assert predicted.held(table, partition) == sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def test_thousands_of_devices_are_predicted():
    table, devices = networks.ALEXNET_MERGED, 4096
    by_images = sent(predicted.moves(table, Partition("columns", devices), 128 * devices))
    hybrid_ = sent(predicted.moves(table, Partition("hybrid", devices), 128 * devices))
    by_units = predicted.work(table, Partition("model", 1, devices), 128 * devices)
    assert by_images < 2 * 4 * parameter_count(table) < hybrid_  # the gathered batch has 524,288 images
    conv1 = operation_count(table.until("conv1"))
    assert by_units[0].forward == conv1 * 128 * devices / 64  # the 64 maps divide over at most 64 devices


def test_the_prediction_does_not_import_jax():
    code = "import sys, docs.draw_traffic; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_indivisible_numbers_are_rejected():
    with pytest.raises(UsageError, match="--train.batch=128: expected a multiple of 3"):
        predicted.moves(networks.ALEXNET, Partition("columns", 3), 128)
    with pytest.raises(UsageError, match="--train.batch=8: expected a multiple of 16, the 4 shares of 4 slices each"):
        predicted.moves(networks.ALEXNET_MERGED, Partition("hybrid", 4, slices=4), 8)
    with pytest.raises(UsageError, match="--mesh.column=4: expected a divisor of the 2 columns"):
        predicted.moves(networks.ALEXNET, Partition("columns", 1, 4), 128)
    with pytest.raises(UsageError, match="3 devices: expected a multiple of the 2 columns"):
        predicted.moves(networks.ALEXNET, Partition("model", 1, 3), 128)
