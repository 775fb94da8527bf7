"""--mode=import and --mode=export: files of weights into a run's folder, and out of it."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from alexnet_jax import columns
from alexnet_jax.data import statistics
from alexnet_jax.data.classes import class_count
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import to_json
from alexnet_jax.model import abstract
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import LRN, Pool, Table, parameter_count
from alexnet_jax.run import report
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.restore import restore_parameters
from alexnet_jax.run.workdir import STATISTICS, Workdir
from alexnet_jax.weights import formats, inputs, layouts
from alexnet_jax.weights.formats import WeightFile


def import_weights(request: Request) -> None:
    """Make a run's folder of a file of weights: experiment.json, statistics.npz and a checkpoint of step 0.

    Raises UsageError when the file cannot be read or is another network's, or the folder is in use.
    """
    file, source = formats.read(_path(request)), f"--weights={request.exchange.weights}"
    tensors, found = inputs.separate_statistics(file.tensors, source)
    expected = class_count(request.experiment.data)
    table = networks.build(request.experiment.network, expected)
    table = networks.build(request.experiment.network, layouts.classes(table, tensors))
    _check_network(request, file, source)
    _check_order(table, file, source)
    parameters = layouts.from_file(table, tensors, source)
    bgr = request.exchange.channels == "bgr" or (request.exchange.channels == "file" and file.channels == "bgr")
    if bgr:
        parameters = layouts.flip_channels(table, parameters)
    stats = _statistics(request, found or inputs.statistics_of(table.name))
    _save(request, parameters, stats)
    print(_told(request, table, expected, stats, bgr=bgr))


def export_weights(request: Request) -> None:
    """Write the parameters of a checkpoint, and the statistics of its run, to a .safetensors file.

    Raises UsageError when the checkpoint is another network's or the file is there, RunError when it cannot be written.
    """
    experiment, path = request.experiment, _path(request)
    table = networks.build(experiment.network, class_count(experiment.data))
    step, parameters = restore_parameters(request.restore, request.workdir, abstract(table, columns.make_mesh()))
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
        f"Checkpoint: {step}\nWrote {parameter_count(table):,} parameters of {table.name} to {path}, layout {layout}."
    )


def _path(request: Request) -> Path:
    if request.exchange.weights is None:
        raise UsageError("--weights=FILE is missing: the file of weights to read or to write.")
    return request.exchange.weights


def _check_network(request: Request, file: WeightFile, source: str) -> None:
    """Equal shapes are not equal networks: a file that we wrote says whose weights it holds, and Caffe's are Caffe's."""
    here = dataclasses.asdict(request.experiment.network)
    there = file.network or ({"name": "caffe_alexnet"} if file.order else {})
    for option in [name for name in here if name in there and name not in ("init", "biases")]:
        if here[option] != there[option]:
            raise UsageError(
                f"{source} holds the weights of a network with --network.{option}={there[option]}; asked for is "
                f"{here[option]}. Give --exp and --network.* of that network."
            )


def _check_order(table: Table, file: WeightFile, source: str) -> None:
    """A .caffemodel lists its layers: the same weights mean another network where pool1 stands before norm1, as in CaffeNet."""
    for number, spec in enumerate(table.layers, 1):
        ours = [kind for part in spec.after for kind, cls in (("norm", LRN), ("pool", Pool)) if isinstance(part, cls)]
        theirs = [name for name in file.order if name in (f"norm{number}", f"pool{number}")]
        if theirs and theirs != [f"{kind}{number}" for kind in ours]:
            raise UsageError(
                f"{source}: its network has {', '.join(theirs)} after {spec.name}; {table.name} has "
                f"{', '.join(ours) or 'neither'}. The same weights would mean something else there; give this network's."
            )


def _statistics(request: Request, found: Statistics | None) -> Statistics | None:
    if request.exchange.mean_image is None:
        return found
    return dataclasses.replace(
        found or Statistics(np.zeros(0), 1.0), mean=inputs.mean_image(request.exchange.mean_image)
    )


def _save(request: Request, parameters: layouts.Numbers, stats: Statistics | None) -> None:
    path = _path(request).absolute()
    workdir = Workdir(request.workdir)
    with workdir.locked():
        if request.overwrite:
            workdir.clear()
        elif others := sorted(p.name for p in workdir.path.iterdir() if p.name != ".lock"):
            raise UsageError(
                f"--workdir={workdir.path} holds {', '.join(others[:5])} already. Choose another, or give --overwrite."
            )
        data = {"title": f"weights of {path.name}", "fingerprint": _digest(path)}
        workdir.write_record(request.experiment, data, report.environment(), str(path))
        if stats is not None:
            statistics.save(stats, workdir.path / STATISTICS)
        checkpoints = Checkpoints(workdir.path / "checkpoints")
        try:
            checkpoints.save(0, parameters)
            checkpoints.wait()
        finally:
            checkpoints.close()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _told(request: Request, table: Table, expected: int, stats: Statistics | None, *, bgr: bool) -> str:
    """What was understood, and what one can do now."""
    again = f"python launch.py --exp={request.experiment.name}"
    lines = [
        f"{request.exchange.weights}: {parameter_count(table):,} parameters of {table.name}, {table.classes} classes; conv1's "
        f"channels were {'BGR, turned to RGB' if bgr else 'RGB'}.",
        f"Inputs: {_inputs(stats)}.",
        f"Saved as {request.workdir}.",
    ]
    if table.classes == expected:
        lines.append(f"Test error: {again} --mode=eval --workdir={request.workdir}")
    lines.append(
        f"Fine-tuning: {again} --restore={request.workdir} --restore_skip={table.layers[-1].name} --workdir=..."
    )
    return "\n".join(lines)


def _inputs(stats: Statistics | None) -> str:
    if stats is None:
        return "not known; mean and scale will be those of the training split"
    average, scale = stats.mean.mean((0, 1)), np.broadcast_to(stats.scale, (1, 1, 3))[0, 0]
    colours, scales = (", ".join(f"{number:g}" for number in x) for x in (average, scale))
    return f"mean {'x'.join(map(str, stats.mean.shape))} ({colours}), scale {scales}; RGB on the 0..255 scale"
