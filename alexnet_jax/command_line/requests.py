"""From the words of a command line to a checked request. Nothing here imports jax, so that mistakes are reported at once."""

import argparse
import dataclasses
import math
import shlex
from pathlib import Path

import experiments
from alexnet_jax.checks import check, require
from alexnet_jax.command_line.options import CommandLine, parse
from alexnet_jax.command_line.spelling import given_options, normalized
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.modes import MODES, Exchange, Look, Request, Traffic, readers
from alexnet_jax.network import networks
from alexnet_jax.network.table import Conv
from alexnet_jax.processes.identity import ProcessIdentity, identify
from alexnet_jax.processes.outcome import without_flags
from alexnet_jax.sweeps.plan import Plan, Sweep, SweepOptions, SweepRequest, changed, choose, seeds_needed

DIGITS_EPOCHS = 5
"""Epochs of a sweep on the digits: enough to see that a network learns, in seconds for each trial."""

def read(arguments: list[str]) -> tuple[str, Request | SweepRequest]:
    """Return (mode, request) of a command line. Modes on a trained run take the options of that run as defaults.

    Raises UsageError, or SystemExit after tyro has printed what is wrong.
    """
    words = normalized(arguments)
    known, given = _first_look(words), given_options(words)
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
    line = parse(words, known.exp or "alexnet_cifar", base, workdir)
    experiment = Experiment(base.name, line.network, line.data, line.optim, line.train, line.mesh)
    workdir = line.workdir or workdir
    _check_encoding([line.restore or "", str(line.data.prepared or ""), str(workdir.absolute())])
    mode = "dry_run" if line.dry_run else line.mode
    _check_unread(line)
    if isinstance(found, Sweep):
        return mode, _sweep_request(found, experiment, base, shipped, line, workdir, arguments, given)
    if line.sweep != SweepOptions():
        raise UsageError(f"--sweep.* is for sweeps; {found.name} is one experiment. --list shows the sweeps.")
    experiment, notes = _with_warmup_that_fits(experiment, base, given)
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
        given=given,
        notes=(*notes, *_warnings(experiment)) if mode in ("train", "dry_run") else (),
    )
    return mode, request


def _with_warmup_that_fits(
    experiment: Experiment, base: Experiment, given: frozenset[str]
) -> tuple[Experiment, tuple[str, ...]]:
    """Shorten a warm-up that the user did not give to the fraction of the training that it has in `base`, if it is too long.

    Returns the experiment and a sentence on the change, if there is one.
    """
    epochs, warmup = experiment.train.epochs, experiment.optim.warmup
    if "optim.warmup" in given or not 0 < epochs <= warmup:
        return experiment, ()
    shorter = warmup * epochs / base.train.epochs
    if shorter >= epochs:
        return experiment, ()
    note = (
        f"The warm-up is shortened from {warmup:g} to {shorter:g} epochs, in proportion to {epochs:g} epochs instead of "
        f"{base.train.epochs:g} (--optim.warmup)."
    )
    return changed(experiment, {"optim.warmup": shorter}), (note,)


def _warnings(experiment: Experiment) -> list[str]:
    """Return sentences on options that work but are probably not meant."""
    optim, found = experiment.optim, []
    if optim.schedule == "drops" and not optim.drops:
        found.append("Warning: --optim.schedule=drops without --optim.drops keeps the learning rate constant.")
    early = [drop for drop in optim.drops if drop < optim.warmup]
    if early:
        found.append(
            f"Warning: the drop of the learning rate at epoch {early[0]:g} takes effect only after the warm-up of "
            f"{optim.warmup:g} epochs."
        )
    table = networks.build(experiment.network, 10, experiment.data.crop)
    thin = [spec.name for spec in table.layers if isinstance(spec, Conv) and spec.maps == table.columns]
    if thin:
        width = experiment.network.width
        found.append(f"Warning: --network.width={width:g} leaves one map per column in {', '.join(thin)}.")
    return found


def _check_encoding(texts: list[str]) -> None:
    """Raise UsageError for a path that is not valid UTF-8: orbax could not write a checkpoint there."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{text!a} is not valid UTF-8. Rename the folder or file, or choose another.") from None


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
    sweep: Sweep,
    base: Experiment,
    unchanged: Experiment,
    shipped: Experiment,
    line: CommandLine,
    workdir: Path,
    arguments: list[str],
    given: frozenset[str],
) -> SweepRequest:
    options = line.sweep
    # All trials must train on the same data, so a data set that disappears half-way is an error.
    base = changed(base, {"data.fallback": "error"})
    if options.epochs is not None:
        base = changed(base, {"train.epochs": options.epochs})
    base, notes = _with_warmup_that_fits(base, unchanged, given)
    check(base)
    for arm in sweep.arms:
        changed(base, arm.changes)  # a misspelt option is reported in every mode
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
    kept = without_flags(arguments, "overwrite", "dry_run")
    command = shlex.join(["python", "launch.py", *kept])
    return SweepRequest(plan, options, shipped, command, line.overwrite, given, notes)
