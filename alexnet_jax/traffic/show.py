"""`--mode=traffic`: what each layer sends and computes in a step, on paper and counted; and how long that takes."""

from collections import Counter

from alexnet_jax.data.classes import class_count
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.formatting import megabytes, percent, text_table
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table
from alexnet_jax.traffic.moves import Move, sent
from alexnet_jax.traffic.predicted import Partition, held, moves, work
from alexnet_jax.traffic.times import Machine, times


def show(request: Request) -> None:
    """Print the tables. Devices are only counted, so any number will do. Raises RunError where paper and program differ."""
    experiment, asked = request.experiment, request.traffic
    table = networks.build(experiment.network, class_count(experiment.data))
    partition = partition_of(experiment)
    options = experiment.train
    counted = _counted(table, experiment, partition)
    found = moves(table, partition, options.batch, options.precision)
    print(
        f"{table.name}: {options.batch:,} images a step in {options.precision} on {partition.devices:,} devices: "
        f"{_described(partition)}\n"
    )
    print(by_layer(table, partition, options.batch, found))
    print(f"\nSent and computed by one device. {RINGS}")
    _compare(found, counted)
    print(f"The traced training step has the same {len(counted):,} collectives, byte for byte.\n")
    machine = None
    if asked.link is not None and asked.compute is not None:
        machine = Machine(asked.compute * 1e12, asked.link * 1e9)
    print(by_partition(table, partition.devices, options.batch, options.precision, machine))


RINGS = "Sent with rings: (n-1)/n of what is gathered or scattered, twice that of what every device gets the sum of."


def partition_of(experiment: Experiment) -> Partition:
    """What the mesh options ask for; left out: the two devices of the paper."""
    mesh, columns = experiment.mesh, experiment.network.columns
    if mesh.placement == "hybrid":
        data = mesh.data or 2
        return Partition("hybrid", data, slices=data if mesh.scheme == "slices" else 1)
    column = mesh.column or columns
    return Partition("columns", mesh.data or (1 if column > 1 or mesh.column else 2), column)


def _described(partition: Partition) -> str:
    shares = "the whole batch" if partition.data == 1 else f"{partition.data:,} shares of the batch"
    if partition.kind == "hybrid":
        slices = f" in {partition.slices:,} slices" if partition.slices > 1 else ""
        return f"{shares}, units of fully connected layers over all of them{slices} (hybrid)"
    return f"{shares}, columns over {partition.column}"


def by_layer(table: Table, partition: Partition, batch: int, found: list[Move]) -> str:
    """A line for each layer: what one device sends and computes, forward and backward, and its part of gradients to sum."""
    rows: list[tuple[str, ...]] = [
        ("layer", "forward: MB", "10^9 operations", "backward: MB", "of it gradients", "10^9 operations")
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
    there, back = (sent(found, direction=direction) for direction in ("forward", "backward"))
    return megabytes(there), _giga(forward), megabytes(back), megabytes(gradients), _giga(backward)


def _giga(number: float) -> str:
    return f"{number / 1e9:,.2f}" if number else "-"


def _counted(table: Table, experiment: Experiment, partition: Partition) -> list[Move]:
    from alexnet_jax import columns, hybrid, model
    from alexnet_jax.traffic import traced

    hybrid_mesh = partition.kind == "hybrid"
    mesh = (
        hybrid.abstract_mesh(partition.data) if hybrid_mesh else columns.abstract_mesh(partition.data, partition.column)
    )
    model.placement(mesh).check_fits(mesh, table)
    return traced.moves(table, mesh, experiment.train.batch, experiment.train.precision, experiment.mesh.scheme)


def _compare(found: list[Move], counted: list[Move]) -> None:
    on_paper, in_program = Counter(found), Counter(counted)
    if on_paper != in_program:
        more, fewer = list((in_program - on_paper).elements()), list((on_paper - in_program).elements())
        raise RunError(
            f"The traced program does not move what paper says. Only in the program: {more}; on paper: {fewer}."
        )


def by_partition(table: Table, devices: int, batch: int, precision: str, machine: Machine | None) -> str:
    """A line for each placement of a network on so many devices: bytes sent, and with a machine the time of a step."""
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
    text = f"Placements on {devices:,} devices, on paper:\n\n{text_table(rows, right=range(1, len(rows[0])))}"
    if machine is not None:
        notes.append(
            "Step: computation, then communication. At best: the longer of the two, all else hidden behind it. Pooling, "
            "normalization, latency, the update and the input are left out."
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
