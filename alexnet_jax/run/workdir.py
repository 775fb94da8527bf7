"""The folder of one run: its records, its lock, and the conditions under which a command may continue it."""

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.errors import Busy, UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.run.records import DataIdentity, RunRecord, RunResult, read_record

RECORD, RESULT = "experiment.json", "result.json"
RANKS = "test_ranks.npy"
"""uint16 [test images]: the number of classes ranked before the right one at the end of the run; 0 is a right answer."""
STATISTICS = "statistics.npz"
"""The numbers that normalize every image before it reaches the network (data/statistics.py)."""
CONTENTS = (
    RESULT,
    RANKS,
    STATISTICS,
    "metrics.jsonl",
    "metrics_window.json",
    "report.md",
    "checkpoints",
    "tensorboard",
    "figures",
    "features",
    RECORD,
)
"""Everything that a run writes; `--overwrite` deletes these and nothing else, in this order."""

IMPORTED = "weights of "
"""Beginning of the title of the data of imported weights, which are identified by their file."""

REMEDY = "Restore it from a copy, or start anew with --overwrite."
"""The last sentence of the messages about damaged records."""


class Workdir:
    """The folder of one run: `runs/<experiment>/`, or the value of `option`, which messages name."""

    def __init__(self, path: Path, option: str = "--workdir"):
        self.path, self._option = path.absolute(), option

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Make the folder and lock it while a process works in it. The lock (flock) of a killed process is released.

        With `wait`, wait for another process to release it; for short work.

        Raises Busy when another process holds the lock, UsageError when the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "a")  # noqa: SIM115 - closed below, with the lock
        except OSError as problem:
            raise UsageError(
                f"{self._option}={self.path}: cannot be written to ({problem}). Choose another."
            ) from problem
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as problem:
                raise Busy(
                    f"Another process is working in {self.path}. Wait for it, or choose another {self._option}."
                ) from problem
            except OSError as problem:  # some shared file systems have no locks
                unnoticed = "a second process in it would not be noticed"
                print(f"Warning: {self.path} cannot be locked ({problem.strerror}); {unnoticed}.", flush=True)
            yield

    def record(self) -> RunRecord | None:
        """Return experiment.json; None before the first run. Raises RunError when it is damaged."""
        return read_record(RunRecord, self.path / RECORD, REMEDY)

    def write_record(self, record: RunRecord) -> None:
        """Write experiment.json, before the first step of each process."""
        files.write_json(self.path / RECORD, dataclasses.asdict(record))

    def result(self) -> RunResult | None:
        """Return result.json; None for a run that is not finished. Raises RunError when it is damaged."""
        remedy = "Delete it; the same command then evaluates the test images again."
        return read_record(RunResult, self.path / RESULT, remedy)

    def write_result(self, result: RunResult) -> None:
        """Write result.json, which marks the run as finished."""
        files.write_json(self.path / RESULT, dataclasses.asdict(result))

    def experiment(self) -> Experiment | None:
        """Return the experiment of this folder's run; None before the first run. Raises RunError when it is damaged."""
        record = self.record()
        return record and record.experiment

    def check_continues(
        self,
        experiment: Experiment,
        restored_from: str | None,
        restore_skip: tuple[str, ...] = (),
        *,
        overwrite: bool,
    ) -> None:
        """Raise UsageError unless `experiment` may start in this folder or continue the run in it."""
        existing = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UsageError(f"{self._option}={self.path}: {existing} is not a writable folder. Choose another.")
        contents = self.contents()
        if overwrite and RECORD in contents:  # damaged or not
            return
        record = self.record()
        if record is None:
            if contents:
                what = f"holds {', '.join(sorted(contents)[:5])} but no {RECORD}, so it is no run folder"
                raise UsageError(f"--workdir={self.path} {what}; nothing in it was changed. Choose another --workdir.")
            return
        if not self.has_checkpoint():  # a run that was stopped before it saved: nothing would be lost
            return
        differing = record.differences(experiment, restored_from, restore_skip)
        if differing:
            listed = "\n".join(f"  --{name}: {old} recorded, {new} requested" for name, (old, new) in differing.items())
            raise UsageError(
                f"{self.path} holds a run with other options:\n{listed}\n"
                "Give the same options to continue it, another --workdir for a separate run, or --overwrite to start anew."
                + self._longer(experiment, differing)
            )

    def check_same_conditions(self, data: DataIdentity, settings: dict[str, str]) -> None:
        """Check that the run in the folder, if it has a checkpoint, was trained under the conditions of this process.

        `settings` are those of jax; a warning is printed if others were recorded. Raises UsageError if the data differ.
        """
        record = self.record() if self.has_checkpoint() else None
        if record is None:
            return
        before = record.environment.settings
        if before is not None and before != settings:
            print(f"Warning: this run began with {_named(before)} and continues with {_named(settings)}: its numbers change.")
        if record.data.fingerprint != data.fingerprint:
            raise UsageError(
                f"{self.path} was trained on {record.data.title} (fingerprint {record.data.fingerprint}), but the data found now "
                f"is {data.title} ({data.fingerprint}). Give the old data with --data.dir (or with --data.prepared, which is "
                "`none` for pictures that had not been prepared), another --workdir, or --overwrite to start again. If no file "
                "changed: earlier versions of this program read folders of pictures by other rules."
            )

    def _longer(self, experiment: Experiment, differing: dict[str, tuple[Any, Any]]) -> str:
        """Return how to train longer if that is all that was requested, under a schedule that ends at zero."""
        epochs, requested = differing.get("train.epochs", (0, 0))
        if "train.epochs" not in differing or not {*differing} <= {"train.epochs", "optim.warmup"} or requested < epochs:
            return ""
        return (
            f"\nThe schedule {experiment.optim.schedule} ends at a rate of zero after {epochs:g} epochs. To train further from "
            f"these parameters, start a new run: --restore={self.path} --workdir={self.path}-longer "
            f"--train.epochs={requested - epochs:g} (the rate starts again; --optim.schedule=constant keeps it constant)."
        )

    def has_checkpoint(self) -> bool:
        """Return whether the folder has a checkpoint, damaged or not. Without one its run would start at step 0 again."""
        return any((self.path / "checkpoints").glob("[0-9]*"))

    def contents(self) -> list[str]:
        """Return the visible files. Hidden ones are the lock, temporary files that a kill left, and those of other programs."""
        return [p.name for p in self.path.iterdir() if not p.name.startswith(".")] if self.path.is_dir() else []

    def clear(self) -> None:
        """Delete the files that a run wrote into the folder, and nothing else; the record last, so that a kill is harmless."""
        for name in CONTENTS:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for name in CONTENTS:
            for temporary in self.path.glob(f".{name}.*.tmp"):  # left by a kill (files.replacing)
                temporary.unlink(missing_ok=True)


def _named(settings: dict[str, str]) -> str:
    """Return settings of jax in words."""
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "jax's default settings"
