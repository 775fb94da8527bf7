"""The command line: which experiment or sweep, which mode, and every option, typed and checked before jax is imported."""

import argparse
import dataclasses
import functools
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import docstring_parser
import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

import experiments
from alexnet_jax.checks import check, require
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data, Experiment, MeshOptions, Network, Optim, Train
from alexnet_jax.modes import MODES, Exchange, Look, Request, Traffic, readers
from alexnet_jax.processes.identity import ProcessIdentity, identify
from alexnet_jax.sweeps.plan import Plan, Sweep, SweepOptions, SweepRequest, changed, choose, seeds_needed

DIGITS_EPOCHS = 5
"""Epochs of a sweep on the digits: enough to see that a network learns, in seconds for each trial."""

NAMED = tuple(name for name, mode in MODES.items() if not mode.flag)
"""Values of --mode."""

if TYPE_CHECKING:
    Mode = str
else:
    Mode = Literal[NAMED]

MODE_HELP = " ".join(f"{name}: {MODES[name].help}." for name in NAMED)

SUMMARY = """Two-column AlexNet and its ablations. The options most people use:

  --exp=NAME                  the experiment or sweep; --list shows the names
  --mode=MODE                 train (default), eval, summary, predict, ...
  --workdir=FOLDER            folder of the run; the same command resumes it
  --restore=best              checkpoint to read: latest, best, step or path
  --overwrite                 delete the run in the folder and start again
  --dry_run                   print what a training would need
  --train.epochs=5            passes over the training split
  --train.batch=128           images per step
  --train.seed=1              seed of everything random
  --optim.learning_rate=0.02  peak learning rate

All options follow, with the defaults of the experiment that --exp names."""


@dataclass(frozen=True)
class CommandLine:
    """What a command line can contain."""

    exp: str
    """Name of an experiment or a sweep, a file in experiments/."""
    network: tyro.conf.FlagConversionOff[Network]
    data: tyro.conf.FlagConversionOff[Data]
    optim: tyro.conf.FlagConversionOff[Optim]
    train: tyro.conf.FlagConversionOff[Train]
    mesh: tyro.conf.FlagConversionOff[MeshOptions]
    sweep: tyro.conf.FlagConversionOff[SweepOptions] = field(default_factory=SweepOptions)
    mode: Annotated[Mode, tyro.conf.arg(help=MODE_HELP)] = "train"
    workdir: Path | None = None
    """Folder of the run. Default: runs/EXP, or runs/EXP-imported in import mode. The trials of a sweep are stored in the
    folder `trials` next to it."""
    restore: str | None = None
    """eval, export, kernels, predict, neighbours, features: the checkpoint to read, as latest, best, a step or a path; default
    latest. gradcheck: the same; default fresh parameters. train: the path of a run or checkpoint whose parameters a new run
    starts from."""
    restore_skip: str = ""
    """train: layers that a run with --restore initializes afresh, such as fc8 or fc7,fc8; see --optim.new_rate."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Delete the run in the folder and start again. export: replace the file. prepare: replace the prepared pictures. Of a
    sweep, only the plan is deleted; its trials are kept."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """train: print what the training would need (shapes, devices, memory, disk) and estimate its time. Sweep: list the trials
    and estimate their time. Nothing is written."""
    traffic: tyro.conf.FlagConversionOff[Traffic] = field(default_factory=Traffic)
    processes: int = 1
    """train, eval: number of processes of this run to start on this machine; they share its devices (docs/cluster.md)."""
    distributed: str = "auto"
    """train, eval: how the processes of a run on several machines find each other. auto: from the environment of Slurm,
    Open MPI or Kubernetes; a single process elsewhere. off: a single process. HOST:PORT,N,I: process 0 of N listens at
    HOST:PORT, and this is process I."""
    look: Annotated[Look, tyro.conf.arg(name="")] = field(default_factory=Look)
    exchange: Annotated[Exchange, tyro.conf.arg(name="")] = field(default_factory=Exchange)


RECORDS = (CommandLine, Network, Data, Optim, Train, MeshOptions, SweepOptions, Traffic, Look, Exchange)
"""The records whose fields are options; a field's docstring is its help text."""

REGISTRY = ConstructorRegistry()


