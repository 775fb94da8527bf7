"""What is saved, when it is kept, and how it comes back, on any mesh. orbax does the writing, beside the training."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from alexnet_jax.distributed import leads, together
from alexnet_jax.errors import RunError, UsageError

BEST = "validation_top1_error"
"""The metric of a checkpoint that was validated; saves in the middle of an epoch have none."""

PARAMETERS, OPTIMIZER = "parameters", "optimizer"


class Checkpoints:
    """The checkpoints of one run, named by their step: the latest `keep`, and the best by validation error.

    Each holds two trees: parameters {layer: {'kernel', 'bias'}}, which can be restored alone, and the optimizer's state
    (velocities and the count its rate is computed from). Everything else is a function of seed and step.
    """

    def __init__(self, folder: Path, keep: int = 2, *, read_only: bool = False):
        self.folder = folder.absolute()
        best = policy.BestN(get_metric_fn=_error, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(keep), best]),
            best_fn=_error,
            best_mode="min",
            read_only=read_only,
        )
        with _failures("open", self.folder):
            if not read_only and leads():
                remove_stray_steps(self.folder)
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=(PARAMETERS, OPTIMIZER))

    def steps(self) -> list[int]:
        """Steps that can be restored, rising."""
        return sorted(step for step in self._manager.all_steps() if any((self.folder / str(step)).iterdir()))

    def best_step(self) -> int | None:
        """The step with the lowest validation error among those kept."""
        return self._manager.best_step()

    def save(
        self, step: int, parameters: Any, optimizer: Any | None = None, validation_error: float | None = None
    ) -> None:
        """Start saving; training goes on meanwhile. A step that is there already is left as it is.

        Imported parameters come without an optimizer.

        Raises RunError when this save cannot start or the one before it failed.
        """
        if step in self._manager.all_steps():
            return
        trees = {PARAMETERS: parameters} | ({} if optimizer is None else {OPTIMIZER: optimizer})
        items = {name: ocp.args.PyTreeSave(_copy(tree)) for name, tree in trees.items()}
        with _failures("save", self.folder):
            self._manager.check_for_errors()
            metrics = None if validation_error is None else {BEST: validation_error}
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def wait(self) -> None:
        """Until everything is on disk. Raises RunError when a save failed."""
        with _failures("save", self.folder):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, step: int, parameters: Any, optimizer: Any) -> tuple[Any, Any]:
        """Both trees of a step, placed as the abstract ones given (jax.ShapeDtypeStruct with shardings)."""
        return (
            restore_tree(self.folder / str(step), PARAMETERS, parameters),
            restore_tree(self.folder / str(step), OPTIMIZER, optimizer),
        )

    def close(self) -> None:
        """Wait and let go of the threads. Raises RunError when a save failed."""
        with _failures("save", self.folder):
            self._manager.close()


def _error(metrics: dict[str, float]) -> float:
    return metrics[BEST]


def _copy(tree: Any) -> Any:
    """A copy on the devices: the originals are donated to the next step while orbax still writes."""
    return jax.tree.map(jnp.copy, tree)


REMEDIES = {
    "open": "Is the folder readable and writable? Nothing in it was changed.",
    "read": "Its files are damaged or missing. Choose another with --restore; to go on training from the checkpoint before "
    "it, move this folder away and start the same command again.",
    "save": "Is the disk full, or the folder moved or damaged? Earlier checkpoints there are untouched; start the same command "
    "again to go on from the last of them.",
}


@contextlib.contextmanager
def _failures(verb: str, folder: Path) -> Iterator[None]:
    """Turn whatever orbax raises, of many types, into a RunError that says what to do."""
    try:
        with together():
            yield
    except (RunError, UsageError):
        raise
    except Exception as problem:  # orbax documents no common type, and some are bare Exception
        raise RunError(
            f"Could not {verb} a checkpoint in {folder}: {_first_line(problem)}\n{REMEDIES[verb]}"
        ) from problem


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0][:300]}" if text else type(problem).__name__


def remove_stray_steps(folder: Path) -> None:
    """Delete step folders that hold nothing: orbax would take one for the latest checkpoint."""
    for step in folder.glob("[0-9]*"):
        if step.name.isdigit() and step.is_dir() and not any(step.iterdir()):
            shutil.rmtree(step)


def restore_tree(step_folder: Path, item: str, expected: Any, skip: tuple[str, ...] = ()) -> Any:
    """One tree of a checkpoint, placed as `expected` says; without the layers of `skip`, whatever they are there.

    Raises UsageError naming the first leaf whose presence, shape or type differs, RunError when the files are damaged.
    """
    path = step_folder / item
    if not path.is_dir():
        raise RunError(f"The checkpoint {step_folder} has no {item!r}. Choose another with --restore, or start anew.")
    with ocp.PyTreeCheckpointer() as checkpointer, _failures("read", step_folder):
        saved = _without(checkpointer.metadata(path).item_metadata.tree, skip)
        expected = _without(expected, skip)
        _compare(_leaves(saved), _leaves(expected), path)
        restored = checkpointer.restore(
            path,
            args=ocp.args.PyTreeRestore(
                item=expected,
                restore_args=ocp.checkpoint_utils.construct_restore_args(expected),
                partial_restore=bool(skip),
            ),
        )
        return jax.tree.map(lambda like, x: x.astype(like.dtype), expected, restored)


def _without(tree: Any, skip: tuple[str, ...]) -> Any:
    return {layer: leaves for layer, leaves in tree.items() if layer not in skip} if skip else tree


def _leaves(tree: Any) -> dict[str, tuple]:
    """{'conv1/kernel': (shape, dtype)}; names are the same for a tree in memory and for orbax's record of it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "dtype"))
    return {"/".join(_name(key) for key in path): (tuple(x.shape), jnp.dtype(x.dtype)) for path, x in leaves}


