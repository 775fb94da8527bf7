"""The ways a command can end badly, and the exit status each one gets.

Every message states the value received, what was expected and the remedy; `launch.py` prints it without a traceback.
"""

import signal
from pathlib import Path


def first_line(problem: BaseException) -> str:
    """What a library's exception says, in a line: libraries' messages may be pages."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0][:300]}" if text else type(problem).__name__


class UsageError(Exception):
    """The user asked for something that cannot be done as asked (exit status 2): nothing was started, nothing was lost."""

    exit_status = 2


class RunError(Exception):
    """The run itself failed (exit status 1): a loss that is not finite, damaged data, a checkpoint that could not be saved."""

    exit_status = 1


class Diverged(RunError):  # noqa: N818 - the run's own end, told apart from damage to it
    """A loss that is not finite."""


class PeerLost(RunError):  # noqa: N818 - another process failed, and says why
    """This process had to stop because another one of the same run did."""


class Damaged(RunError):  # noqa: N818 - what is wrong, not that something is
    """A checkpoint is not as it was saved. `fact` says what is wrong, the message also what else there is."""

    def __init__(self, folder: Path, fact: str):
        others = sorted(int(p.name) for p in folder.parent.glob("[0-9]*") if p.name.isdigit() and p.name != folder.name)
        self.fact = f"The checkpoint {folder} is damaged: {fact}."
        listed = f"Steps {', '.join(map(str, others))} are there too" if others else "There is no other beside it"
        super().__init__(f"{self.fact}\n{listed}; choose another with --restore. Nothing was changed.")


class Busy(UsageError):  # noqa: N818 - nothing is wrong
    """Another process is working in the folder."""


class DataNotFoundError(UsageError):
    """A data set is neither prepared nor downloadable. `launch.py` may go on with the digits when a plain first run asked."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was saved
    """SIGINT or SIGTERM came and the run was saved, or it came between two runs; exit status 128 + signal."""

    def __init__(self, number: int, step: int | None = None):
        where = "between two trials" if step is None else f"and saved at step {step}"
        super().__init__(f"Interrupted by {signal.Signals(number).name} {where}.")
        self.exit_status = 128 + number
