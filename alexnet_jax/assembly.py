"""From an experiment to its mesh, table of layers, statistics, data, trainer and evaluator; and to a trained network."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from alexnet_jax import columns, hybrid
from alexnet_jax.data import order, pipeline, sources, statistics
from alexnet_jax.data.split import DataSet, Split, Stream
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluate import Evaluator
from alexnet_jax.experiment import Experiment
from alexnet_jax.model import Parameters, abstract, placement
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table
from alexnet_jax.processes import distributed
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.run.restore import find_step, restore_parameters
from alexnet_jax.run.workdir import STATISTICS
from alexnet_jax.train import Trainer


def make_mesh(experiment: Experiment) -> Mesh:
    """The devices an experiment asks for, in its placement. Starts jax's backend. Raises UsageError when there are too few."""
    asked = experiment.mesh
    data, column = columns.mesh_shape(len(jax.devices()), experiment.network.columns, asked.data, asked.column)
    return hybrid.make_mesh(data) if asked.placement == "hybrid" else columns.make_mesh(data, column)


def make_trainer(
    experiment: Experiment, data_set: DataSet, stats: Statistics | None = None, *, to_train: bool = True
) -> tuple[Trainer, Split | Stream, Split | Stream]:
    """Mesh, table and statistics for an experiment, with the training and validation splits. Starts jax's backend.

    `stats`: those that the parameters were trained with, if they are known; measured otherwise. Unless it is `to_train` a
    data set may be smaller than what training holds out and takes at a time.
    """
    data, options = experiment.data, experiment.train
    held = data.validation if to_train else min(data.validation, len(data_set.train) - 1)
    training, validation = pipeline.hold_out(data_set, held, fold_in=data.fold_in)
    mesh = make_mesh(experiment)
    distributed.check_mesh(mesh)
    if to_train:
        _check_batch(experiment, columns.data_replicas(mesh))
    table = networks.build(experiment.network, len(data_set.classes))
    placement(mesh).check_fits(mesh, table)
    _check_image(experiment, data_set, table)
    per_epoch = order.steps_per_epoch(len(training), options.batch if to_train else 1)
    if stats is None or (to_train and data.colour != "none" and stats.colour is None):
        measured = statistics.measure(training, data)
        stats = measured if stats is None else dataclasses.replace(stats, colour=measured.colour)
    _check_mean(stats, data_set)
    return Trainer(experiment, table, mesh, stats, per_epoch), training, validation


def _check_batch(experiment: Experiment, devices: int) -> None:
    batch, slices = experiment.train.batch, devices if experiment.mesh.scheme == "slices" else 1
    if batch % (devices * slices):
        of = f", in {slices} slices each (--mesh.scheme=slices)" if slices > 1 else ""
        raise UsageError(
            f"--train.batch={batch} does not divide over {devices} data-parallel devices{of}. "
            f"Choose a multiple of {devices * slices}, or another --mesh.data."
        )


def _check_image(experiment: Experiment, data_set: DataSet, table: Table) -> None:
    """The images, or what is cut out of them, are those the network expects."""
    side, _, channels = data_set.train.image
    crop, padding = experiment.data.crop, experiment.data.crop_padding
    if crop > side + 2 * padding or (experiment.data.views > 1 and crop >= side):
        raise UsageError(f"--data.crop={crop}: expected less than the {side} pixels of {data_set.title}.")
    seen = (crop or side, crop or side, channels)
    if seen != table.image:
        found, expected = ("x".join(map(str, shape)) for shape in (seen, table.image))
        raise UsageError(
            f"{data_set.title} with --data.crop={crop} gives images of {found}, but {table.name} expects {expected}. "
            "Change --data.name, --data.crop or --network.name."
        )


def _check_mean(stats: Statistics, data_set: DataSet) -> None:
    """A mean image that came with the parameters is as large as the images here."""
    if stats.mean.shape not in ((1, 1, 3), data_set.train.image):
        trained, here = ("x".join(map(str, shape)) for shape in (stats.mean.shape, data_set.train.image))
        raise UsageError(
            f"These parameters were trained with a mean image of {trained}, but the images of {data_set.title} are {here}. "
            "Give pictures of that size (--data.side), or parameters trained with --data.mean=channel."
        )


def make_evaluator(trainer: Trainer) -> Evaluator:
    """The evaluator of what this trainer trains."""
    return Evaluator(trainer.table, trainer.mesh, trainer.stats, trainer.experiment.data, trainer.experiment.train)


def described(mesh: Mesh) -> str:
    """A mesh in words."""
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    axes += ", hybrid" if hybrid.is_hybrid(mesh) else ""
    return f"mesh {axes} ({mesh.devices.flat[0].device_kind})"


@dataclass(frozen=True)
class Trained:
    """A network as a checkpoint has it, and the data it was trained on."""

    checkpoint: Path
    """The folder of its step."""
    trainer: Trainer
    parameters: Parameters
    data_set: DataSet
    splits: dict[str, Split | Stream]
    """train (without the images held out), validation and test."""


def load_trained(request: Request) -> Trained:
    """The checkpoint that a request names, the latest by default, on the devices. Raises UsageError when there is none."""
    set_up_devices(request.experiment, request.process)
    step = find_step(request.restore or "latest", request.workdir)
    data_set = distributed.leader_first(lambda: sources.load(request.experiment.data))
    make = functools.partial(make_trainer, request.experiment, data_set, trained_with(step), to_train=False)
    trainer, training, validation = distributed.leader_first(make)
    distributed.check_same({"data": data_set.fingerprint, "checkpoint": str(step)})
    distributed.connect(trainer.mesh)
    step, parameters = restore_parameters(request.restore, request.workdir, abstract(trainer.table, trainer.mesh))
    splits = {"train": training, "validation": validation, "test": data_set.test}
    return Trained(step, trainer, parameters, data_set, splits)


def trained_with(step_folder: Path) -> Statistics | None:
    """The statistics that lie with the run of a checkpoint: a network sees images as it was trained to. None: none do."""
    return statistics.restore(step_folder.parents[1] / STATISTICS)
