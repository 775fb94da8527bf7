"""The ways in which a command can fail, and their exit statuses: 1 for RunError, 2 for UsageError, 128 + signal for Interrupted.

Every message states the value received, what was expected and the remedy; `launch.py` prints it without a traceback.
"""

import errno
import os
import signal
from pathlib import Path


def first_line(problem: BaseException) -> str:
    """Return the type and the first line of an exception's message, at most 300 characters: libraries' messages may be pages."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0][:300]}" if text else type(problem).__name__


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk or a quota without room."""


def remedy(problem: BaseException, otherwise: str) -> str:
    """Return what to do about a failed write: make room if the disk, or the user's share of it, is full; else `otherwise`."""
    seen: BaseException | None = problem
    while seen is not None:  # libraries raise errors of their own, with the text of the system's error
        if getattr(seen, "errno", None) in FULL or any(os.strerror(code) in str(seen) for code in FULL):
            return "The disk is full: make room."
        seen = seen.__cause__ or seen.__context__
    return otherwise


class UsageError(Exception):
    """A request that cannot be carried out as given (exit status 2). Nothing was started and nothing was lost."""

    exit_status = 2


class NoDeviceError(UsageError):
    """The devices that were asked for do not exist, for this run and for any other."""


class RunError(Exception):
    """A failure of the run (exit status 1): a loss that is not finite, damaged data, a checkpoint that could not be saved."""

    exit_status = 1


class Diverged(RunError):  # noqa: N818 - a result of the run, unlike damage to it
    """A loss that is not finite."""


class PeerLost(RunError):  # noqa: N818 - another process failed, and its message says why
    """The failure of another process of the same run, which made this process stop."""


class Damaged(RunError):  # noqa: N818 - names what is wrong
    """A checkpoint that differs from what was saved. `fact` says what is wrong; the message also lists the other steps."""

    def __init__(self, folder: Path, fact: str):
        # Every reader of checkpoints raises this error, and none of them knows the other steps, which are the remedy.
        others = sorted(int(p.name) for p in folder.parent.glob("[0-9]*") if p.name.isdigit() and p.name != folder.name)
        self.fact = f"The checkpoint {folder} is damaged: {fact}."
        listed = f"The folder also has steps {', '.join(map(str, others))}" if others else "The folder has no other step"
        super().__init__(f"{self.fact}\n{listed}; choose another checkpoint with --restore. Nothing was changed.")


class Busy(UsageError):  # noqa: N818 - nothing is wrong
    """A folder in which another process is working."""


class DataNotFoundError(UsageError):
    """A data set that is neither prepared nor downloadable. A first training with plain options uses the digits instead."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was saved
    """SIGINT or SIGTERM, after the run was saved or between two trials of a sweep (exit status 128 + signal)."""

    def __init__(self, number: int, step: int | None = None):
        where = "between two trials" if step is None else f"and saved at step {step}"
        super().__init__(f"Interrupted by {signal.Signals(number).name} {where}.")
        self.exit_status = 128 + number