def _name(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


def _compare(saved: dict[str, tuple], expected: dict[str, tuple], path: Path) -> None:
    for leaf in (*expected, *saved):
        there, here = saved.get(leaf), expected.get(leaf)
        if there != here:
            raise UsageError(
                f"The checkpoint {path} does not fit this network and optimizer: {leaf} is {_describe(there)} there and "
                f"{_describe(here)} here. Give the options the checkpoint was trained with, or another checkpoint."
            )


def _describe(leaf: tuple | None) -> str:
    return "absent" if leaf is None else f"{leaf[1].name}{list(leaf[0])}"


def find_step(restore: str, run_folder: Path) -> Path:
    """The step folder that `latest`, `best`, a step number or a path (of a run, its checkpoints, or one step) names.

    Raises UsageError listing what is there when it names none.
    """
    if restore in ("latest", "best") or restore.isdigit():
        folder, wanted = run_folder / "checkpoints", restore
    else:
        folder, wanted = Path(restore), "latest"
        if folder.is_file():
            raise UsageError(
                f"--restore={restore} is a file. Weights of other programs come in with --mode=import --weights={restore}; "
                "--restore then takes the folder made of them."
            )
        if (folder / PARAMETERS).is_dir():
            return folder.absolute()
        folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    if not folder.is_dir():
        raise UsageError(f"--restore={restore}: there is no checkpoint folder {folder}. Train first, or give a path.")
    return _choose(folder, wanted, restore)


def _choose(folder: Path, wanted: str, restore: str) -> Path:
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        steps, best = checkpoints.steps(), checkpoints.best_step()
    finally:
        checkpoints.close()
    choices: dict[str, Callable[[], int | None]] = {
        "latest": lambda: steps[-1] if steps else None,
        "best": lambda: best,
    }
    step = choices[wanted]() if wanted in choices else int(wanted)
    if step not in steps:
        listed = ", ".join(map(str, steps)) or "none"
        raise UsageError(f"--restore={restore}: no such checkpoint in {folder}; its steps are {listed}.")
    return folder.absolute() / str(step)
