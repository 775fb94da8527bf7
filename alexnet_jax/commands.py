"""What each --mode does, from a checked request to files and a line on the terminal."""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh as DeviceMesh

from alexnet_jax import columns, hybrid, optim
from alexnet_jax.data import order, pipeline, sources, statistics
from alexnet_jax.data.classes import class_count
from alexnet_jax.data.pipeline import Feed
from alexnet_jax.data.split import DataSet, Split, Stream
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import DataNotFoundError, Interrupted, RunError, UsageError
from alexnet_jax.evaluate import Evaluator, Scores, Stopped
from alexnet_jax.experiment import DIGITS, Experiment, Request, flatten, from_json
from alexnet_jax.model import Parameters, abstract, placement
from alexnet_jax.network import build as networks
from alexnet_jax.network.summary import summary
from alexnet_jax.network.table import Table, parameter_count
from alexnet_jax.processes import distributed
from alexnet_jax.processes.allocator import accelerated
from alexnet_jax.processes.compiled import keep_compiled
from alexnet_jax.processes.identity import Place
from alexnet_jax.processes.signals import Signals
from alexnet_jax.processes.start import devices_each
from alexnet_jax.run import report
from alexnet_jax.run.checkpoint import Checkpoints, restore_latest
from alexnet_jax.run.metrics import Metrics, Unwritten, read_metrics
from alexnet_jax.run.restore import PARAMETERS, find_step, restore_parameters, restore_tree
from alexnet_jax.run.workdir import RANKS, RESULT, STATISTICS, Workdir
from alexnet_jax.train import Loop, State, Trainer


def summarize(request: Request) -> None:
    """Print the table of layers."""
    experiment = request.experiment
    print(summary(networks.build(experiment.network, class_count(experiment.data))))


def train(request: Request) -> None:
    """Start a run, or go on with it; print its result when it is already finished."""
    # Before orbax, which starts jax's backend, looks for a checkpoint to restore.
    set_up_devices(request.experiment, request.place)
    with distributed.together(), contextlib.ExitStack() as held:
        restored_from = check_request(request)
        request, data_set = distributed.in_turn(functools.partial(_find_data, request))
        _check_continues(request, restored_from)
        stats = _statistics(request, restored_from)
        trainer, *splits = distributed.in_turn(functools.partial(make_trainer, request.experiment, data_set, stats))
        faster = optim.with_rate(trainer.table, request.restore_skip, request.experiment.optim.new_rate)
        trainer = dataclasses.replace(trainer, table=faster)
        options = {k: v for k, v in flatten(request.experiment).items() if k not in A_MACHINES_OWN}
        what = {"data": data_set.fingerprint, "options": json.dumps(options), "starting point": str(restored_from)}
        distributed.check_same(what | {"folder": str(request.workdir.absolute())})
        distributed.connect(trainer.mesh)
        given = None
        if restored_from is not None and (request.overwrite or Workdir(request.workdir).record() is None):
            given = _given(trainer, restored_from, request.restore_skip)
        if distributed.told(functools.partial(_begin, held, request, trainer, data_set, restored_from)):
            _run(request, trainer, data_set, splits, restored_from, given)


A_MACHINES_OWN = ("data.dir", "data.prepared", "data.workers")
"""Options that may differ between the processes of a run."""


def _begin(
    held: contextlib.ExitStack, request: Request, trainer: Trainer, data_set: DataSet, restored_from: str | None
) -> bool:
    """Lock the folder, for as long as `held` lasts, and write down what is trained there; False: the run is finished."""
    workdir = Workdir(request.workdir)
    held.enter_context(workdir.locked())
    if request.overwrite:
        # Only now: whatever could be wrong with the command has been found, and what it starts from read.
        workdir.clear()
    result = workdir.result()
    if result is not None and result["steps"] >= trainer.total_steps:
        print(f"This run is finished: {_result_line(result)}\n{workdir.path / 'report.md'}")
        return False
    identity = {"title": data_set.title, "fingerprint": data_set.fingerprint}
    _check_same_data(workdir, identity)
    workdir.write_record(request.experiment, identity, report.environment(), restored_from, request.restore_skip)
    statistics.save(trainer.stats, workdir.path / STATISTICS)
    return True


