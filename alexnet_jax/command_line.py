"""The command line: which experiment or sweep, what to do, and every option, typed and checked before jax is imported."""

import argparse
import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

import experiments
from alexnet_jax.checks import check, check_traffic
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data, Experiment, MeshOptions, Network, Optim, Train
from alexnet_jax.modes import Exchange, Look, Request, Traffic
from alexnet_jax.processes.identity import Place, find
from alexnet_jax.sweeps.plan import Plan, Sweep, SweepOptions, SweepRequest, changed, choose
from alexnet_jax.sweeps.power import seeds_needed

DIGITS_EPOCHS = 5
"""Epochs of a sweep on the digits: enough to tell that a network learns, in seconds for each trial."""


TRAINED = ("eval", "export", "kernels", "predict", "neighbours", "features", "gradcheck")
"""Modes that work on what was trained: their defaults are the options of the run in the folder."""

TOGETHER = ("train", "eval")
"""Modes that several processes can work at together."""

Mode = Literal[
    "train",
    "eval",
    "summary",
    "report",
    "prepare",
    "import",
    "export",
    "kernels",
    "predict",
    "neighbours",
    "features",
    "gradcheck",
    "traffic",
]

READERS = {
    "restore": ("train", *TRAINED),
    "restore_skip": ("train",),
    "dry_run": ("train",),
    "weights": ("import", "export"),
    "layout": ("export",),
    "channels": ("import",),
    "mean_image": ("import",),
    "image": ("predict", "neighbours", "features"),
    "layer": ("neighbours", "features"),
    "split": ("features",),
    "out": ("kernels", "predict", "neighbours", "features"),
    "processes": TOGETHER,
}
"""{option: the modes that read it}"""


@dataclass(frozen=True)
class CommandLine:
    """AlexNet in two columns. `python launch.py --list` shows every experiment; the defaults below are those of --exp."""

    exp: str
    """Name of an experiment or a sweep, a file of experiments/."""
    network: tyro.conf.FlagConversionOff[Network]
    data: tyro.conf.FlagConversionOff[Data]
    optim: tyro.conf.FlagConversionOff[Optim]
    train: tyro.conf.FlagConversionOff[Train]
    mesh: tyro.conf.FlagConversionOff[MeshOptions]
    sweep: tyro.conf.FlagConversionOff[SweepOptions] = field(default_factory=SweepOptions)
    mode: Mode = "train"
    """train: start or continue. eval: test error of a checkpoint. summary: the table of layers, or the arms of a sweep. report:
    write the report again, of a sweep also while it runs. prepare: store large pictures as small ones, for fast epochs.
    import: a run's folder from a file of weights; export: such a file from a checkpoint (docs/weights.md). kernels: the first
    layer's kernels as a picture, and how far the columns specialized. predict: the five likeliest classes of pictures.
    neighbours: the nearest training images. features: the vectors of a layer, to a file. gradcheck: gradients against
    differences of the loss, in 64 bits. traffic: the bytes that each layer sends between devices, for any number of them."""
    workdir: Path | None = None
    """Folder of the run. Default: runs/EXP, or runs/EXP-imported in import mode. The trials of a sweep go into `trials`
    beside it."""
    restore: str | None = None
    """eval, export, kernels, predict, neighbours, features: latest, best, a step or a path; default latest. train: the path of
    a run or checkpoint to start a new run from. gradcheck: as eval; default fresh parameters."""
    restore_skip: str = ""
    """train: layers that a run with --restore starts anew, such as fc8 or fc7,fc8; their rate: --optim.new_rate."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Delete the run in the folder and start anew; in export mode replace the file, in prepare mode what was prepared. Of a
    sweep only the plan is forgotten; its trials are kept."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """train: say what it would need (shapes, devices, memory, disk) and how long it would take. Of a sweep: list its trials and
    estimate their time. Nothing is written."""
    traffic: tyro.conf.FlagConversionOff[Traffic] = field(default_factory=Traffic)
    processes: int = 1
    """train, eval: start so many processes of this run on this machine, each with its share of the devices (docs/cluster.md)."""
    distributed: str = "auto"
    """train, eval: how the processes of a run on several machines meet. auto: as Slurm, Open MPI or Kubernetes says, and one
    process elsewhere. off: one process. HOST:PORT,N,I: process 0 of N listens there, this is process I."""
    look: Annotated[Look, tyro.conf.arg(name="")] = field(default_factory=Look)
    exchange: Annotated[Exchange, tyro.conf.arg(name="")] = field(default_factory=Exchange)


def read(arguments: list[str]) -> tuple[str, Request | SweepRequest]:
    """(mode, request) of a command line; `dry_run` counts as a mode. In TRAINED modes the defaults are the trained run's.

    Raises UsageError, or SystemExit after tyro has told what is wrong.
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
        if known.mode in TRAINED:
            base = _trained(workdir) or base
    sections = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.name != "name"}
    default = CommandLine(known.exp or "alexnet_cifar", **sections, workdir=workdir)
    _check_words(arguments)
    line = tyro.cli(CommandLine, args=arguments, default=default, prog="launch.py", use_underscores=True)
    experiment = Experiment(base.name, line.network, line.data, line.optim, line.train, line.mesh)
    workdir = line.workdir or workdir
    _check_modes(line)
    if isinstance(found, Sweep):
        return _sweep_request(found, experiment, shipped, line, workdir, arguments)
    if line.sweep != SweepOptions():
        raise UsageError(f"--sweep.* is for sweeps; {found.name} is one experiment. --list shows the sweeps.")
    check(experiment)
    mode, place = "dry_run" if line.dry_run else line.mode, find(line.distributed)
    _check_processes(mode, line, place)
    skip = tuple(name.strip() for name in line.restore_skip.split(",") if name.strip())
    rest = {"look": line.look, "exchange": line.exchange, "traffic": line.traffic}
    rest |= {"processes": line.processes, "place": place}
    return mode, Request(experiment, shipped, workdir, line.restore, line.overwrite, skip, **rest)


