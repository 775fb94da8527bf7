"""A training from start to finish, and the evaluation of a checkpoint."""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import time
from pathlib import Path

import jax
import numpy as np

from alexnet_jax import files, optim
from alexnet_jax.assembly import described, load_trained, make_evaluator, make_trainer, trained_with
from alexnet_jax.data import pipeline, sources, statistics
from alexnet_jax.data.classes import class_count
from alexnet_jax.data.pipeline import Feed
from alexnet_jax.data.split import DataSet, Split, Stream
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import DataNotFoundError, Interrupted, UsageError
from alexnet_jax.evaluate import Evaluator, Scores, Stopped
from alexnet_jax.experiment import DIGITS, flatten
from alexnet_jax.model import Parameters
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table, parameter_count
from alexnet_jax.processes import distributed
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.processes.signals import Signals
from alexnet_jax.run import report
from alexnet_jax.run.checkpoint import Checkpoints, restore_latest
from alexnet_jax.run.environment import current_environment
from alexnet_jax.run.metrics import Line, Metrics, Unwritten, read_metrics
from alexnet_jax.run.report import result_line
from alexnet_jax.run.restore import PARAMETERS, find_step, restore_tree
from alexnet_jax.run.workdir import RANKS, STATISTICS, DataIdentity, RunRecord, RunResult, Workdir
from alexnet_jax.train import Loop, State, Trainer


def train(request: Request) -> None:
    """Start a run, or go on with it; print its result when it is already finished."""
    # Before orbax, which starts jax's backend, looks for a checkpoint to restore.
    set_up_devices(request.experiment, request.process)
    with distributed.detect_peer_loss(), contextlib.ExitStack() as held:
        restored_from = check_request(request)
        request, data_set = distributed.leader_first(functools.partial(_find_data, request))
        _check_continues(request, restored_from)
        stats = _statistics(request, restored_from)
        trainer, *splits = distributed.leader_first(functools.partial(make_trainer, request.experiment, data_set, stats))
        faster = optim.with_rate(trainer.table, request.restore_skip, request.experiment.optim.new_rate)
        trainer = dataclasses.replace(trainer, table=faster)
        options = {k: v for k, v in flatten(request.experiment).items() if k not in A_MACHINES_OWN}
        what = {"data": data_set.fingerprint, "options": json.dumps(options), "starting point": str(restored_from)}
        distributed.check_same(what | {"folder": str(request.workdir.absolute())})
        distributed.connect(trainer.mesh)
        given = None
        if restored_from is not None and (request.overwrite or Workdir(request.workdir).record() is None):
            given = _given(trainer, restored_from, request.restore_skip)
        if distributed.broadcast(functools.partial(_begin, held, request, trainer, data_set, restored_from)):
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
    if result is not None and result.steps >= trainer.total_steps:
        line = result_line(result.top1_error, result.top5_error, result.examples)
        print(f"This run is finished: {line}\n{workdir.path / 'report.md'}")
        return False
    identity = DataIdentity(data_set.title, data_set.fingerprint)
    _check_same_data(workdir, identity)
    environment = current_environment()
    workdir.write_record(RunRecord(request.experiment, identity, environment, restored_from, request.restore_skip))
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
    found = None if restored_from is None else trained_with(Path(restored_from))
    return found and dataclasses.replace(found, colour=None)  # its noise may have been of another reading


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
        with (Metrics if distributed.is_leader() else Unwritten)(
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
            state = loop.run(state, validate=distributed.broadcast(lambda: checkpoints.unvalidated(step)))
            scores, ranks = _test(evaluator, state, test)
            if distributed.is_leader():
                files.write_array(workdir.path / RANKS, ranks)
            metrics.test(int(state.step), dataclasses.asdict(scores))
    finally:
        checkpoints.close()
    if distributed.is_leader():
        _finish(request, workdir, scores, int(state.step))


def _test(evaluator: Evaluator, state: State, test: Feed) -> tuple[Scores, np.ndarray]:
    """Scores and ranks on the test images. Raises Interrupted after a signal: all is saved by then."""
    with Signals(distributed.Agreement(evaluator.mesh)) as signals:
        try:
            return evaluator.examine(state.parameters, test, signals.interrupted)
        except Stopped:
            assert signals.received is not None
            raise Interrupted(signals.received, int(state.step)) from None


def _check_same_data(workdir: Workdir, identity: DataIdentity) -> None:
    record = workdir.record()
    if record is not None and record.data.fingerprint != identity.fingerprint:
        raise UsageError(
            f"{workdir.path} was trained on {record.data.title} (fingerprint {record.data.fingerprint}), but the "
            f"data found now is {identity.title} ({identity.fingerprint}). Give the old data with --data.dir (or with "
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


def _opening(trainer: Trainer, data_set: DataSet, workdir: Workdir, step: int, examples: int) -> str:
    start = f"Continuing at step {step:,} of" if step else "Training for"
    return (
        f"{trainer.experiment.name}: {parameter_count(trainer.table):,} parameters in {trainer.table.columns} column(s), "
        f"{described(trainer.mesh)}\n"
        f"Data: {data_set.title}; {examples:,} images to train on\n"
        f"{start} {trainer.total_steps:,} steps ({trainer.experiment.train.epochs:g} epochs) in {workdir.path}"
    )


def _finish(request: Request, workdir: Workdir, scores: Scores, steps: int) -> None:
    """The report with its picture, and result.json; that one last, since it says that the run is finished."""
    lines = read_metrics(workdir.path / "metrics.jsonl")
    validations = [line for line in lines if line["kind"] == "validation"]
    # Of equal ones the latest: that is the checkpoint orbax keeps.
    best = min(reversed(validations), key=lambda line: line["top1_error"])
    result = RunResult(
        **dataclasses.asdict(scores),
        best_validation_top1_error=best["top1_error"],
        best_step=best["step"],
        steps=steps,
        epochs=request.experiment.train.epochs,
        seconds=_training_seconds(lines),
    )
    record = workdir.record()
    assert record is not None
    report.write_report(workdir.path, record, lines, result, request.shipped)
    workdir.write_result(result)
    print(f"{result_line(result.top1_error, result.top5_error, result.examples)}\n{workdir.path / 'report.md'}")


def _training_seconds(lines: list[Line]) -> float:
    """Wall time between the lines of the run, gaps between two processes of it left out."""
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(lines)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    return sum(gap for gap in gaps if gap < 60 + 20 * usual)


def evaluate(request: Request) -> None:
    """Print the test error of a checkpoint."""
    with distributed.detect_peer_loss():
        trained = load_trained(request)
        trainer, data_set = trained.trainer, trained.data_set
        started = time.monotonic()
        test = pipeline.feed(data_set.test, trainer.mesh, request.experiment.data.workers)
        scores = make_evaluator(trainer)(trained.parameters, test)
    print(f"Checkpoint: {trained.checkpoint}\nData: {data_set.title}, test split")
    print(result_line(scores.top1_error, scores.top5_error, scores.examples))
    print(
        f"Mean loss {scores.loss:.4f} (ln classes {math.log(trainer.table.classes):.4f}); {time.monotonic() - started:.0f} s."
    )