def check_request(request: Request) -> str | None:
    """The step folder that a training starts from, None for fresh parameters. Raises UsageError where it may not start."""
    _check_skipped(request, networks.build(request.experiment.network, class_count(request.experiment.data)))
    restored_from = _restored_from(request)
    _check_continues(request, restored_from)
    return restored_from


def _check_continues(request: Request, restored_from: str | None) -> None:
    Workdir(request.workdir).check_continues(
        request.experiment, restored_from, request.restore_skip, overwrite=request.overwrite
    )


def _check_skipped(request: Request, table: Table) -> None:
    names = [spec.name for spec in table.layers]
    for name in request.restore_skip:
        if name not in names:
            raise UsageError(f"--restore_skip={name}: {table.name} has no such layer. There are: {', '.join(names)}.")


def _restored_from(request: Request) -> str | None:
    restore = request.restore
    if restore is None:
        return None
    if restore in ("latest", "best") or restore.isdigit():
        raise UsageError(
            f"--restore={restore} in train mode: a run goes on from its latest checkpoint by itself. Give the path of a run "
            "or checkpoint to start a new run from its parameters, or --mode=eval to evaluate this checkpoint."
        )
    return str(find_step(restore, request.workdir))


def _statistics(request: Request, restored_from: str | None) -> Statistics | None:
    """Those the run began with, else those of the run it starts from; None: they have to be measured."""
    workdir = Workdir(request.workdir)
    if not request.overwrite and workdir.record() is not None:
        return statistics.restore(workdir.path / STATISTICS)
    found = None if restored_from is None else _trained_with(Path(restored_from))
    return found and dataclasses.replace(found, colour=None)  # its noise may have been of another reading


def _trained_with(step_folder: Path) -> Statistics | None:
    """The statistics that lie with the run of a checkpoint: a network sees images as it was trained to. None: none do."""
    return statistics.restore(step_folder.parents[1] / STATISTICS)


def _find_data(request: Request) -> tuple[Request, DataSet]:
    """The data, or the digits in its place where design and user allow that."""
    experiment = request.experiment
    try:
        return request, sources.load(experiment.data)
    except DataNotFoundError as problem:
        named = experiment.data.dir is not None or "TFDS_DATA_DIR" in os.environ
        plain = experiment.data.fallback == "digits" and request.restore is None and not named
        if not plain or Workdir(request.workdir).record() is not None:
            raise
        print(f"{problem}\n\nGoing on with scikit-learn's handwritten digits instead, to show the program at work.\n")
    name = f"{experiment.name}-on-digits"
    # The folder follows the name unless --workdir chose one.
    folder = request.workdir
    folder = folder.with_name(name) if folder.name == experiment.name else folder
    experiment = dataclasses.replace(experiment, name=name, data=DIGITS)
    return dataclasses.replace(request, experiment=experiment, workdir=folder), sources.load(DIGITS)


def set_up_devices(experiment: Experiment, place: Place | None = None) -> None:
    """Everything that must be said before jax touches a device: virtual CPU devices, compiled programs, determinism.

    As one of several processes it also meets the others. Raises RunError when it cannot.
    """
    wanted = devices_each(experiment.mesh, (place and place.count) or 1)
    made = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009 - jax gives it no type
    if wanted > max(1, made):  # has no effect where there is an accelerator
        jax.config.update("jax_num_cpu_devices", wanted)
    if experiment.train.compile_cache:
        keep_compiled()
    if accelerated():  # what one column waits for from the other is sent while both go on with what needs none of it
        _add_flag("--xla_gpu_enable_latency_hiding_scheduler=true")
    if experiment.train.deterministic:
        _add_flag("--xla_gpu_deterministic_ops=true")
    if place is not None:
        distributed.join(place)


def _add_flag(flag: str) -> None:
    """Of XLA, read at jax's first use of a device; one that the user set stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


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


def make_mesh(experiment: Experiment) -> DeviceMesh:
    """The devices an experiment asks for, in its placement. Starts jax's backend. Raises UsageError when there are too few."""
    asked = experiment.mesh
    data, column = columns.mesh_shape(len(jax.devices()), experiment.network.columns, asked.data, asked.column)
    return hybrid.make_mesh(data) if asked.placement == "hybrid" else columns.make_mesh(data, column)


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