def _check_processes(mode: str, line: CommandLine, place: Place | None) -> None:
    """Raise UsageError unless a mode can be done by the processes there are, or are to be started."""
    if line.processes < 1:
        raise UsageError(f"--processes={line.processes}: expected 1 or more.")
    if mode not in TOGETHER and (place is not None or line.processes > 1):
        given = "--dry_run" if line.dry_run else f"--mode={mode}"
        raise UsageError(
            f"{given} is work for one process, and this would be one of several; only {' and '.join(TOGETHER)} can be shared. "
            "Start one, without --processes; inside a cluster's job give --distributed=off."
        )
    if line.processes > 1 and (place is not None or line.distributed == "off"):
        why = "but this is one of several already" if place else "but --distributed=off asks for one"
        raise UsageError(
            f"--processes={line.processes} starts processes on this machine, {why}. Leave one of the two out."
        )


def _check_modes(line: CommandLine) -> None:
    """Raise UsageError for an option that would change nothing."""
    values = vars(line) | vars(line.look) | vars(line.exchange)
    usual = {f.name: f.default for record in (CommandLine, Look, Exchange) for f in dataclasses.fields(record)}
    for option, modes in READERS.items():
        value = values[option]
        if value != usual[option] and line.mode not in modes:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise UsageError(f"--{option}={shown}: expected only with --mode={', '.join(modes)}, not {line.mode}.")
    check_traffic(line.traffic, line.mode)
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


def _check_words(arguments: list[str]) -> None:
    """A mode without its --mode= is the commonest slip, and its answer should not be that it is unknown."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word in get_args(Mode) and (not before.startswith("--") or "=" in before):
            raise UsageError(f"{word!r} stands alone: expected --mode={word}.")


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """The options that decide what the defaults of all others are."""
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
    """(as its file has it, with what all arms of the sweep have in common): the experiment that the sweep starts from."""
    shipped = experiments.experiment(name or ("alexnet_digits" if digits else sweep.base))
    base = changed(shipped, sweep.common)
    if digits and name is None:
        base = changed(base, {"train.epochs": DIGITS_EPOCHS, "optim.warmup": 1.0})
    return shipped, base


def _sweep_request(
    sweep: Sweep, base: Experiment, shipped: Experiment, line: CommandLine, workdir: Path, arguments: list[str]
) -> tuple[str, SweepRequest]:
    options = line.sweep
    # No trial may go on with other data than the rest, should it not be found half-way.
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
    command = shlex.join(["python", "launch.py", *kept])
    return "dry_run" if line.dry_run else line.mode, SweepRequest(plan, options, shipped, command, line.overwrite)
