"""Restoring a checkpoint on any mesh, and finding the checkpoint that an option names.

Nothing is restored unless it equals what was saved (checksums.py). Unless a step was requested, damaged checkpoints are
reported and skipped, and the newest sound one is restored.
"""

import contextlib
import gc
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import orbax.checkpoint as ocp

from alexnet_jax.errors import Damaged, RunError, UsageError, first_line, remedy
from alexnet_jax.processes.distributed import detect_peer_loss, is_multiprocess
from alexnet_jax.run import checksums
from alexnet_jax.run.checksums import Leaves

PARAMETERS, OPTIMIZER = "parameters", "optimizer"

Restored = TypeVar("Restored")


def restore_trees(step_folder: Path, expected: dict[str, Any], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return trees {item: tree} of a checkpoint with the shardings of `expected`, without the layers of `skip`.

    Raises UsageError naming the first leaf whose presence, shape or type differs, Damaged naming the leaf or file that
    differs from what was saved, RunError when the checkpoint has no such tree or cannot be read.
    """
    checksums.validation_error(step_folder)
    record = checksums.read(step_folder)
    if record is None:
        print(f"Note: {step_folder} was written before checkpoints had checksums; it cannot be verified.", flush=True)
    return {item: _restore(step_folder, item, record, tree, skip) for item, tree in expected.items()}


def restore_tree(step_folder: Path, item: str, expected: Any, skip: tuple[str, ...] = ()) -> Any:
    """Return one tree of a checkpoint; see `restore_trees`."""
    return restore_trees(step_folder, {item: expected}, skip)[item]


def _restore(step_folder: Path, item: str, record: dict[str, Any] | None, expected: Any, skip: tuple[str, ...]) -> Any:
    path = step_folder / item
    if record is not None and item not in record["items"]:
        raise RunError(f"The checkpoint {step_folder} has no {item!r}. Choose another with --restore, or start anew.")
    if not path.is_dir():
        raise Damaged(step_folder, f"{item} is missing")
    if skip:
        expected = {layer: leaves for layer, leaves in expected.items() if layer not in skip}
    here = checksums.describe(expected)
    args = ocp.args.PyTreeRestore(
        item=expected,
        restore_args=ocp.checkpoint_utils.construct_restore_args(expected),
        partial_restore=bool(skip),
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        with storage(step_folder):
            listed = checkpointer.metadata(path).item_metadata
            if listed is None:  # orbax has logged the reason; raised in this block, which waits for its other reads
                raise Damaged(step_folder, f"{item}: the description of its leaves cannot be read")
        try:
            there = checksums.describe(listed.tree)
        except TypeError as problem:  # a description without shapes; that of `expected` was described above
            raise Damaged(step_folder, f"{item}: the description of its leaves is incomplete") from problem
        saved = there if record is None else checksums.leaves_of(record, item)
        _compare(saved, here, skip, path)
        if there != saved:
            raise Damaged(step_folder, f"{item}: the description of its leaves differs from the saved one")
        with storage(step_folder):
            restored = checkpointer.restore(path, args=args)
    if record is not None:
        checksums.verify(record, item, restored, step_folder)
    return restored


def _compare(saved: Leaves, expected: Leaves, skip: tuple[str, ...], path: Path) -> None:
    saved = {name: leaf for name, leaf in saved.items() if name.split("/")[0] not in skip}
    differing = [name for name in dict.fromkeys((*expected, *saved)) if saved.get(name) != expected.get(name)]
    if differing:
        name, layers = differing[0], {name.split("/")[0] for name in differing}
        skipping = f" A new run can leave that layer out: --restore_skip={layers.pop()}." if len(layers) == 1 else ""
        raise UsageError(
            f"The checkpoint {path} does not fit this network and optimizer: {name} is {_describe(saved.get(name))} in the "
            f"checkpoint and {_describe(expected.get(name))} in the network. Give the options the checkpoint was trained with, "
            f"or another checkpoint.{skipping}"
        )


def _describe(leaf: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if leaf is None else f"{leaf[0]}{list(leaf[1])}"


def restore_parameters(restore: str | None, run_folder: Path, expected: Any) -> tuple[Path, Any]:
    """Return (step folder, parameters) that --restore names, by default the latest, with the shardings of `expected`.

    When the latest is requested and damaged, this is reported and the newest sound one returned. Raises as `restore_trees`.
    """
    restore = restore or "latest"
    named = find_step(restore, run_folder)
    if restore == "best" or restore.isdigit() or Path(restore).absolute() == named:
        return named, restore_tree(named, PARAMETERS, expected)
    folders = [step for step in step_folders(named.parent)[::-1] if int(step.name) <= int(named.name)]
    step, parameters, damaged = first_sound(folders, lambda step: restore_tree(step, PARAMETERS, expected))
    for damage in damaged.values():
        print(f"Warning: {damage.fact} {step} is restored instead.", flush=True)
    return step, parameters


def first_sound(
    folders: Sequence[Path], restore: Callable[[Path], Restored]
) -> tuple[Path, Restored, dict[Path, Damaged]]:
    """Return the first sound checkpoint, what it restores to, and the damage of the checkpoints before it.

    With several processes only the first checkpoint is tried, because some processes may find damage that others do not
    find, and orbax synchronizes them in every restore. Raises RunError when no checkpoint is sound.
    """
    if is_multiprocess():
        try:
            return folders[0], restore(folders[0]), {}
        except Damaged as damage:
            raise RunError(
                f"{damage.fact} Several processes do not return to an older checkpoint by themselves. Start the same command "
                "once in one process, which does, or move that folder away."
            ) from damage
    damaged: dict[Path, Damaged] = {}
    for folder in folders:
        try:
            return folder, restore(folder), damaged
        except Damaged as damage:
            damaged[folder] = damage
    listed = "\n".join(f"  {damage.fact}" for damage in damaged.values())
    raise RunError(
        f"No checkpoint in {folders[0].parent} is sound:\n{listed}\nNothing was changed. Put a copy of a sound one there, or "
        "start anew with --overwrite or another --workdir."
    )


# --- finding a checkpoint --------------------------------------------------------------------------------------------


def step_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder in ascending order, without empty ones, which killed processes leave."""
    with failures("open", folder):
        entries = folder.iterdir() if folder.is_dir() else ()
        steps = [path.absolute() for path in entries if re.fullmatch("0|[1-9][0-9]*", path.name)]
        return sorted((p for p in steps if p.is_dir() and any(p.iterdir())), key=lambda path: int(path.name))


def best_step(folder: Path) -> int | None:
    """Return the step with the lowest validation error, the latest of equal ones; None if none was validated.

    Raises Damaged when a record is damaged.
    """
    errors = {int(step.name): checksums.validation_error(step) for step in step_folders(folder)}
    validated = [(error, -step) for step, error in errors.items() if error is not None]
    return -min(validated)[1] if validated else None


def find_step(restore: str, run_folder: Path) -> Path:
    """Return the step folder that `latest`, `best`, a step number or a path (of a run, its checkpoints, or a step) names.

    Raises UsageError listing the existing steps when it names none.
    """
    if restore in ("latest", "best") or restore.isdigit():
        folder, wanted = run_folder / "checkpoints", restore
    else:
        folder, wanted = Path(restore), "latest"
        if folder.is_file():
            raise UsageError(
                f"--restore={restore} is a file. Import weights of other programs with --mode=import --weights={restore}; "
                "--restore then takes the folder of the import."
            )
        a_step = folder.is_dir() and folder.name.isdigit() and folder.absolute().parent.name == "checkpoints"
        if a_step or (folder / PARAMETERS).is_dir():
            return folder.absolute()
        folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    if not folder.is_dir():
        raise UsageError(
            f"--restore={restore}: no checkpoint folder {folder} exists. Expected latest, best, a step, or the path of a run "
            "or checkpoint. Train first if none exists."
        )
    return _choose(folder, wanted, restore)


def _choose(folder: Path, wanted: str, restore: str) -> Path:
    steps = [int(step.name) for step in step_folders(folder)]
    choices: dict[str, Callable[[], int | None]] = {
        "latest": lambda: steps[-1] if steps else None,
        "best": lambda: best_step(folder),
    }
    step = choices[wanted]() if wanted in choices else int(wanted)
    if step not in steps:
        listed = f"its steps are {', '.join(map(str, steps))}" if steps else "it has none. Expected the folder of a run"
        raise UsageError(f"--restore={restore}: no such checkpoint in {folder}; {listed}.")
    return folder.absolute() / str(step)


# --- errors ----------------------------------------------------------------------------------------------------------

REMEDIES = {
    "open": "Is the folder readable and writable? Nothing in it was changed.",
    "read": "Is the folder readable, and is there enough memory? Nothing in it was changed.",
    "save": "Was the folder moved, or made read-only?",
}

UNCHANGED = "Earlier checkpoints in it are unchanged; start the same command again to continue from the last of them."

STORAGE_ERRORS = (OSError, ValueError, LookupError)
"""What orbax and tensorstore raise for missing, truncated and damaged files: OSError for missing ones, ValueError for JSON that
cannot be parsed and for tensorstore's statuses, LookupError for JSON without a required key."""

UNREADABLE = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "out of memory")
"""Parts of messages of libraries that do not mean damage: the checkpoint may be sound."""


