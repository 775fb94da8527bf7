"""Run one experiment: python launch.py --exp=NAME [--mode=MODE] [--section.field=value ...]; --list shows the names."""

import argparse
import logging
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import experiments
from alexnet_jax.allocator import keep_memory
from alexnet_jax.checks import check
from alexnet_jax.errors import Interrupted, RunError, UsageError
from alexnet_jax.experiment import Data, Experiment, Mesh, Network, Optim, Request, Train
from alexnet_jax.workdir import Workdir


@dataclass(frozen=True)
class CommandLine:
    """AlexNet in two columns. `python launch.py --list` shows every experiment; the defaults below are those of --exp."""

    exp: str
    """Name of an experiment, a file of experiments/."""
    network: tyro.conf.FlagConversionOff[Network]
    data: tyro.conf.FlagConversionOff[Data]
    optim: tyro.conf.FlagConversionOff[Optim]
    train: tyro.conf.FlagConversionOff[Train]
    mesh: tyro.conf.FlagConversionOff[Mesh]
    mode: Literal["train", "eval", "summary"] = "train"
    """train: start or continue. eval: test error of a checkpoint. summary: the table of layers."""
    workdir: Path | None = None
    """Folder of the run. Default: runs/EXP."""
    restore: str | None = None
    """eval: latest, best, a step or a path. train: the path of a run or checkpoint to start a new run from."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Delete the run in the folder and start anew."""


def read(arguments: list[str]) -> tuple[str, Request]:
    """(mode, request) of a command line. In eval mode the defaults are those the run was trained with."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--exp", "--mode", "--workdir"):
        first.add_argument(option)
    known, _ = first.parse_known_args(arguments)
    if known.exp is None and not {"-h", "--help"} & set(arguments):
        raise UsageError("--exp=NAME is missing, such as --exp=alexnet_cifar. python launch.py --list shows the names.")
    base = shipped = experiments.find(known.exp or "alexnet_cifar")
    workdir = Path(known.workdir or Path("runs") / base.name)
    if known.mode == "eval":
        base = Workdir(workdir).experiment() or base
    sections = {"network": base.network, "data": base.data, "optim": base.optim, "train": base.train, "mesh": base.mesh}
    default = CommandLine(known.exp or "alexnet_cifar", **sections, workdir=workdir)
    line = tyro.cli(CommandLine, args=arguments, default=default, prog="launch.py", use_underscores=True)
    experiment = Experiment(base.name, line.network, line.data, line.optim, line.train, line.mesh)
    check(experiment)
    return line.mode, Request(experiment, shipped, line.workdir or workdir, line.restore, line.overwrite)


def run(mode: str, request: Request) -> None:
    """Do it. jax and its libraries are imported only now: a typing mistake is answered at once, and memory is set first."""
    if request.experiment.train.tune_allocator and mode != "summary" and keep_memory():
        print("Allocator: freed memory stays in the process (--train.tune_allocator=False turns this off).")
    from alexnet_jax import commands

    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of each save in the middle of an epoch: no metric
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # of several damaged arrays, all but the first print tracebacks
    {"train": commands.train, "eval": commands.evaluate, "summary": commands.summarize}[mode](request)


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 the run failed, 2 wrong usage, 130 or 143 interrupted after saving."""
    if "--list" in arguments:
        print("\n".join(f"{name:24s} {line}" for name, line in experiments.names().items()))
        return 0
    try:
        mode, request = read(arguments)
        run(mode, request)
    except (UsageError, RunError) as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return problem.exit_status
    except Interrupted as stop:
        # Repeated with --overwrite it would delete what was just saved.
        command = shlex.join(["python", "launch.py", *(word for word in arguments if word != "--overwrite")])
        print(f"\n{stop} This command goes on from there: {command}", file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        print("\nInterrupted. What had been saved is safe; the same command goes on from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `launch.py --list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    if status == RunError.exit_status:
        os._exit(status)  # sys.exit would wait ten minutes for what orbax's threads still expect of a failed save
    sys.exit(status)
