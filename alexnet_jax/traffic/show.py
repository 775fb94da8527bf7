"""`--mode=traffic`: the communication and computation of each layer in a training step, and the duration of the step."""

from collections import Counter

from alexnet_jax import columns, hybrid
from alexnet_jax.assembly import build_table
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.formatting import megabytes, percent, text_table
from alexnet_jax.modes import Request
from alexnet_jax.network.table import Table
from alexnet_jax.processes.platforms import check_platforms
from alexnet_jax.traffic import traced
from alexnet_jax.traffic.moves import Move, sent
from alexnet_jax.traffic.predicted import Partition, held, moves, work
from alexnet_jax.traffic.times import Machine, times


def show(request: Request) -> None:
    """Print the tables of a network for any number of devices; none are needed.

    Raises UsageError if network, batch and devices do not fit, RunError if the traced step differs from the prediction.
    """
    check_platforms()
    experiment, rates = request.experiment, request.traffic
    table = build_table(experiment)
    partition = partition_of(experiment)
    options = experiment.train
    counted = _counted(table, experiment, partition)
    found = moves(table, partition, options.batch, options.precision)
    print(
        f"{table.name}: {options.batch:,} images per step in {options.precision} on {partition.devices:,} devices: "
        f"{_described(partition)}\n"
    )
    print(by_layer(table, partition, options.batch, found))
    print(f"\n{NOTE}")
    _compare(found, counted)
    print(f"The traced training step has the same {len(counted):,} collectives, byte for byte.\n")
    machine = None
    if rates.link is not None and rates.compute is not None:
        machine = Machine(rates.compute * 1e12, rates.link * 1e9)
    print(by_partition(table, partition.devices, options.batch, options.precision, machine))


NOTE = """\
MB: 10^6 bytes that one device sends. Operations: multiplications and additions of one device. Gradients: the part of backward
MB that sums gradients of parameters. With ring algorithms over n devices an all-gather or a reduce-scatter of S bytes sends
(n-1)/n S, an all-reduce twice as much."""


def partition_of(experiment: Experiment) -> Partition:
    """Return the partition that the mesh options name; by default over two devices, as in the paper."""
    mesh = experiment.mesh
    if mesh.placement == "hybrid":
        data = mesh.data or 2
        return Partition("hybrid", data, slices=data if mesh.scheme == "slices" else 1)
    column = mesh.column or experiment.network.columns
    return Partition("columns", mesh.data or (1 if column > 1 or mesh.column else 2), column)


def _described(partition: Partition) -> str:
    shares = "the batch undivided" if partition.data == 1 else f"{partition.data:,} shares of the batch"
    if partition.kind == "hybrid":
        slices = f", images gathered in {partition.slices:,} slices" if partition.slices > 1 else ""
        return f"{shares}, units of fully connected layers over all devices{slices} (hybrid)"
    return f"{shares}, columns over {partition.column}"


def by_layer(table: Table, partition: Partition, batch: int, found: list[Move]) -> str:
    """Return a table with a line per layer: MB that one device sends and operations that it computes, by direction."""
    rows: list[tuple[str, ...]] = [
        ("layer", "forward MB", "10^9 operations", "backward MB", "gradients MB", "10^9 operations")
    ]
    layers = work(table, partition, batch)
    for layer in layers:
        own = [move for move in found if move.layer == layer.layer]
        rows.append((layer.layer, *_cells(own, layer.forward, layer.backward)))
    rows.append(("loss", *_cells([m for m in found if m.layer == "loss"], 0, 0)))
    rows.append(("total", *_cells(found, sum(x.forward for x in layers), sum(x.backward for x in layers))))
    return text_table(rows, right=range(1, len(rows[0])))


def _cells(found: list[Move], forward: float, backward: float) -> tuple[str, ...]:
    gradients = sent(move for move in found if move.update)
    sent_forward, sent_backward = (sent(found, direction=direction) for direction in ("forward", "backward"))
    return megabytes(sent_forward), _giga(forward), megabytes(sent_backward), megabytes(gradients), _giga(backward)


def _giga(number: float) -> str:
    return f"{number / 1e9:,.2f}" if number else "-"


def _counted(table: Table, experiment: Experiment, partition: Partition) -> list[Move]:
    if partition.kind == "hybrid":
        placement = hybrid.Hybrid(hybrid.abstract_mesh(partition.data), experiment.mesh.scheme)
    else:
        placement = columns.Columns(columns.abstract_mesh(partition.data, partition.column))
    placement.check_fits(table)
    return traced.moves(table, placement, experiment.train.batch, experiment.train.precision)


def _compare(found: list[Move], counted: list[Move]) -> None:
    predicted, traced_moves = Counter(found), Counter(counted)
    if predicted != traced_moves:
        more, fewer = list((traced_moves - predicted).elements()), list((predicted - traced_moves).elements())
        raise RunError(
            f"The collectives of the traced step differ from the prediction. Only in the step: {more}; only predicted: {fewer}."
        )


def by_partition(table: Table, devices: int, batch: int, precision: str, machine: Machine | None) -> str:
    """Return a table with a line per placement on `devices` devices: bytes sent and, given a machine, the time of a step."""
    timed = ("compute ms", "send ms", "step ms", "at best", "efficiency") if machine is not None else ()
    rows: list[tuple[str, ...]] = [("placement", "10^6 parameters", "forward MB", "backward MB", *timed)]
    notes = []
    for name, partition in _partitions(table, devices).items():
        try:
            found = moves(table, partition, batch, precision)
        except UsageError as problem:
            notes.append(f"{name}: {problem}")
            continue
        row = (
            name,
            f"{held(table, partition) / 1e6:,.2f}",
            *(megabytes(sent(found, direction=direction)) for direction in ("forward", "backward")),
        )
        if machine is not None:
            spent = times(table, partition, batch, machine, precision)
            parts = (spent.compute, spent.communication, spent.step, spent.at_best)
            row += (*(f"{1e3 * seconds:,.1f}" for seconds in parts), percent(spent.efficiency, 1))
        rows.append(row)
    text = f"Predicted for {devices:,} devices, by placement:\n\n{text_table(rows, right=range(1, len(rows[0])))}"
    if machine is not None:
        notes.append(
            "Step: computation, then communication. At best: the longer of the two, with complete overlap.\n"
            "Pooling, normalization, latency, the update and the input are left out."
        )
    return "\n".join([text, *(["", *notes] if notes else [])])


def _partitions(table: Table, devices: int) -> dict[str, Partition]:
    found = {"data parallel": Partition("columns", devices)}
    if table.columns > 1 and devices % table.columns == 0:
        found[f"{table.columns} columns"] = Partition("columns", devices // table.columns, table.columns)
    found["hybrid"] = Partition("hybrid", devices)
    if devices > table.columns:
        found["every layer by maps"] = Partition("model", 1, devices)
    return found