def _run(
    request: Request,
    trainer: Trainer,
    data_set: DataSet,
    splits: list[Split | Stream],
    restored_from: str | None,
    given: Parameters | None,
) -> None:
    experiment, workdir = request.experiment, Workdir(request.workdir)
    evaluator = make_evaluator(trainer)
    state = _first_state(trainer, workdir.path / "checkpoints")
    if state is None and restored_from is not None:
        given = given or _given(trainer, restored_from, request.restore_skip)
    state = state or trainer.initial_state(given)
    checkpoints = Checkpoints(workdir.path / "checkpoints", experiment.train.keep)
    try:
        print(_opening(trainer, data_set, workdir, int(state.step), len(splits[0])))
        with (Metrics if distributed.leads() else Unwritten)(
            workdir.path,
            data_title=data_set.title,
            total_steps=trainer.total_steps,
            steps_per_epoch=trainer.steps_per_epoch,
            first_step=int(state.step),
            log_every=experiment.train.log_every,
        ) as metrics:
            training, validation, test = (
                pipeline.feed(split, trainer.mesh, experiment.data.workers) for split in (*splits, data_set.test)
            )
            loop = Loop(trainer, training, validation, evaluator, metrics, checkpoints)
            step = int(state.step)
            state = loop.run(state, validate=bool(distributed.told(lambda: int(checkpoints.unvalidated(step)))))
            scores, ranks = _test(evaluator, state, test)
            if distributed.leads():
                np.save(workdir.path / RANKS, ranks)
            metrics.test(int(state.step), dataclasses.asdict(scores))
    finally:
        checkpoints.close()
    if distributed.leads():
        _finish(request, workdir, data_set, scores, int(state.step))


def _test(evaluator: Evaluator, state: State, test: Feed) -> tuple[Scores, np.ndarray]:
    """Scores and ranks on the test images. Raises Interrupted after a signal: all is saved by then."""
    with Signals(distributed.Agreement(evaluator.mesh)) as signals:
        try:
            return evaluator.examine(state.parameters, test, signals.came)
        except Stopped:
            assert signals.received is not None
            raise Interrupted(signals.received, int(state.step)) from None


def _check_same_data(workdir: Workdir, identity: dict[str, str]) -> None:
    record = workdir.record()
    if record is not None and record["data"]["fingerprint"] != identity["fingerprint"]:
        raise UsageError(
            f"{workdir.path} was trained on {record['data']['title']} (fingerprint {record['data']['fingerprint']}), but the "
            f"data found now is {identity['title']} ({identity['fingerprint']}). Give the old data with --data.dir (or with "
            "--data.prepared, which is `none` for pictures that had not been prepared), another --workdir, or --overwrite to "
            "start anew."
        )


def _first_state(trainer: Trainer, folder: Path) -> State | None:
    """The state of a run's newest sound checkpoint; None: it has none yet."""
    abstract = trainer.abstract_state()
    found = restore_latest(folder, abstract.parameters, abstract.optimizer)
    if found is None:
        return None
    step, parameters, optimizer = found
    return State(parameters, optimizer, jax.device_put(np.int32(step), abstract.step.sharding))


def _given(trainer: Trainer, restored_from: str, skip: tuple[str, ...]) -> Parameters:
    """The parameters that a new run starts from, without the layers of `skip`."""
    return restore_tree(Path(restored_from), PARAMETERS, trainer.abstract_state().parameters, skip)


def described(mesh: DeviceMesh) -> str:
    """A mesh in words."""
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    axes += ", hybrid" if hybrid.is_hybrid(mesh) else ""
    return f"mesh {axes} ({mesh.devices.flat[0].device_kind})"


