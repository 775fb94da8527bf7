"""Run one experiment or sweep: python launch.py --exp=NAME [--mode=MODE] [--section.field=value ...]; --list shows the names."""

import dataclasses
import importlib
import logging
import os
import shlex
import sys

import experiments
from alexnet_jax.command_line import read
from alexnet_jax.errors import Interrupted, PeerLost, RunError, UsageError
from alexnet_jax.modes import Request
from alexnet_jax.processes.allocator import keep_memory
from alexnet_jax.processes.identity import Place, speak_alone
from alexnet_jax.processes.start import INTERRUPTED, Outcome, devices_each, leave, start
from alexnet_jax.sweeps.plan import SweepRequest

MODES = {
    "train": ("training", "train"),
    "dry_run": ("dry_run", "show"),
    "eval": ("training", "evaluate"),
    "summary": ("dry_run", "summarize"),
    "report": ("run.report", "write_report_again"),
    "prepare": ("data.prepare", "run"),
    "import": ("weights.exchange", "import_weights"),
    "export": ("weights.exchange", "export_weights"),
    "kernels": ("qualitative.kernels", "show"),
    "predict": ("qualitative.predict", "predict"),
    "neighbours": ("qualitative.neighbours", "show"),
    "features": ("qualitative.features", "write"),
    "gradcheck": ("gradcheck", "check"),
    "traffic": ("traffic.show", "show"),
}
"""{mode: (module of alexnet_jax, function of a request)}"""

SWEEP_MODES = {
    "train": ("sweeps.run", "run"),
    "summary": ("sweeps.run", "summarize"),
    "report": ("sweeps.run", "report"),
    "dry_run": ("sweeps.run", "dry_run"),
}


def run(mode: str, request: Request | SweepRequest) -> None:
    """Do it. jax and its libraries are imported only now: a typing mistake is answered at once, and memory is set first."""
    sweep = isinstance(request, SweepRequest)
    modes = SWEEP_MODES if sweep else MODES
    if mode not in modes:
        raise UsageError(f"--mode={mode} is not for sweeps; theirs are {', '.join(modes)} (dry_run as --dry_run).")
    experiment = request.plan.base if sweep else request.experiment
    if experiment.train.tune_allocator and mode not in ("summary", "report", "kernels", "traffic"):
        kept = keep_memory()
        if kept and mode == "train":
            print("Allocator: freed memory stays in the process (--train.tune_allocator=False turns this off).")
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of each save in the middle of an epoch: no metric
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # of several damaged arrays, all but the first print tracebacks
    module, function = modes[mode]
    getattr(importlib.import_module(f"alexnet_jax.{module}"), function)(request)


def outcome(arguments: list[str], place: Place | None = None) -> Outcome:
    """Do what a command line says; `place`: as one of several processes that were started for it."""
    try:
        mode, request = read(arguments)
        if isinstance(request, Request):
            if place is None and request.processes > 1:
                each = devices_each(request.experiment.mesh, request.processes)
                return start(outcome, arguments, request.processes, each)
            place = place or request.place
            request = dataclasses.replace(request, place=place)
            if place is not None:
                speak_alone(place)
        run(mode, request)
    except (UsageError, RunError) as problem:
        # What orbax's threads still expect of a failed save takes ten minutes, and other processes may wait for this one.
        at_once = place is not None or isinstance(problem, RunError)
        elsewhere = isinstance(problem, PeerLost)
        return Outcome(problem.exit_status, f"Error: {problem}", at_once=at_once, elsewhere=elsewhere)
    except Interrupted as stop:
        # Repeated with --overwrite it would delete what was just saved.
        command = shlex.join(["python", "launch.py", *(word for word in arguments if word != "--overwrite")])
        return Outcome(stop.exit_status, f"\n{stop} This command goes on from there: {command}", saved=True)
    except KeyboardInterrupt:
        return Outcome(130, f"\n{INTERRUPTED}", at_once=place is not None)
    except BrokenPipeError:  # the reader of our output went away, as in `launch.py --list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Outcome(0)


def told(arguments: list[str]) -> Outcome:
    """Do it, and say how it ended."""
    if "--list" in arguments:
        print("\n".join(f"{name:24s} {line}" for name, line in experiments.names().items()))
        return Outcome(0)
    ended = outcome(arguments)
    if ended.message:
        print(ended.message, file=sys.stderr)
    if "--overwrite" in arguments and ended.status not in (0, UsageError.exit_status) and not ended.saved:
        print("Started again, leave out --overwrite: it would delete what has been saved.", file=sys.stderr)
    return ended


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 the run failed, 2 wrong usage, 130 or 143 interrupted after saving."""
    return told(arguments).status


if __name__ == "__main__":
    leave(told(sys.argv[1:]))
