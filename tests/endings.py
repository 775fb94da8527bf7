"""How one of several processes can end, for tests/test_processes.py: imported by those processes, and without jax."""

import os
import signal
import sys
import time

from alexnet_jax.processes.start import Outcome

WRONG = Outcome(2, "Error: one thing is wrong.", at_once=True)
LOST = Outcome(1, "Error: another process was lost.", at_once=True, elsewhere=True)


def nothing_wrong(arguments, process):
    return Outcome(0)


def written(arguments, process):
    with open(f"{arguments[0]}-{process.index}", "w") as file:
        file.write(f"{process} {os.getpgid(0) == os.getpid()}")
    return Outcome(0)


def second_is_killed(arguments, process):
    if process.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)


def second_is_killed_first_tells(arguments, process):
    return (
        second_is_killed(arguments, process) if process.index == 1 else Outcome(1, "Error: could not save.", at_once=True)
    )


def first_is_wrong(arguments, process):
    return WRONG if process.index == 0 else time.sleep(300)


def second_is_wrong_first_is_lost(arguments, process):
    time.sleep(0.3 * process.index)
    return WRONG if process.index == 1 else LOST


def second_has_a_defect(arguments, process):
    if process.index == 1:
        raise KeyError("a defect")
    time.sleep(300)


def saves_when_told(arguments, process):
    received = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: received.append(number))
    with open(f"{arguments[0]}-{process.index}", "w"):
        pass
    while not received:
        time.sleep(0.01)
    time.sleep(0.5 * process.index)
    return Outcome(128 + received[0], f"Interrupted by {received[0]}, saved.", saved=True)


def ends_when_told(arguments, process):
    with open(f"{arguments[0]}-{process.index}", "w"):
        pass
    time.sleep(300)


if __name__ == "__main__":
    from alexnet_jax.processes.start import start

    outcome = start(globals()[sys.argv[1]], sys.argv[2:], 2, 1)
    print(outcome.message, flush=True)
    sys.exit(outcome.status)
