"""`--mode=import` and `--mode=export`: a run folder from a file of weights, and a file of weights from a checkpoint."""

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from alexnet_jax.assembly import build_table, describe_trained
from alexnet_jax.columns import Columns
from alexnet_jax.data import statistics
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network, to_json
from alexnet_jax.model import abstract
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import LRN, Pool, Table, parameter_count
from alexnet_jax.processes.platforms import check_platforms
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.records import DataIdentity, RunRecord, current_environment
from alexnet_jax.run.restore import restore_parameters
from alexnet_jax.run.workdir import IMPORTED, STATISTICS, Workdir
from alexnet_jax.weights import formats, inputs, layouts
from alexnet_jax.weights.formats import WeightFile


def import_weights(request: Request) -> None:
    """Make a run folder from a file of weights: experiment.json, statistics.npz and a checkpoint at step 0.

    Raises UsageError if the file cannot be read, has the weights of another network, or the folder is not empty or in use.
    """
    check_platforms()
    requested = build_table(request.experiment)
    found = read_network(_path(request), request.experiment.network, requested, request.exchange.channels)
    stats = _statistics(request, found.statistics)
    _save(request, found.parameters, stats)
    if found.unwrapped:
        print(f"Unwrapped: {', '.join(found.unwrapped)}")
    print(_summary(request, found.table, requested.classes, stats, bgr=found.bgr))


@dataclass(frozen=True)
class TrainedNetwork:
    """The content of a file of weights, as a network of this program."""

    table: Table
    parameters: layouts.HostParameters
    statistics: Statistics | None  # None: neither the file nor its program states them
    bgr: bool  # the input channels of conv1 were BGR in the file
    unwrapped: tuple[str, ...] = ()  # see `WeightFile`


def read_network(
    path: Path, network: Network, table: Table, channels: Literal["file", "rgb", "bgr"] = "file"
) -> TrainedNetwork:
    """Return the network in a file of weights, with as many classes as the file has.

    table: that of `network`, for any number of classes. Raises UsageError if the file cannot be read or has the weights of
    another network.
    """
    file, source = formats.read(path), f"--weights={path}"
    tensors, stats = inputs.separate_statistics(file.tensors, source)
    table = networks.build(network, layouts.classes(table, tensors))
    _check_network(network, file, source)
    _check_order(table, file, source)
    parameters = layouts.from_file(table, tensors, source)
    bgr = channels == "bgr" or (channels == "file" and file.channels == "bgr")
    if bgr:
        parameters = layouts.flip_channels(table, parameters)
    return TrainedNetwork(table, parameters, stats or inputs.statistics_of(table.name), bgr, file.unwrapped)


def export_weights(request: Request) -> None:
    """Write the parameters of a checkpoint and the statistics of its run to a .safetensors file.

    Raises UsageError if the checkpoint belongs to another network or the file exists, RunError if it cannot be written.
    """
    check_platforms()
    experiment, path = request.experiment, _path(request)
    table = build_table(experiment)
    step, parameters = restore_parameters(request.restore, request.workdir, abstract(table, Columns.over()))
    parameters = jax.device_get(parameters)
    stats = statistics.restore(step.parents[1] / STATISTICS)
    layout = request.exchange.layout
    tensors = inputs.with_statistics(layouts.to_file(table, parameters, layout), stats)
    notes = {
        "program": "alexnet_jax",
        "layout": layout,
        "channels": "rgb",
        "step": step.name,
        "experiment": json.dumps(to_json(experiment)),
    }
    formats.write(path, tensors, notes, overwrite=request.overwrite)
    print(
        f"{describe_trained(request, step, table)}\n"
        f"Wrote {parameter_count(table):,} parameters of {table.name} to {path}, layout {layout}."
    )


def _path(request: Request) -> Path:
    if request.exchange.weights is None:
        raise UsageError("--weights=FILE is missing. Name the file of weights to read or to write.")
    return request.exchange.weights


