"""Saving checkpoints, choosing which to keep, and resuming a run. orbax writes in the background of the training."""

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy
from orbax.checkpoint.path import atomicity

from alexnet_jax.errors import Damaged
from alexnet_jax.processes.distributed import broadcast
from alexnet_jax.run import checksums
from alexnet_jax.run.checksums import BEST, CHECKSUMS
from alexnet_jax.run.restore import OPTIMIZER, PARAMETERS, failures, first_sound, restore_trees, step_folders

UNVALIDATED = "unvalidated-"
"""Prefix of a checkpoint's name while its replacement, which has the validation error, is written."""


class Checkpoints:
    """The checkpoints of one run, named by their step: the latest `keep`, and the best by validation error.

    Each holds two trees: the parameters {layer: {'kernel', 'bias'}}, which can be restored alone, and the optimizer's state
    (velocities and the count that determines its rate). Everything else is a function of seed and step.
    """

    def __init__(self, folder: Path, keep: int = 2):
        """Open the folder for saving. Remains of killed saves are removed; checkpoints with damaged records are renamed."""
        self.folder = folder.absolute()
        best = policy.BestN(get_metric_fn=_error, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(keep), best]),
            best_fn=_error,
            best_mode="min",
            cleanup_tmp_directories=True,
            temporary_path_class=_OnDisk,
        )
        with failures("open", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _once(lambda: _tidy(self.folder))
            names = (PARAMETERS, OPTIMIZER, CHECKSUMS)
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=names)

    def steps(self) -> list[int]:
        """Return the saved steps in ascending order."""
        return [int(step.name) for step in step_folders(self.folder)]

    def unvalidated(self, step: int) -> bool:
        """Return whether this step was saved without a validation error."""
        folder = self.folder / str(step)
        return folder.is_dir() and checksums.validation_error(folder) is None

    def save(
        self, step: int, parameters: Any, optimizer: Any | None = None, validation_error: float | None = None
    ) -> None:
        """Start saving and return; the training continues meanwhile.

        A step that was saved before is kept, unless it had no validation error and now has one: then it is replaced.
        Imported parameters have no optimizer state.

        Raises RunError when this save cannot start or the previous one failed.
        """
        with failures("save", self.folder):
            self._manager.check_for_errors()
            if step not in self._manager.all_steps():
                self._save(step, parameters, optimizer, validation_error)
                return
            self.wait()
            if validation_error is None or not broadcast(lambda: self.unvalidated(step)):
                return
            aside = self.folder / f"{UNVALIDATED}{step}"
            _once(lambda: (self.folder / str(step)).rename(aside))
            self._manager.reload()
            self._save(step, parameters, optimizer, validation_error)
            self.wait()
            _once(lambda: shutil.rmtree(aside))

    def _save(self, step: int, parameters: Any, optimizer: Any | None, validation_error: float | None) -> None:
        trees = {PARAMETERS: parameters} | ({} if optimizer is None else {OPTIMIZER: optimizer})
        copies = {item: _copy(tree) for item, tree in trees.items()}
        items = {item: ocp.args.PyTreeSave(copy) for item, copy in copies.items()}
        items |= {CHECKSUMS: ocp.args.JsonSave(checksums.record(step, copies, validation_error))}
        metrics = None if validation_error is None else {BEST: validation_error}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def wait(self) -> None:
        """Wait until everything is on disk. Raises RunError when a save failed."""
        with failures("save", self.folder):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait until everything is on disk and end the threads. Raises RunError when a save failed."""
        with failures("save", self.folder):
            self._manager.close()


def _error(metrics: dict[str, float]) -> float:
    return metrics[BEST]


def _copy(tree: Any) -> Any:
    """Return a copy on the devices: the next step reuses the memory of the originals while orbax still writes."""
    return jax.tree.map(jnp.copy, tree)


def _once(action: Callable[[], Any]) -> None:
    """Run `action` on process 0 while the other processes wait."""
    broadcast(action)


class _OnDisk(atomicity.AtomicRenameTemporaryPath):
    """Flushes a finished checkpoint to the disk before an older one is deleted, so that a power cut loses neither."""

    async def finalize(self) -> None:
        await super().finalize()
        if self.get_final().name.isdigit():  # the checkpoint, not one of its items
            await asyncio.to_thread(sync_folder, Path(self.get_final()))


def sync_folder(folder: Path) -> None:
    """fsync every file and folder in `folder`, and its parent, which holds its name; in parallel, four times as fast."""

    def sync(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    with ThreadPoolExecutor(16) as executor:
        list(executor.map(sync, (*folder.rglob("*"), folder, folder.parent)))


# --- resuming after damage and killed processes -----------------------------------------------------------------------


def restore_latest(folder: Path, parameters: Any, optimizer: Any) -> tuple[int, Any, Any] | None:
    """Return (step, parameters, optimizer) of a run's newest sound checkpoint, None if it has no checkpoint.

    Newer damaged checkpoints are reported and renamed, because the training will save their steps again.
    Raises UsageError when the checkpoint belongs to another network or optimizer, RunError when all checkpoints are damaged;
    then none is renamed.
    """
    _once(lambda: _put_back(folder))
    expected = {PARAMETERS: parameters, OPTIMIZER: optimizer}
    folders = step_folders(folder)[::-1]
    # Elsewhere a shared folder may look different for a while.
    newest = broadcast(lambda: folders[0].name if folders else None)
    if newest is None:
        return None
    folders = folders if folders and folders[0].name == newest else [folder.absolute() / newest]
    step, trees, damaged = first_sound(folders, lambda step: restore_trees(step, expected))
    _once(lambda: [_move_aside(*pair) for pair in damaged.items()])
    return int(step.name), trees[PARAMETERS], trees[OPTIMIZER]


def _put_back(folder: Path) -> None:
    """End the replacement of a checkpoint that a killed process began: restore the old one unless the new one is complete."""
    for aside in folder.glob(f"{UNVALIDATED}*"):
        step = folder / aside.name.removeprefix(UNVALIDATED)
        if step.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(step)


def _tidy(folder: Path) -> None:
    """Prepare the folder for orbax, which would take an empty step for the latest and fail on damaged metrics."""
    _put_back(folder)
    for stray in folder.iterdir():
        if stray.name.isdigit() and stray.is_dir() and not any(stray.iterdir()):
            stray.rmdir()
    for step in step_folders(folder):
        try:
            checksums.validation_error(step)
        except Damaged as damage:
            _move_aside(step, damage)


def _move_aside(step: Path, damage: Damaged) -> None:
    """Rename a damaged checkpoint, so that its step can be saved again and it does not count as one to keep."""
    name = f"damaged-{step.name}"
    candidates = (step.with_name(f"{name}-{n}" if n > 1 else name) for n in itertools.count(1))
    target = next(path for path in candidates if not path.exists())
    step.rename(target)
    print(f"Warning: {damage.fact} It was moved to {target}.", flush=True)
