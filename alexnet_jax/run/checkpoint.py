"""What is saved, when it is kept, and where a run goes on. orbax does the writing, beside the training."""

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
"""Before the step, the name of a checkpoint while the same with its validation error is being written in its place."""


class Checkpoints:
    """The checkpoints of one run, named by their step: the latest `keep`, and the best by validation error.

    Each holds two trees: parameters {layer: {'kernel', 'bias'}}, which can be restored alone, and the optimizer's state
    (velocities and the count its rate is computed from). Everything else is a function of seed and step.
    """

    def __init__(self, folder: Path, keep: int = 2):
        """Open the folder to save into it. What killed saves left is removed, damage that can be seen at once moved aside."""
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
        """Steps that were saved, rising."""
        return [int(step.name) for step in step_folders(self.folder)]

    def unvalidated(self, step: int) -> bool:
        """Whether this step was saved, and without a validation error."""
        folder = self.folder / str(step)
        return folder.is_dir() and checksums.validation_error(folder) is None

    def save(
        self, step: int, parameters: Any, optimizer: Any | None = None, validation_error: float | None = None
    ) -> None:
        """Start saving; training goes on meanwhile.

        A step that is there already is left as it is, unless it had no validation error and now has one: it is replaced.
        Imported parameters come without an optimizer.

        Raises RunError when this save cannot start or the one before it failed.
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
        """Until everything is on disk. Raises RunError when a save failed."""
        with failures("save", self.folder):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait and let go of the threads. Raises RunError when a save failed."""
        with failures("save", self.folder):
            self._manager.close()


def _error(metrics: dict[str, float]) -> float:
    return metrics[BEST]


def _copy(tree: Any) -> Any:
    """A copy on the devices: the originals are donated to the next step while orbax still writes."""
    return jax.tree.map(jnp.copy, tree)


def _once(action: Callable[[], Any]) -> None:
    """Run `action` on process 0 while the other processes wait."""
    broadcast(action)


class _OnDisk(atomicity.AtomicRenameTemporaryPath):
    """A finished checkpoint is on the disk itself, a power cut can come, before an older one is deleted."""

    async def finalize(self) -> None:
        await super().finalize()
        if self.get_final().name.isdigit():  # the whole, not one of its items
            await asyncio.to_thread(_sync, Path(self.get_final()))


def _sync(folder: Path) -> None:
    """fsync every file and folder in it, and the folder above, which holds its name; all at once takes a quarter of the time."""

    def sync(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    with ThreadPoolExecutor(16) as executor:
        list(executor.map(sync, (*folder.rglob("*"), folder, folder.parent)))


# --- damage and what killed processes left ---------------------------------------------------------------------------


def restore_latest(folder: Path, parameters: Any, optimizer: Any) -> tuple[int, Any, Any] | None:
    """(step, parameters, optimizer) of the newest sound checkpoint of a run; None: it has none yet.

    Damaged ones that are newer are told and moved aside: training will come to their steps again.
    Raises UsageError when it is another network's or optimizer's, RunError when all are damaged; then nothing is moved.
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
    """The process died while a checkpoint was being replaced: take back the one, or drop it where the other is complete."""
    for aside in folder.glob(f"{UNVALIDATED}*"):
        step = folder / aside.name.removeprefix(UNVALIDATED)
        if step.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(step)


def _tidy(folder: Path) -> None:
    """Before orbax looks into it: an empty step would be its latest, one with damaged metrics would stop it."""
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
    """Out of the way of later saves of the same step, and of those that count which to keep."""
    name = f"damaged-{step.name}"
    places = (step.with_name(f"{name}-{n}" if n > 1 else name) for n in itertools.count(1))
    place = next(place for place in places if not place.exists())
    step.rename(place)
    print(f"Warning: {damage.fact} It was moved to {place}.", flush=True)
