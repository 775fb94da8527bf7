"""From an experiment to its parts: mesh, table of layers, statistics, data, trainer, evaluator; and to a trained network."""

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from alexnet_jax import optim
from alexnet_jax.columns import Columns, mesh_shape
from alexnet_jax.data import order, pipeline, registry, statistics
from alexnet_jax.data.dataset import DataSet, Split
from alexnet_jax.data.pipeline import Feed
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.evaluate import Evaluator
from alexnet_jax.experiment import Data, Experiment, differences
from alexnet_jax.hybrid import Hybrid
from alexnet_jax.model import Parameters, abstract
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.placement import Placement
from alexnet_jax.network.table import Table, parameter_count
from alexnet_jax.processes import distributed
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.run.restore import find_step, restore_parameters
from alexnet_jax.run.workdir import IMPORTED, STATISTICS, Workdir
from alexnet_jax.train import Trainer


@dataclass(frozen=True)
class Setup:
    """An experiment on its devices and its data: what training, evaluation and every look at a network need."""

    experiment: Experiment
    table: Table
    placement: Placement
    stats: Statistics
    data_set: DataSet
    training: Split
    """The training split without the images held out for validation."""
    validation: Split

    @property
    def splits(self) -> dict[str, Split]:
        """{train, validation, test}, by the names of --split."""
        return {"train": self.training, "validation": self.validation, "test": self.data_set.test}

    def feed(self, split: str) -> Feed:
        """Return the batches of a split on the devices."""
        return pipeline.feed(self.splits[split], self.placement, self.experiment.data.workers)

    def trainer(self) -> Trainer:
        """Return the trainer of this experiment. Raises UsageError when the training split is smaller than a batch."""
        steps = order.steps_per_epoch(len(self.training), self.experiment.train.batch)
        return Trainer(self.experiment, self.table, self.placement, self.stats, steps)

    def evaluator(self, *, central: bool = False) -> Evaluator:
        """Return an evaluator that sees images as training does; central: only the central view, whatever data.views says."""
        data = self.experiment.data
        data = replace(data, views=1) if central else data
        return Evaluator(self.table, self.placement, self.stats, data, self.experiment.train)


def build_table(experiment: Experiment) -> Table:
    """Return the table of layers of an experiment. Raises UsageError when its options do not fit together."""
    return networks.build(experiment.network, registry.class_count(experiment.data), experiment.data.crop)


def make_placement(experiment: Experiment) -> Placement:
    """Return the placement that an experiment asks for; starts jax's backend. Raises UsageError for too few devices."""
    asked = experiment.mesh
    data, column = mesh_shape(len(jax.devices()), experiment.network.columns, asked.data, asked.column)
    return Hybrid.over(data, asked.scheme) if asked.placement == "hybrid" else Columns.over(data, column)


def describe(placement: Placement) -> str:
    """Return a placement in words: the shape of its mesh and the kind of its devices."""
    mesh = placement.mesh
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    axes += ", hybrid" if isinstance(placement, Hybrid) else ""
    return f"mesh {axes} ({mesh.devices.flat[0].device_kind})"


def assemble_training(
    experiment: Experiment, data_set: DataSet, stats: Statistics | None = None, new_layers: tuple[str, ...] = ()
) -> Setup:
    """Assemble an experiment in order to train it.

    Args:
      experiment: The options.
      data_set: The data.
      stats: Statistics that the parameters were trained with. They are measured on the training split when omitted.
      new_layers: Layers whose learning rate is multiplied by --optim.new_rate.

    Raises:
      UsageError: The network does not fit the mesh or the images, or the batch does not fit the mesh or the training split.
    """
    options = experiment.data
    training, validation = order.hold_out(data_set, options.validation, fold_in=options.fold_in)
    placement = make_placement(experiment)
    distributed.check_mesh(placement.mesh)
    _check_batch(experiment, placement)
    table = _fitting_table(experiment, data_set, placement)
    order.steps_per_epoch(len(training), experiment.train.batch)  # a batch that is too large is reported before measuring
    if stats is None:
        stats = statistics.measure(training, options)
    elif options.colour != "none" and stats.colour is None:
        stats = replace(stats, colour=statistics.measure(training, options).colour)
    _check_mean(stats, data_set)
    table = optim.with_rate(table, new_layers, experiment.optim.new_rate)
    return Setup(experiment, table, placement, stats, data_set, training, validation)


def assemble(experiment: Experiment, data_set: DataSet, stats: Statistics | None = None) -> Setup:
    """Assemble an experiment in order to run its network without training it.

    The data set may be smaller than a batch. Arguments and errors are those of `assemble_training`.
    """
    options = experiment.data
    training, validation = order.hold_out(data_set, options.validation, fold_in=options.fold_in)
    placement = make_placement(experiment)
    distributed.check_mesh(placement.mesh)
    table = _fitting_table(experiment, data_set, placement)
    stats = stats or statistics.measure(training, options)
    _check_mean(stats, data_set)
    return Setup(experiment, table, placement, stats, data_set, training, validation)