@contextlib.contextmanager
def storage(step_folder: Path) -> Iterator[None]:
    """Turn the errors of a read by orbax into Damaged, or into RunError where the files may be sound.

    Any other exception, such as a TypeError, is a defect of a program and raised unchanged.
    """
    try:
        with _without_late_tracebacks(), detect_peer_loss():
            yield
    except (RunError, UsageError):
        raise
    except Exception as problem:
        if isinstance(problem, PermissionError | MemoryError) or any(word in str(problem) for word in UNREADABLE):
            raise _failure("read", step_folder, problem) from problem
        if isinstance(problem, STORAGE_ERRORS) or _orbax_means_damage(problem):
            raise Damaged(step_folder, first_line(problem)) from problem
        raise


def _orbax_means_damage(problem: Exception) -> bool:
    """Return whether orbax raised `problem`, of a type that says nothing, because of a damaged file.

    orbax raises a bare Exception when an array cannot be read. Its own code raises an AttributeError for records that hold other
    JSON than it wrote; one raised outside orbax is a defect.
    """
    *_, frame = traceback.extract_tb(problem.__traceback__)
    inside = f"{os.sep}orbax{os.sep}" in frame.filename
    return type(problem) is Exception or (isinstance(problem, AttributeError) and inside)


GRACE = 0.1
"""Seconds that tensorstore's threads get after a failed read to end the reads in progress. A slower disk costs a traceback."""


