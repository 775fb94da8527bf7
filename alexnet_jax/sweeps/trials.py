"""One trial of a sweep: trained, resumed or skipped. Its state is read from its run folder and a note next to it.

A finished run has a result.json. The note, `seedN.json`, records every other end: the trial diverged, it failed, or its
process died repeatedly.
"""

import dataclasses
import statistics
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax import files
from alexnet_jax.errors import Busy, Diverged, Interrupted, NoDeviceError, RunError, UsageError, remedy
from alexnet_jax.experiment import Experiment
from alexnet_jax.modes import Request
from alexnet_jax.processes import signals
from alexnet_jax.run.records import Line, read_metrics, read_record
from alexnet_jax.run.workdir import RANKS, RESULT, Workdir
from alexnet_jax.sweeps.analysis.comparison import Cell, Status
from alexnet_jax.sweeps.plan import Trial

DEATHS = 3
"""Number of processes that may die in a trial without a new checkpoint, for example for lack of memory, until it has failed."""


def ended(trial: Trial) -> bool:
    """Return whether a trial finished, diverged or failed."""
    return state(trial)[0] != "planned"


def state(trial: Trial) -> tuple[Status, str]:
    """Return (status, why it diverged or failed) from the names of its files and its note, without reading the run."""
    if trial.problem:
        return "failed", trial.problem
    if (trial.folder / RESULT).exists():
        return "finished", ""
    note = _note(trial)
    return note.status, note.message


def forget(trial: Trial) -> None:
    """Delete the note of a trial, so that a failure is tried again and an orderly end does not count as a death."""
    _note_path(trial).unlink(missing_ok=True)


def run(trial: Trial, shipped: Experiment) -> None:
    """Train a trial, from its latest checkpoint if it has one. A failure is noted, not raised.

    `shipped` is the experiment as its file defines it. Raises Interrupted after a signal, Busy when another process trains it.
    """
    from alexnet_jax import training  # imports jax

    with Workdir(trial.folder).locked():  # Busy, before an attempt is counted
        if ended(trial) or not may_start(trial):
            return
    try:
        with signals.at_forced_exit(lambda: forget(trial)):
            training.train(Request(trial.experiment, shipped, trial.folder))
    except Busy:
        raise
    except NoDeviceError:  # every trial would fail
        forget(trial)
        raise
    except (Interrupted, BrokenPipeError):  # the run was saved, or the reader of its output ended: not a death
        forget(trial)
        raise
    except Diverged as problem:
        _write(trial, status="diverged", message=str(problem))
    except (UsageError, RunError) as problem:
        _write(trial, status="failed", message=str(problem))
    except Exception as problem:  # noqa: BLE001 - memory, a defect: the other trials continue
        _write(trial, status="failed", message=f"{type(problem).__name__}: {problem}", trace=traceback.format_exc())
    else:
        forget(trial)


def may_start(trial: Trial) -> bool:
    """Count an attempt and return True, unless too many earlier attempts died at the same step."""
    step, before = _latest_step(trial), _note(trial)
    attempts = 1 + (before.attempts if before.step == step else 0)
    if attempts > DEATHS:
        message = f"The process died {DEATHS} times in this trial after step {step}; was it killed for memory?"
        _write(trial, status="failed", message=message)
        return False
    _write(trial, attempts=attempts, step=step)
    return True


def _latest_step(trial: Trial) -> int:
    names = [path.name for path in (trial.folder / "checkpoints").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def failed(trial: Trial, message: str) -> None:
    """Note that a trial failed in another process."""
    _write(trial, status="failed", message=message)


@dataclass(frozen=True)
class Note:
    """The state of a trial that has not finished: seedN.json."""

    arm: str
    seed: int
    time: float
    """Seconds since 1970."""
    status: Status = "planned"
    message: str = ""
    trace: str = ""
    """The traceback of an unexpected exception."""
    attempts: int = 0
    """Number of processes that began this trial at `step`."""
    step: int | None = None


def _note_path(trial: Trial) -> Path:
    return trial.folder.with_name(f"{trial.folder.name}.json")


def _note(trial: Trial) -> Note:
    found = read_record(Note, _note_path(trial), "Delete it to run the trial again.")
    return found or Note(trial.arm, trial.seed, time.time())


def _write(trial: Trial, **values: Any) -> None:
    path, note = _note_path(trial), Note(trial.arm, trial.seed, time.time(), **values)
    try:
        files.write_json(path, dataclasses.asdict(note))
    except OSError as problem:
        raise RunError(
            f"Cannot write {path} ({problem}). {remedy(problem, 'Is the folder writable?')} The same command resumes the sweep."
        ) from problem


def cell(trial: Trial, milestone: float | None) -> Cell:
    """Return the state of a trial, with its measurements if it finished."""
    status, message = state(trial)
    shown = "/".join(trial.folder.parts[-3:])  # relative to the parent of the sweep's folder, so that both can be moved
    if status != "finished":
        return Cell(trial.arm, trial.seed, status, message, "" if trial.problem else shown)
    try:
        return _finished_cell(trial, shown, milestone)
    except (RunError, OSError, ValueError, KeyError, EOFError) as problem:
        message = f"its files are damaged ({problem}); delete {trial.folder} to train it again"
        return Cell(trial.arm, trial.seed, "failed", message, shown)


def _finished_cell(trial: Trial, shown: str, milestone: float | None) -> Cell:
    folder = trial.folder
    result = Workdir(folder).result()
    assert result is not None
    lines = read_metrics(folder / "metrics.jsonl")
    return Cell(
        trial.arm,
        trial.seed,
        "finished",
        folder=shown,
        top1_error=result.top1_error,
        top5_error=result.top5_error,
        seconds=result.seconds,
        step_seconds=_step_seconds(lines, result.steps, trial.experiment.train.batch),
        milestone=None if milestone is None else epochs_to(lines, milestone),
        wrong=np.load(folder / RANKS) >= 1,
        metrics=lines,
    )


def _step_seconds(lines: list[Line], steps: int, batch: int) -> float | None:
    """Return the seconds of all steps at their median speed; None if no speed was measured."""
    speeds = [speed for line in lines if (speed := line.get("images_per_second"))]
    return steps * batch / statistics.median(speeds) if speeds else None


def epochs_to(lines: list[Line], error: float) -> float | None:
    """Return the first epoch whose training error, averaged between two lines, was at most `error`; None if none was."""
    means = ((line["epoch"], line["mean_error"]) for line in lines if line["kind"] == "train")
    return next((epoch for epoch, mean in means if mean is not None and mean <= error), None)
