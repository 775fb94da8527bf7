"""The folder of one run: what is in it, who may work in it, and when a run goes on, is finished, or must not be mixed up."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.errors import Busy, RunError, UsageError
from alexnet_jax.experiment import Experiment, differences, from_json, to_json

RECORD, RESULT = "experiment.json", "result.json"
RANKS = "test_ranks.npy"
"""uint16 [test images]: how many classes stood before the right one at the end of the run; 0 is a right answer."""
STATISTICS = "statistics.npz"
"""What is subtracted from and divided out of every image that the parameters see (data/statistics.py)."""
CONTENTS = (
    RECORD,
    RESULT,
    RANKS,
    STATISTICS,
    "metrics.jsonl",
    "report.md",
    "checkpoints",
    "tensorboard",
    "figures",
    "features",
)
"""Everything a run writes; `--overwrite` deletes these and nothing else."""


class Workdir:
    """`runs/<experiment>/`, or wherever --workdir (or another option that messages should name) says."""

    def __init__(self, path: Path, option: str = "--workdir"):
        self.path, self._option = path.absolute(), option

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the folder while a process works in it. A killed process leaves no lock behind (flock).

        With `wait` until the other process lets go, for work that is short.

        Raises Busy when another process holds it, UsageError when the folder cannot be made.
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

    def record(self) -> dict[str, Any] | None:
        """experiment.json: {'experiment', 'data', 'environment', 'restored_from', 'restore_skip'}, or None before a first run."""
        record = self.read(RECORD)
        if record is not None:
            self._check(RECORD, record, {"experiment": dict, "data": dict, "environment": dict})
            self._check(RECORD, record["data"], {"title": str, "fingerprint": str})
        return record

    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run, or None."""
        result = self.read(RESULT)
        if result is not None:
            number = int | float
            self._check(RESULT, result, {"steps": int, "examples": int, "top1_error": number, "top5_error": number})
        return result

    def _check(self, name: str, values: dict[str, Any], expected: dict[str, Any]) -> None:
        for key, kind in expected.items():
            if not isinstance(values.get(key), kind) or isinstance(values[key], bool):
                raise self._damaged(name, f"{key} is {values.get(key)!r}")

    def _damaged(self, name: str, what: object) -> RunError:
        return RunError(
            f"{self.path / name} is damaged ({what}). Restore it from a copy, or start anew with --overwrite."
        )

    def experiment(self) -> Experiment | None:
        """The experiment this folder was made by, or None."""
        record = self.record()
        return None if record is None else from_json(record["experiment"])

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Replace a JSON file of the folder atomically."""
        files.write_json(self.path / name, values)

    def write_record(
        self,
        experiment: Experiment,
        data: dict[str, str],
        environment: dict,
        restored_from: str | None,
        restore_skip: tuple[str, ...] = (),
    ) -> None:
        """experiment.json, written before the first step."""
        values = {
            "experiment": to_json(experiment),
            "data": data,
            "environment": environment,
            "restored_from": restored_from,
            "restore_skip": list(restore_skip),
        }
        self.write(RECORD, values)

    def check_continues(
        self,
        experiment: Experiment,
        restored_from: str | None,
        restore_skip: tuple[str, ...] = (),
        *,
        overwrite: bool,
    ) -> None:
        """Raise UsageError unless `experiment` may start here or go on with what is here."""
        there = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"{self._option}={self.path}: {there} is no folder that can be written to. Choose another.")
        others = [p.name for p in self.path.iterdir() if p.name != ".lock"] if self.path.is_dir() else []
        if overwrite and RECORD in others:  # damaged or not
            return
        record = self.record()
        if record is None:
            if others:
                what = f"holds {', '.join(sorted(others)[:5])} but no {RECORD}, so it is no run folder"
                raise UsageError(f"--workdir={self.path} {what}; nothing in it was touched. Choose another --workdir.")
            return
        differing = differences(from_json(record["experiment"]), experiment)
        if record.get("restored_from") != restored_from:
            differing["restore"] = (record.get("restored_from"), restored_from)
        skipped = record.get("restore_skip", [])  # no run before it had this option left layers out
        if skipped != list(restore_skip):
            differing["restore_skip"] = (",".join(skipped) or None, ",".join(restore_skip) or None)
        if differing:
            listed = "\n".join(f"  --{name}: {old} there, {new} asked for" for name, (old, new) in differing.items())
            raise UsageError(
                f"{self.path} holds a run with other options:\n{listed}\n"
                "Give the same options to continue it, another --workdir to start beside it, or --overwrite to start anew."
            )

    def clear(self) -> None:
        """Delete what a run wrote here, and nothing else."""
        for name in CONTENTS:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None when it is not there. Raises RunError when it is damaged."""
        path = self.path / name
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as problem:
            raise self._damaged(name, problem) from problem
        if not isinstance(values, dict):
            raise self._damaged(name, "no JSON object")
        return values