@contextlib.contextmanager
def _without_late_tracebacks() -> Iterator[None]:
    """Suppress the tracebacks of further arrays when several cannot be read: orbax raises the first error.

    Python prints the others when it deletes the coroutines that read them. When the block fails they are deleted before
    `sys.unraisablehook` is restored.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        late = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"
        if not late and getattr(found.object, "__qualname__", "") != "_read_array_index_and_device_put":
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    except BaseException as problem:
        chain: BaseException | None = problem
        while chain is not None:  # their frames keep the coroutines alive
            traceback.clear_frames(chain.__traceback__)
            chain = chain.__cause__ or chain.__context__
        time.sleep(GRACE)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def failures(verb: Literal["open", "save"], folder: Path) -> Iterator[None]:
    """Turn any exception of orbax, which has no common type, into a RunError with the remedy."""
    try:
        with detect_peer_loss():
            yield
    except (RunError, UsageError):
        raise
    except Exception as problem:
        raise _failure(verb, folder, problem) from problem


def _failure(verb: str, folder: Path, problem: Exception) -> RunError:
    what = remedy(problem, REMEDIES[verb]) + (f" {UNCHANGED}" if verb == "save" else "")
    return RunError(f"Could not {verb} a checkpoint in {folder}: {first_line(problem)}\n{what}")
