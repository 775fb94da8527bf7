"""The checkpoint of another run that a training starts from, identified by its content.

A run that has saved a checkpoint of its own needs its origin no longer: it may have been moved, trained further or deleted.
"""

from pathlib import Path

from alexnet_jax.errors import UsageError
from alexnet_jax.run import checksums
from alexnet_jax.run.records import RunRecord
from alexnet_jax.run.restore import PARAMETERS, find_step
from alexnet_jax.run.workdir import Workdir


def find_origin(restore: str | None, workdir: Workdir, *, overwrite: bool) -> str | None:
    """Return the step folder that --restore names for a training in `workdir`; None for initial parameters.

    For a run with a checkpoint of its own this is the recorded origin if `restore` names the same run or the same parameters.
    Raises UsageError when `restore` names no checkpoint.
    """
    if restore is None:
        return None
    if restore in ("latest", "best") or restore.isdigit():
        raise UsageError(
            f"--restore={restore} in train mode: a run continues from its latest checkpoint by itself. Give the path of a run "
            "or checkpoint to start a new run from its parameters, or --mode=eval to evaluate this checkpoint."
        )
    record = None if overwrite or not workdir.has_checkpoint() else workdir.record()
    if record is not None and _is_origin(restore, record):
        return record.restored_from
    return str(find_step(restore, workdir.path))


def _is_origin(restore: str, record: RunRecord) -> bool:
    if record.restored_from is None:
        return False
    if Path(record.restored_from).is_relative_to(Path(restore).absolute()):
        return True
    try:
        found = find_step(restore, Path(restore))
    except UsageError:
        return False
    return record.origin_checksum is not None and record.origin_checksum == origin_checksum(str(found))


def origin_checksum(origin: str | None) -> int | None:
    """Return the checksum of the parameters of a step folder; None without a folder, or for one from before checksums."""
    if origin is None:
        return None
    record = checksums.read(Path(origin))
    return None if record is None else checksums.checksum_of(record, PARAMETERS)
