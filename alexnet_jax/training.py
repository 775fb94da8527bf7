"""A training from start to finish: prepare, restore, loop, save, finish. `train` is the whole of it.

    prepare    check the request, load the data, assemble network, mesh and trainer
    begin      lock the run folder; a finished run prints its result and ends here
    restore    the state of the newest checkpoint, or initial parameters
    fit        the loop over steps (train.py), which logs, validates and saves; then the test set, once
    finish     the report, and result.json, which marks the run as finished

With several processes all of them execute this file in step; the leader alone decides and writes.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from alexnet_jax import assembly, files
from alexnet_jax.assembly import Setup
from alexnet_jax.data import registry, statistics
from alexnet_jax.data.dataset import DataSet
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import DataNotFoundError, Interrupted, RunError, UsageError
from alexnet_jax.evaluate import Scores, Stopped
from alexnet_jax.experiment import DIGITS, flatten
from alexnet_jax.modes import Request
from alexnet_jax.network.table import parameter_count
from alexnet_jax.processes import distributed
from alexnet_jax.processes.devices import set_up_devices, settings
from alexnet_jax.processes.signals import Signals
from alexnet_jax.run.checkpoint import Checkpoints, restore_latest
from alexnet_jax.run.metrics import Metrics
from alexnet_jax.run.origin import find_origin, origin_checksum
from alexnet_jax.run.records import DataIdentity, RunRecord, RunResult, current_environment, read_metrics
from alexnet_jax.run.report import kept_report, result_line, training_seconds, write_report
from alexnet_jax.run.restore import PARAMETERS, restore_tree
from alexnet_jax.run.workdir import RANKS, STATISTICS, Workdir
from alexnet_jax.train import Loop, State, Trainer

PER_MACHINE = ("data.dir", "data.prepared", "data.workers")
"""Options that may differ between the processes of a run."""


@dataclass(frozen=True)
class Run:
    """A training that is ready to start or to continue."""

    request: Request
    setup: Setup
    trainer: Trainer
    origin: str | None
    """The checkpoint whose parameters a new run starts from; None for initial parameters."""

    @property
    def workdir(self) -> Workdir:
        """The folder of the run."""
        return Workdir(self.request.workdir)

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.workdir.path / "checkpoints"


def train(request: Request) -> None:
    """Start a run or continue it; print the result of a run that is already finished."""
    # This must precede orbax, which starts jax's backend when it looks for a checkpoint.
    set_up_devices(request.experiment, request.process)
    with distributed.detect_peer_loss(), contextlib.ExitStack() as lock:
        run = prepare(request)
        if not distributed.broadcast(functools.partial(begin, run, lock)):
            return
        state = restore(run)
        distributed.broadcast(functools.partial(write_record, run))
        step, scores = fit(run, state)
        if distributed.is_leader():
            finish(run, step, scores)


# --- prepare ---------------------------------------------------------------------------------------------------------


def prepare(request: Request) -> Run:
    """Check a request, load its data and assemble its parts. Raises UsageError for whatever is wrong with the request."""
    origin = check_request(request)
    request, data_set = distributed.leader_first(functools.partial(_load_data, request))
    assembly.report_validation(request.experiment.data, request.given, data_set)
    stats = _known_statistics(request, origin)
    assemble = functools.partial(assembly.assemble_training, request.experiment, data_set, stats, request.restore_skip)
    setup = distributed.leader_first(assemble)
    run = Run(request, setup, setup.trainer(), origin)
    options = {k: v for k, v in flatten(request.experiment).items() if k not in PER_MACHINE}
    what = {"data": data_set.fingerprint, "options": json.dumps(options), "starting point": str(origin)}
    what |= {"--restore_skip": str(request.restore_skip), "folder": str(request.workdir.absolute())}
    distributed.check_same(what)
    distributed.connect(setup.placement.mesh)
    return run


def check_request(request: Request) -> str | None:
    """Return the checkpoint that a training starts from, None for initial parameters. Raises UsageError if it may not start."""
    names = [spec.name for spec in assembly.build_table(request.experiment).layers]
    for name in request.restore_skip:
        if name not in names:
            network = request.experiment.network.name
            raise UsageError(f"--restore_skip={name}: {network} has no such layer. Its layers are {', '.join(names)}.")
    workdir = Workdir(request.workdir)
    origin = find_origin(request.restore, workdir, overwrite=request.overwrite)
    workdir.check_continues(request.experiment, origin, request.restore_skip, overwrite=request.overwrite)
    return origin


def _load_data(request: Request) -> tuple[Request, DataSet]:
    """Load the data of a request. A new training whose data cannot be found becomes one on the digits."""
    experiment = request.experiment
    try:
        return request, registry.load(experiment.data)
    except DataNotFoundError as problem:
        named = experiment.data.dir is not None or "TFDS_DATA_DIR" in os.environ
        plain = experiment.data.fallback == "digits" and request.restore is None and not named
        if not plain or Workdir(request.workdir).record() is not None:
            raise
        print(f"{problem}\n\nContinuing with scikit-learn's handwritten digits instead, to show the program at work.\n")
    name = f"{experiment.name}-on-digits"
    # The folder follows the name unless --workdir chose it.
    folder = request.workdir
    folder = folder.with_name(name) if folder.name == experiment.name else folder
    experiment = dataclasses.replace(experiment, name=name, data=DIGITS)
    request = dataclasses.replace(request, experiment=experiment, workdir=folder)
    check_request(request)
    return request, registry.load(DIGITS)


def _known_statistics(request: Request, origin: str | None) -> Statistics | None:
    """Return the statistics of this run, or of the run it starts from; None if they must be measured."""
    workdir = Workdir(request.workdir)
    if not request.overwrite and workdir.has_checkpoint() and (workdir.path / STATISTICS).exists():
        return statistics.restore(workdir.path / STATISTICS)
    if origin is not None and not Path(origin).exists():
        raise RunError(
            f"{workdir.path / STATISTICS} is missing, and so is {origin}, from which this run started: the numbers that "
            f"normalize its images are lost. Restore {STATISTICS} from a copy, or start anew with --overwrite."
        )
    found = None if origin is None else assembly.trained_with(Path(origin))  # a kill may leave a record without statistics
    return found and dataclasses.replace(found, colour=None)  # the colour noise of the other run may have had another option


# --- begin and restore -----------------------------------------------------------------------------------------------


def begin(run: Run, lock: contextlib.ExitStack) -> bool:
    """Lock the run folder until the exit stack `lock` closes; return False after printing the result of a finished run."""
    workdir = run.workdir
    lock.enter_context(workdir.locked())
    if run.request.overwrite:
        return True
    result = workdir.result()
    if result is not None and result.steps >= run.trainer.total_steps:
        line = result_line(result.top1_error, result.top5_error, result.examples)
        print(f"This run is finished: {line}\n{kept_report(workdir, result, run.request.shipped)}")
        return False
    workdir.check_same_conditions(DataIdentity(run.setup.data_set.title, run.setup.data_set.fingerprint), settings())
    return True


def restore(run: Run) -> State:
    """Return the state of the newest sound checkpoint; of a new run the parameters of its origin, or initial ones."""
    expected = run.trainer.abstract_state()
    anew = distributed.broadcast(lambda: run.request.overwrite)  # as the leader decides: all processes must take one branch
    found = None if anew else restore_latest(run.checkpoints, expected.parameters, expected.optimizer)
    if found is not None:
        step, parameters, optimizer = found
        return State(parameters, optimizer, jax.device_put(np.int32(step), expected.step.sharding))
    if run.origin is None:
        return run.trainer.initial_state()
    given = restore_tree(Path(run.origin), PARAMETERS, expected.parameters, run.request.restore_skip)
    return run.trainer.initial_state(given)


def write_record(run: Run) -> None:
    """Write down what is trained, and delete the run that --overwrite replaces: everything was checked and restored by now."""
    workdir, data_set = run.workdir, run.setup.data_set
    if run.request.overwrite:
        workdir.clear()
    identity, before = DataIdentity(data_set.title, data_set.fingerprint), workdir.record()
    same = before is not None and before.restored_from == run.origin and workdir.has_checkpoint()
    checksum = before.origin_checksum if before is not None and same else origin_checksum(run.origin)
    request, environment = run.request, current_environment()
    record = RunRecord(request.experiment, identity, environment, run.origin, request.restore_skip, checksum)
    workdir.write_record(record)
    statistics.save(run.setup.stats, workdir.path / STATISTICS)


# --- loop, save, finish ----------------------------------------------------------------------------------------------


def fit(run: Run, state: State) -> tuple[int, Scores]:
    """Train from a state to the last step and evaluate the test set; return (last step, test scores)."""
    setup, trainer, first = run.setup, run.trainer, int(state.step)
    evaluator = setup.evaluator()
    with contextlib.closing(Checkpoints(run.checkpoints, run.request.experiment.train.keep)) as checkpoints:
        print(_opening(run, first))
        with _metrics(run, first) as metrics:
            training, validation, test = (setup.feed(split) for split in ("train", "validation", "test"))
            central = setup.evaluator(central=True)  # all views would make a validation as long as an epoch of training
            loop = Loop(trainer, training, validation, central, metrics, checkpoints)
            # A run that was interrupted at the end of an epoch saved without validating.
            unvalidated = distributed.broadcast(lambda: checkpoints.unvalidated(first))
            state = loop.run(state, validate=unvalidated)
            step = int(state.step)
            with Signals(distributed.Agreement(setup.placement.mesh)) as signals:
                try:
                    scores, ranks = evaluator.examine(state.parameters, test, signals.interrupted)
                except Stopped:  # everything was saved before
                    assert signals.received is not None
                    raise Interrupted(signals.received, step) from None
            if distributed.is_leader():
                files.write_array(run.workdir.path / RANKS, ranks)
            metrics.test(step, **dataclasses.asdict(scores))
    return step, scores


def _metrics(run: Run, first_step: int) -> Metrics:
    return Metrics(
        run.workdir.path,
        data_title=run.setup.data_set.title,
        total_steps=run.trainer.total_steps,
        steps_per_epoch=run.trainer.steps_per_epoch,
        first_step=first_step,
        log_every=run.request.experiment.train.log_every,
        writes=distributed.is_leader(),
    )


def _opening(run: Run, step: int) -> str:
    experiment, table, data = run.request.experiment, run.setup.table, run.setup.data_set
    where = assembly.describe(run.setup.placement)
    start = f"Continuing at step {step:,} of" if step else "Training for"
    return (
        f"{experiment.name}: {parameter_count(table):,} parameters in {table.columns} column(s), {where}\n"
        f"Data: {data.title}; {len(run.setup.training):,} images to train on\n"
        f"{start} {run.trainer.total_steps:,} steps ({experiment.train.epochs:g} epochs) in {run.workdir.path}"
    )


def finish(run: Run, steps: int, scores: Scores) -> None:
    """Write the report with its picture, then result.json, which marks the run as finished; print the result."""
    workdir = run.workdir
    lines = read_metrics(workdir.path / "metrics.jsonl")
    validations = [line for line in lines if line["kind"] == "validation"]
    # Of equal errors orbax keeps the latest checkpoint.
    best = min(reversed(validations), key=lambda line: line["top1_error"])
    result = RunResult(
        **dataclasses.asdict(scores),
        best_validation_top1_error=best["top1_error"],
        best_step=best["step"],
        steps=steps,
        epochs=run.request.experiment.train.epochs,
        seconds=training_seconds(lines),
    )
    record = workdir.record()
    assert record is not None  # `write_record` wrote it
    path = write_report(workdir.path, record, lines, result, run.request.shipped)
    workdir.write_result(result)
    print(f"{result_line(result.top1_error, result.top5_error, result.examples)}\n{path}")


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(request: Request) -> None:
    """Print the test error of a checkpoint."""
    with distributed.detect_peer_loss():
        trained = assembly.load_trained(request)
        setup, started = trained.setup, time.monotonic()
        scores = setup.evaluator()(trained.parameters, setup.feed("test"))
    print(trained.description)
    print(result_line(scores.top1_error, scores.top5_error, scores.examples))
    print(
        f"Mean loss {scores.loss:.4f} (ln classes {math.log(setup.table.classes):.4f}); {time.monotonic() - started:.0f} s."
    )
