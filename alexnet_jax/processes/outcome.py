"""How a command ended, and how a run of several processes ended, judged from the ends of its processes. Without jax."""

import enum
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from alexnet_jax.errors import RunError

INTERRUPTED = "Interrupted. What had been saved is safe."


def resume_command(arguments: Sequence[str] | None = None) -> str:
    """Return a sentence with the command that resumes a run, by default that of this process.

    It has no --overwrite, which would delete what was saved.
    """
    words = sys.argv[1:] if arguments is None else arguments
    program = ["alexnet-jax"] if Path(sys.argv[0]).stem == "alexnet-jax" else ["python", "launch.py"]
    return f"This command continues from there: {shlex.join([*program, *without_flags(words, 'overwrite')])}"


def without_flags(arguments: Sequence[str], *flags: str) -> list[str]:
    """Return the arguments without these flags, in any spelling: --dry_run, --dry-run, --overwrite=yes."""
    return [word for word in arguments if word.lstrip("-").partition("=")[0].replace("-", "_") not in flags]


def exit_at_once(number: int, _: FrameType | None) -> NoReturn:
    """Handle a signal by ending the process with a message. What was saved survives this, as it survives `kill -9`.

    An exception would be lost where it is raised in a callback of a library: jax has some, and the training would go on.
    """
    os.write(2, f"\n{INTERRUPTED} {resume_command()}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)


class Cause(enum.Enum):
    """Why a command ended."""

    DONE = enum.auto()
    SAVED = enum.auto()  # a signal arrived, and the run was saved
    INTERRUPTED = enum.auto()  # a signal arrived when there was nothing to save
    FAILED = enum.auto()
    PEER_LOST = enum.auto()  # another process of the run failed; its message says why


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    """Exit status (errors.py)."""
    message: str = ""
    """Text for the user, printed on standard error."""
    cause: Cause = Cause.DONE


def leave(outcome: Outcome) -> NoReturn:
    """End this process with the status of `outcome`.

    A command that neither finished nor saved ends at once: after a failed save orbax's threads would wait for ten minutes, and
    jax would wait for the other processes of the run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if outcome.cause in (Cause.DONE, Cause.SAVED):
        sys.exit(outcome.status)
    os._exit(outcome.status)


@dataclass(frozen=True)
class End:
    """How one of the processes that `start` started ended."""

    index: int
    """Index of the process in the run."""
    status: int
    """Exit status; negative if a signal ended the process."""
    reported: Outcome | None = None
    """The outcome that the process reported; None if it ended without reporting one."""
    killed: bool = False
    """Whether `start` killed the process because another one had failed."""
    errors: str = ""
    """What the process wrote to standard error, unless that was the user's terminal."""


def verdict(ends: Sequence[End], signals: Sequence[int]) -> Outcome:
    """Return the outcome of a run: that of the failed process which is nearest to the cause.

    One failure makes other processes fail, with messages about its consequences. From the nearest to the farthest:

    1. a process that saved after a signal;
    2. one that was ended by one of the `signals` that `start` forwarded, before there was anything to save;
    3. one that ended without a report: what the others report may be due to its death;
    4. one that reported a failure of its own;
    5. one that jax aborted (SIGABRT), as it does after another process was lost;
    6. one that reported the loss of another process.

    Of equals the first one counts. The outcome is a success if no process failed by itself.
    """

    def distance(end: End) -> int:
        if end.reported is None:
            if _forwarded(end, signals):
                return 2
            return 5 if end.status == -signal.SIGABRT else 3
        return {Cause.SAVED: 1, Cause.PEER_LOST: 6}.get(end.reported.cause, 4)

    failed = [end for end in ends if end.status != 0 and not end.killed]
    if not failed:
        return Outcome(0)
    nearest = min(failed, key=distance)
    if nearest.reported is not None:
        return nearest.reported
    number = _forwarded(nearest, signals)
    if number is None:
        return _unexpected(nearest, len(ends))
    printed = any(end.index == 0 and end.reported is None and end.status == 128 + number for end in failed)
    return Outcome(128 + number, "" if printed else INTERRUPTED, Cause.INTERRUPTED)


def _forwarded(end: End, signals: Sequence[int]) -> int | None:
    """Return which of the forwarded signals ended a process: by default action or by `signals.exit_when_stuck`."""
    return next((number for number in signals if end.status in (-number, 128 + number)), None)


def _unexpected(end: End, count: int) -> Outcome:
    how = f"was ended by {signal.Signals(-end.status).name}" if end.status < 0 else f"ended with status {end.status}"
    hint = " Was it killed because the machine ran out of memory?" if end.status == -signal.SIGKILL else ""
    last_lines = "".join(f"\n  {line}" for line in end.errors.strip().splitlines()[-8:])
    return Outcome(
        RunError.exit_status,
        f"Error: Process {end.index} of {count} {how}, so the other processes were ended too.{hint} What had been saved is "
        f"safe. {resume_command()}{last_lines}",
        Cause.FAILED,
    )