@REGISTRY.struct_rule
def _options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Describe a record to tyro, with each field's docstring as one paragraph: tyro itself keeps the source's line breaks."""
    if info.type not in RECORDS:
        return None
    texts = _documentation(info.type)
    fields = tuple(
        StructFieldSpec(f.name, cast(type, f.type), getattr(info.default, f.name), helptext=texts.get(f.name))
        for f in dataclasses.fields(info.type)
    )
    return StructConstructorSpec(instantiate=info.type, fields=fields)


@functools.cache  # it parses the source of the class, and tyro asks several times
def _documentation(record: type) -> dict[str, str]:
    """Return {field: docstring} of a dataclass."""
    documented = docstring_parser.parse_from_object(record).params
    return {field.args[1]: " ".join((field.description or "").split()) for field in documented}


def read(arguments: list[str]) -> tuple[str, Request | SweepRequest]:
    """Return (mode, request) of a command line. Modes on a trained run take the options of that run as defaults.

    Raises UsageError, or SystemExit after tyro has printed what is wrong.
    """
    known = _first_look(arguments)
    if known.exp is None and not {"-h", "--help"} & set(arguments):
        raise UsageError("--exp=NAME is missing, such as --exp=alexnet_cifar. python launch.py --list shows the names.")
    found = experiments.find(known.exp or "alexnet_cifar")
    digits = isinstance(found, Sweep) and known.data_name == "digits"
    suffix = "-on-digits" if digits else "-imported" if known.mode == "import" else ""
    workdir = Path(known.workdir or Path("runs") / f"{found.name}{suffix}")
    if isinstance(found, Sweep):
        shipped, base = _base(found, known.sweep_base, digits)
    else:
        shipped = base = found
        if known.mode in MODES and MODES[known.mode].trained:
            base = _trained(workdir) or base
    line = _parse(arguments, known.exp or "alexnet_cifar", base, workdir)
    experiment = Experiment(base.name, line.network, line.data, line.optim, line.train, line.mesh)
    workdir = line.workdir or workdir
    mode = "dry_run" if line.dry_run else line.mode
    _check_unread(line)
    if isinstance(found, Sweep):
        return mode, _sweep_request(found, experiment, shipped, line, workdir, arguments)
    if line.sweep != SweepOptions():
        raise UsageError(f"--sweep.* is for sweeps; {found.name} is one experiment. --list shows the sweeps.")
    check(experiment)
    process = identify(line.distributed)
    _check_processes(mode, line, process)
    request = Request(
        experiment,
        shipped,
        workdir,
        restore=line.restore,
        overwrite=line.overwrite,
        restore_skip=_names(line.restore_skip),
        look=line.look,
        exchange=line.exchange,
        traffic=line.traffic,
        processes=line.processes,
        process=process,
    )
    return mode, request


def _parse(arguments: list[str], exp: str, base: Experiment, workdir: Path) -> CommandLine:
    sections = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.name != "name"}
    _check_words(arguments)
    return tyro.cli(
        CommandLine,
        args=arguments,
        default=CommandLine(exp, **sections, workdir=workdir),
        prog="launch.py",
        description=SUMMARY,
        use_underscores=True,
        registry=REGISTRY,
    )


def _names(text: str) -> tuple[str, ...]:
    """Split 'fc7,fc8' at its commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_processes(mode: str, line: CommandLine, process: ProcessIdentity | None) -> None:
    """Raise UsageError unless the mode can run in the processes that exist, or that are to be started."""
    if line.processes < 1:
        raise UsageError(f"--processes={line.processes}: expected 1 or more.")
    if not MODES[mode].shared and (process is not None or line.processes > 1):
        given = f"--{mode}" if MODES[mode].flag else f"--mode={mode}"
        shared = " and ".join(name for name, mode in MODES.items() if mode.shared)
        raise UsageError(
            f"{given} is work for one process, and this would be one of several; only {shared} can be shared. "
            "Start one, without --processes; inside a cluster's job give --distributed=off."
        )
    if line.processes > 1 and (process is not None or line.distributed == "off"):
        why = "but this is one of several already" if process else "but --distributed=off asks for one"
        raise UsageError(
            f"--processes={line.processes} starts processes on this machine, {why}. Leave one of the two out."
        )