def _opening(trainer: Trainer, data_set: DataSet, workdir: Workdir, step: int, examples: int) -> str:
    start = f"Continuing at step {step:,} of" if step else "Training for"
    return (
        f"{trainer.experiment.name}: {parameter_count(trainer.table):,} parameters in {trainer.table.columns} column(s), "
        f"{described(trainer.mesh)}\n"
        f"Data: {data_set.title}; {examples:,} images to train on\n"
        f"{start} {trainer.total_steps:,} steps ({trainer.experiment.train.epochs:g} epochs) in {workdir.path}"
    )


def _finish(request: Request, workdir: Workdir, data_set: DataSet, scores: Scores, steps: int) -> None:
    """The report with its picture, and result.json; that one last, since it says that the run is finished."""
    lines = read_metrics(workdir.path / "metrics.jsonl")
    validations = [line for line in lines if line["kind"] == "validation"]
    # Of equal ones the latest: that is the checkpoint orbax keeps.
    best = min(reversed(validations), key=lambda line: line["top1_error"])
    result = dataclasses.asdict(scores) | {
        "best_validation_top1_error": best["top1_error"],
        "best_step": best["step"],
        "steps": steps,
        "epochs": request.experiment.train.epochs,
        "seconds": _training_seconds(lines),
    }
    environment, experiment = report.environment(), request.experiment
    report.write_report(workdir.path, experiment, environment, data_set.title, lines, result, request.shipped)
    workdir.write(RESULT, result)
    print(f"{_result_line(result)}\n{workdir.path / 'report.md'}")


def _training_seconds(lines: list[dict]) -> float:
    """Wall time between the lines of the run, gaps between two processes of it left out."""
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(lines)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    return sum(gap for gap in gaps if gap < 60 + 20 * usual)


def _result_line(result: dict) -> str:
    return (
        f"Test error: top-1 {100 * result['top1_error']:.2f} %, top-5 {100 * result['top5_error']:.2f} % "
        f"(accuracy {100 * (1 - result['top1_error']):.2f} %) on {result['examples']:,} images."
    )


def write_report_again(request: Request) -> None:
    """Write a finished run's report and its picture again from its files. Raises UsageError when it is not finished."""
    workdir = Workdir(request.workdir)
    record, result = workdir.record(), workdir.result()
    if record is None or result is None:
        raise UsageError(
            f"{request.workdir} holds no finished run. The same command without --mode=report starts or continues it."
        )
    lines = read_metrics(workdir.path / "metrics.jsonl")
    trained, environment, title = from_json(record["experiment"]), record["environment"], record["data"]["title"]
    try:
        path = report.write_report(workdir.path, trained, environment, title, lines, result, request.shipped)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        raise RunError(
            f"The files of {workdir.path} are damaged ({type(problem).__name__}: {problem}). Restore them from a copy."
        ) from problem
    print(f"{_result_line(result)}\n{path}")


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
    set_up_devices(request.experiment, request.place)
    step = find_step(request.restore or "latest", request.workdir)
    data_set = distributed.in_turn(lambda: sources.load(request.experiment.data))
    make = functools.partial(make_trainer, request.experiment, data_set, _trained_with(step), to_train=False)
    trainer, training, validation = distributed.in_turn(make)
    distributed.check_same({"data": data_set.fingerprint, "checkpoint": str(step)})
    distributed.connect(trainer.mesh)
    step, parameters = restore_parameters(request.restore, request.workdir, abstract(trainer.table, trainer.mesh))
    splits = {"train": training, "validation": validation, "test": data_set.test}
    return Trained(step, trainer, parameters, data_set, splits)


def evaluate(request: Request) -> None:
    """Print the test error of a checkpoint."""
    with distributed.together():
        trained = load_trained(request)
        trainer, data_set = trained.trainer, trained.data_set
        started = time.monotonic()
        test = pipeline.feed(data_set.test, trainer.mesh, request.experiment.data.workers)
        scores = make_evaluator(trainer)(trained.parameters, test)
    print(f"Checkpoint: {trained.checkpoint}\nData: {data_set.title}, test split")
    print(_result_line(dataclasses.asdict(scores)))
    print(
        f"Mean loss {scores.loss:.4f} (ln classes {math.log(trainer.table.classes):.4f}); {time.monotonic() - started:.0f} s."
    )