def report_validation(options: Data, given: frozenset[str], data_set: DataSet) -> None:
    """Print how many images are held out if it is not the requested number. Raises UsageError if the user gave that number."""
    requested, images = options.validation, len(data_set.train)
    if data_set.validation:
        if "data.validation" in given:
            print(f"--data.validation={requested} has no effect: the data set has {data_set.validation:,} validation images.")
    elif requested >= images:
        if "data.validation" in given:
            raise UsageError(
                f"--data.validation={requested}: expected fewer than the {images:,} training images of {data_set.title}."
            )
        held = order.held_out(images, requested)
        print(f"Only {images:,} training images: {held:,} of them, one in ten, are held out (--data.validation).")


def _fitting_table(experiment: Experiment, data_set: DataSet, placement: Placement) -> Table:
    table = networks.build(experiment.network, len(data_set.classes), experiment.data.crop)
    placement.check_fits(table)
    _check_image(experiment, data_set, table)
    return table


def _check_batch(experiment: Experiment, placement: Placement) -> None:
    batch, devices, slices = experiment.train.batch, placement.replicas, placement.slices
    if batch % (devices * slices):
        of = f", in {slices} slices each (--mesh.scheme=slices)" if slices > 1 else ""
        raise UsageError(
            f"--train.batch={batch} does not divide over {devices} data-parallel devices{of}. "
            f"Choose a multiple of {devices * slices}, or another --mesh.data."
        )


def _check_image(experiment: Experiment, data_set: DataSet, table: Table) -> None:
    """Raise UsageError unless the images, or the crops of them, have the shape that the network expects."""
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
    """Raise UsageError unless a mean image that was saved with the parameters has the size of the images."""
    if stats.mean.shape not in ((1, 1, 3), data_set.train.image):
        trained, here = ("x".join(map(str, shape)) for shape in (stats.mean.shape, data_set.train.image))
        raise UsageError(
            f"These parameters were trained with a mean image of {trained}, but the images of {data_set.title} are {here}. "
            "Give pictures of that size (--data.side), or parameters trained with --data.mean=channel."
        )


# --- trained networks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A network with the parameters of a checkpoint, and the data it was trained on."""

    setup: Setup
    checkpoint: Path
    """The folder of its step."""
    parameters: Parameters
    description: str
    """See `describe_trained`."""


def trained_with(checkpoint: Path) -> Statistics | None:
    """Return the statistics of the run that a checkpoint belongs to; None if it has to measure its own again.

    If the file was lost, they are those of the run that it started from. Raises RunError if that run is gone too, or if the
    parameters came from a file of weights.
    """
    workdir = Workdir(checkpoint.parents[1])
    found, record = statistics.restore(workdir.path / STATISTICS), None
    with contextlib.suppress(RunError):  # a damaged record does not keep a checkpoint from being read
        record = workdir.record() if found is None else None
    if record is None or record.restored_from is None or record.has_statistics is False:
        return found
    if not Path(record.restored_from).is_dir():
        if Path(record.restored_from).suffix and record.has_statistics is None:  # weights imported by an earlier version
            return found
        raise RunError(
            f"{workdir.path / STATISTICS} is missing, and it cannot be read again from {record.restored_from}, where this run "
            "started: the numbers that normalize its images are lost. Restore the file from a copy."
        )
    return trained_with(Path(record.restored_from))


def describe_trained(
    request: Request, checkpoint: Path, table: Table, data: str | None = None, fingerprint: str = ""
) -> str:
    """Return one line: network, parameters, checkpoint and data; and a second one if options differ from those of the run.

    Args:
      request: The command.
      checkpoint: The folder of a step, in the folder of a run.
      table: The network.
      data: Title of the data set, if the mode reads one.
      fingerprint: Fingerprint of the data set.
    """
    options = request.experiment.network
    width = f"width {options.width:g}, " if options.width != 1 else ""
    line = f"Network: {options.name} ({width}{parameter_count(table):,} parameters). Checkpoint: {checkpoint}."
    line += f" Data: {data}." if data else ""
    record = None
    with contextlib.suppress(RunError, UsageError):  # a damaged record does not keep a checkpoint from being read
        record = Workdir(checkpoint.parents[1]).record()
    if record is None:
        return line
    imported = record.data.title.startswith(IMPORTED)
    if data and fingerprint != record.data.fingerprint and not imported:
        line += f"\nWarning: this is not the data that the run was trained on, which was {record.data.title}."
    differing = {} if imported else differences(record.experiment, request.experiment)
    if differing:
        listed = ", ".join(f"--{name}={new} ({old} in the run)" for name, (old, new) in differing.items())
        line += f"\nOptions that differ from those of the run: {listed}."
    return line


def load_trained(request: Request) -> Trained:
    """Restore the checkpoint that a request names, the latest by default. Raises UsageError when it does not exist."""
    set_up_devices(request.experiment, request.process)
    checkpoint = find_step(request.restore or "latest", request.workdir)
    data_set = distributed.leader_first(lambda: registry.load(request.experiment.data))
    setup = distributed.leader_first(
        functools.partial(assemble, request.experiment, data_set, trained_with(checkpoint)),
    )
    distributed.check_same({"data": data_set.fingerprint, "checkpoint": str(checkpoint)})
    distributed.connect(setup.placement.mesh)
    expected = abstract(setup.table, setup.placement)
    checkpoint, parameters = restore_parameters(request.restore, request.workdir, expected)
    description = describe_trained(request, checkpoint, setup.table, data_set.title, data_set.fingerprint)
    return Trained(setup, checkpoint, parameters, description)
