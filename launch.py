"""Run one experiment or sweep: python launch.py --exp=NAME [--mode=MODE] [--section.field=value ...]; --list prints the names."""

# Ctrl-C is handled before the imports below, which take a second.
import os
import signal
import sys

from alexnet_jax.processes.outcome import exit_at_once

if __name__ == "__main__" or os.path.basename(sys.argv[0]) == "alexnet-jax":
    signal.signal(signal.SIGINT, exit_at_once)

import dataclasses
import errno
import logging

import experiments
from alexnet_jax.command_line import read
from alexnet_jax.errors import FULL, Interrupted, PeerLost, RunError, UsageError, remedy
from alexnet_jax.modes import MODES, SWEEP_MODES, Request
from alexnet_jax.processes.allocator import keep_memory
from alexnet_jax.processes.identity import ProcessIdentity, restrict_output
from alexnet_jax.processes.outcome import INTERRUPTED, Cause, Outcome, leave, resume_command, without_flags
from alexnet_jax.processes.start import devices_per_process, start
from alexnet_jax.sweeps.plan import SweepRequest


def run(name: str, request: Request | SweepRequest) -> None:
    """Run a mode. Only now are jax and its libraries imported, after the memory allocator has been tuned."""
    sweep = isinstance(request, SweepRequest)
    modes = SWEEP_MODES if sweep else MODES
    if name not in modes:
        raise UsageError(f"--mode={name} is not for sweeps; theirs are {', '.join(modes)} (dry_run as --dry_run).")
    experiment = request.plan.base if sweep else request.experiment
    if experiment.train.tune_allocator and modes[name].computes:
        keep_memory()
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of each save in the middle of an epoch: no metric
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # prints a traceback for each further damaged array
    modes[name].run(request)


def outcome(arguments: list[str], process: ProcessIdentity | None = None) -> Outcome:
    """Run a command line and return how it ended. `process`: which of several processes of a run this one is."""
    try:
        if "--list" in arguments:
            print("\n".join(f"{name:24s} {line}" for name, line in experiments.names().items()), flush=True)
            return Outcome(0)
        mode, request = read(arguments)
        if isinstance(request, Request):
            if process is None and request.processes > 1:
                devices = devices_per_process(request.experiment.mesh, request.processes)
                return start(outcome, arguments, request.processes, devices)
            process = process or request.process
            request = dataclasses.replace(request, process=process)
            if process is not None:
                restrict_output(process)
        for note in request.notes:
            print(note)
        run(mode, request)
    except (UsageError, RunError) as problem:
        cause = Cause.PEER_LOST if isinstance(problem, PeerLost) else Cause.FAILED
        return Outcome(problem.exit_status, f"Error: {problem}", cause)
    except BrokenPipeError:  # the reader of the output ended, as in `launch.py --list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Outcome(0)
    except OSError as problem:
        if problem.errno not in (*FULL, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return Outcome(1, f"Error: {problem}. {remedy(problem, 'Is it readable and writable?')}", Cause.FAILED)
    except Interrupted as stop:
        return Outcome(stop.exit_status, f"\n{stop}", Cause.SAVED)
    except KeyboardInterrupt:
        return Outcome(130, f"\n{INTERRUPTED}", Cause.INTERRUPTED)
    return Outcome(0)


def report(arguments: list[str]) -> Outcome:
    """Run a command line, print how it ended, and return that."""
    ended = outcome(arguments)
    if ended.message:
        stopped = ended.cause in (Cause.SAVED, Cause.INTERRUPTED)
        print(f"{ended.message} {resume_command(arguments)}" if stopped else ended.message, file=sys.stderr)
    failed = ended.cause in (Cause.FAILED, Cause.PEER_LOST) and ended.status != UsageError.exit_status
    overwrites = without_flags(arguments, "overwrite") != list(arguments)
    if failed and overwrites and not any(word.startswith("--mode") for word in arguments):
        print("When you repeat this command, omit --overwrite: it would delete what has been saved.", file=sys.stderr)
    return ended


def main(arguments: list[str]) -> int:
    """Return the exit status: 0 done, 1 the run failed, 2 wrong usage, 130 or 143 interrupted after saving."""
    return report(arguments).status


def console() -> None:
    """Run the command line of this process and exit with its status."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] - names of files may not be valid UTF-8
    leave(report(sys.argv[1:]))


if __name__ == "__main__":
    console()
