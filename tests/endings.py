"""Ways in which one of several processes can end, for tests/processes/test_start.py.

The started processes import this module, which does not import jax. Run as a program, it starts two processes itself:
`python tests/endings.py FUNCTION FOLDER`.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from alexnet_jax.processes.outcome import Cause, Outcome
from alexnet_jax.processes.start import start

WRONG = Outcome(2, "Error: one thing is wrong.", Cause.FAILED)
LOST = Outcome(1, "Error: another process was lost.", Cause.PEER_LOST)


def writes_its_identity(arguments, process):
    _write(arguments, process, f"{process} {os.getpgid(0) == os.getpid()}")
    return Outcome(0)


def second_is_killed(arguments, process):
    if process.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _wait_for_the_end()


def second_is_killed_after_first_fails(arguments, process):
    if process.index == 0:
        _write(arguments, process, os.getpid())
        return Outcome(1, "Error: could not save.", Cause.FAILED)
    _wait_for_process_0(arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def first_is_wrong(arguments, process):
    if process.index == 0:
        return WRONG
    _wait_for_the_end()


def second_is_wrong_after_first_is_lost(arguments, process):
    if process.index == 0:
        _write(arguments, process, os.getpid())
        return LOST
    _wait_for_process_0(arguments)
    return WRONG


def second_has_a_defect(arguments, process):
    if process.index == 1:
        raise KeyError("a defect")
    _wait_for_the_end()


def saves_after_a_signal(arguments, process):
    numbers = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    _write(arguments, process, os.getpid())
    received = signal.sigwait(numbers)
    if process.index == 1:
        _wait_for_process_0(arguments)
    return Outcome(128 + received, f"Interrupted by {received:d}, saved.", Cause.SAVED)


def ignores_no_signal(arguments, process):
    _write(arguments, process, os.getpid())
    _wait_for_the_end()


def _write(arguments, process, text):
    """Write a file of this process atomically."""
    path = Path(arguments[0]) / str(process.index)
    path.with_suffix(".new").write_text(str(text))
    path.with_suffix(".new").rename(path)


def _wait_for_process_0(arguments):
    """Wait until process 0, which writes its process id first, has ended and `start` has noticed it."""
    path = Path(arguments[0]) / "0"
    while not path.exists():
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(int(path.read_text()), 0)
            time.sleep(0.01)


def _wait_for_the_end():
    """Wait to be killed. The time limit only prevents a defect of `start` from blocking the tests."""
    time.sleep(300)


if __name__ == "__main__":
    outcome = start(globals()[sys.argv[1]], sys.argv[2:], 2, 1)
    print(outcome.message, flush=True)
    sys.exit(outcome.status)
