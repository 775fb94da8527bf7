"""The options of the command line with their help: one record, whose sections are those of an experiment."""

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from alexnet_jax.experiment import Data, Experiment, MeshOptions, Network, Optim, Train
from alexnet_jax.modes import MODES, Exchange, Look, Traffic
from alexnet_jax.sweeps.plan import SweepOptions

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



def _names(record: type, section: str = "") -> dict[str, Any]:
    """Return {name on the command line: type} of the fields of a record, and of the sections below it."""
    names = {}
    hints = get_type_hints(record)
    for entry in dataclasses.fields(record):
        hint = hints[entry.name]
        inline = entry.name in ("look", "exchange")
        if hint in RECORDS:
            names |= _names(hint, "" if inline else f"{entry.name}.")
        else:
            names[section + entry.name] = hint
    return names


OPTIONS = _names(CommandLine)
"""{name on the command line: type} of every option"""

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


def parse(arguments: list[str], exp: str, base: Experiment, workdir: Path) -> CommandLine:
    """Parse arguments that `spelling.normalized` returned; the options of `base` are the defaults.

    Raises SystemExit after tyro has printed what is wrong, or the help.
    """
    sections = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.name != "name"}
    return tyro.cli(
        CommandLine,
        args=arguments,
        default=CommandLine(exp, **sections, workdir=workdir),
        prog="launch.py",
        description=SUMMARY,
        use_underscores=True,
        registry=REGISTRY,
    )