def _check_unread(line: CommandLine) -> None:
    """Raise UsageError for an option that the mode would not read."""
    values = vars(line) | vars(line.look) | vars(line.exchange)
    usual = {f.name: f.default for record in (CommandLine, Look, Exchange) for f in dataclasses.fields(record)}
    for option, value in values.items():
        modes = readers(option)
        if modes and value != usual[option] and line.mode not in modes:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise UsageError(f"--{option}={shown}: expected only with --mode={', '.join(modes)}, not {line.mode}.")
    _check_traffic(line.traffic, line.mode)
    if line.look.image and line.look.split:
        raise UsageError(f"--split={line.look.split}: expected without --image, which names other images.")
    if line.restore_skip and line.restore is None:
        raise UsageError(
            f"--restore_skip={line.restore_skip}: expected only with --restore=PATH, the run to start from."
        )
    if line.optim.new_rate != 1 and not line.restore_skip and line.mode == "train":
        raise UsageError(
            f"--optim.new_rate={line.optim.new_rate:g}: expected only with --restore_skip, the layers whose rate it is."
        )


def _check_traffic(traffic: Traffic, mode: str) -> None:
    """Raise UsageError for a number that the mode does not read, that is not positive, or that lacks its counterpart."""
    for name, other in (("link", traffic.compute), ("compute", traffic.link)):
        value = getattr(traffic, name)
        if value is not None:
            require(f"traffic.{name}", value, mode == "traffic", f"only with --mode=traffic, not {mode}")
            require(f"traffic.{name}", value, math.isfinite(value) and value > 0, "a positive number")
            require(f"traffic.{name}", value, other is not None, "both --traffic.link and --traffic.compute, or neither")


def _check_words(arguments: list[str]) -> None:
    """Raise UsageError for a mode that is given without --mode=, the most common slip."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word in NAMED and (not before.startswith("--") or "=" in before):
            raise UsageError(f"{word!r} stands alone: expected --mode={word}.")


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """Parse the options that decide the defaults of all others."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("exp", "mode", "workdir"):
        first.add_argument(f"--{option}")
    first.add_argument("--data.name", dest="data_name")
    first.add_argument("--sweep.base", dest="sweep_base")
    return first.parse_known_args(arguments)[0]


def _trained(workdir: Path) -> Experiment | None:
    from alexnet_jax.run.workdir import Workdir

    return Workdir(workdir).experiment()


def _base(sweep: Sweep, name: str | None, digits: bool) -> tuple[Experiment, Experiment]:
    """Return the experiment that a sweep starts from: (as its file defines it, with the options common to all arms)."""
    shipped = experiments.experiment(name or ("alexnet_digits" if digits else sweep.base))
    base = changed(shipped, sweep.common)
    if digits and name is None:
        base = changed(base, {"train.epochs": DIGITS_EPOCHS, "optim.warmup": 1.0})
    return shipped, base


def _sweep_request(
    sweep: Sweep, base: Experiment, shipped: Experiment, line: CommandLine, workdir: Path, arguments: list[str]
) -> SweepRequest:
    options = line.sweep
    # All trials must train on the same data, so a data set that disappears half-way is an error.
    base = changed(base, {"data.fallback": "error"})
    if options.epochs is not None:
        base = changed(base, {"train.epochs": options.epochs})
    check(base)
    arms = choose(sweep, options.arms)
    seeds = seeds_needed(max(1, len(arms))) if options.seeds is None else options.seeds
    if seeds < 1:
        raise UsageError(f"--sweep.seeds={seeds}: expected 1 or more; differences need at least 2.")
    if options.address is not None and options.engine != "ray":
        raise UsageError(f"--sweep.address={options.address}: expected only with --sweep.engine=ray.")
    if line.restore is not None:
        raise UsageError("--restore is for experiments; a sweep's trials are runs of their own (--mode=report).")
    if line.processes != 1 or line.distributed not in ("auto", "off"):
        raise UsageError(
            "--processes and --distributed are for experiments; each trial of a sweep runs in one process. Start the same "
            "command several times, and its processes share the trials, or give --sweep.engine=ray."
        )
    plan = Plan(sweep, base, arms, seeds, workdir.absolute())
    kept = [word for word in arguments if word not in ("--overwrite", "--dry_run")]
    return SweepRequest(plan, options, shipped, shlex.join(["python", "launch.py", *kept]), line.overwrite)