def _check_network(network: Network, file: WeightFile, source: str) -> None:
    """Raise UsageError if the file records another network: exported files name theirs, .caffemodel files are Caffe's."""
    requested = dataclasses.asdict(network)
    recorded = file.network or ({"name": "caffe_alexnet"} if file.order else {})
    for option in [name for name in requested if name in recorded and name not in ("init", "biases")]:
        if requested[option] != recorded[option]:
            raise UsageError(
                f"{source} contains the weights of a network with --network.{option}={recorded[option]}, but "
                f"{requested[option]} was requested. Use the --exp and --network.* of that network."
            )


def _check_order(table: Table, file: WeightFile, source: str) -> None:
    """Raise UsageError if the layers of a .caffemodel are in another order, such as pool1 before norm1 in CaffeNet."""
    for number, spec in enumerate(table.layers, 1):
        ours = [kind for part in spec.after for kind, cls in (("norm", LRN), ("pool", Pool)) if isinstance(part, cls)]
        theirs = [name for name in file.order if name in (f"norm{number}", f"pool{number}")]
        if theirs and theirs != [f"{kind}{number}" for kind in ours]:
            raise UsageError(
                f"{source}: its network has {', '.join(theirs)} after {spec.name}, but {table.name} has "
                f"{', '.join(ours) or 'neither'}, so it would compute something else. Use weights of {table.name}."
            )


def _statistics(request: Request, found: Statistics | None) -> Statistics | None:
    if request.exchange.mean_image is None:
        return found
    mean = inputs.mean_image(request.exchange.mean_image)
    return dataclasses.replace(found, mean=mean) if found else Statistics(mean, 1.0)


def _save(request: Request, parameters: layouts.HostParameters, stats: Statistics | None) -> None:
    path = _path(request).absolute()
    workdir = Workdir(request.workdir)
    with workdir.locked():
        if request.overwrite:
            workdir.clear()
        elif existing := sorted(workdir.contents()):
            raise UsageError(
                f"--workdir={workdir.path} already contains {', '.join(existing[:5])}. Choose another folder or use --overwrite."
            )
        data = DataIdentity(f"{IMPORTED}{path.name}", _digest(path))
        record = RunRecord(request.experiment, data, current_environment(), str(path), has_statistics=stats is not None)
        workdir.write_record(record)
        if stats is not None:
            statistics.save(stats, workdir.path / STATISTICS)
        with contextlib.closing(Checkpoints(workdir.path / "checkpoints")) as checkpoints:
            checkpoints.save(0, parameters)
            checkpoints.wait()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _summary(request: Request, table: Table, expected: int, stats: Statistics | None, *, bgr: bool) -> str:
    """Return a description of the imported weights and the commands that use them."""
    command = f"python launch.py --exp={request.experiment.name}"
    lines = [
        f"{request.exchange.weights}: {parameter_count(table):,} parameters of {table.name}, {table.classes} classes; the "
        f"input channels of conv1 were {'BGR and are now RGB' if bgr else 'RGB'}.",
        f"Inputs: {_inputs(stats)}.",
        f"Run folder: {request.workdir}",
    ]
    if table.classes == expected:
        lines.append(f"Test error: {command} --mode=eval --workdir={request.workdir}")
    lines.append(
        f"Fine-tuning: {command} --restore={request.workdir} --restore_skip={table.layers[-1].name} --workdir=..."
    )
    return "\n".join(lines)


def _inputs(stats: Statistics | None) -> str:
    if stats is None:
        return "no mean and scale recorded; those of the training split will be used"
    average, scale = stats.mean.mean((0, 1)), np.broadcast_to(stats.scale, (1, 1, 3))[0, 0]
    colours, scales = (", ".join(f"{number:g}" for number in x) for x in (average, scale))
    return f"mean {'x'.join(map(str, stats.mean.shape))} ({colours}), scale {scales}; RGB from 0 to 255"
