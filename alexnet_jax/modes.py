"""The one registry of modes: what each `--mode` is called, which function runs it and which options it reads.

A mode is a function of a `Request` (of a `SweepRequest` for a sweep). Its module is named, not imported, so that a mistyped
command line is answered before jax is imported, and a mode pays only for the libraries that it uses.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet_jax.experiment import Experiment
from alexnet_jax.processes.identity import ProcessIdentity


@dataclass(frozen=True)
class Look:
    """Options of the modes that look into a trained network."""

    image: tuple[Path, ...] = ()
    """predict, neighbours, features: picture files, or folders of them. Default: images of the data set's test split; for
    features those of --split."""
    layer: str | None = None
    """neighbours, features: the layer whose outputs are compared or written, such as fc6. Default: the last but one (fc7)."""
    split: Literal["train", "validation", "test"] | None = None
    """features: the split to read. Default: test."""
    out: Path | None = None
    """features: the file to write, .npz or .parquet. kernels, predict, neighbours: the folder for pictures and numbers.
    Default: features/ or figures/ in the folder of the run."""


@dataclass(frozen=True)
class Exchange:
    """Options of the modes import and export."""

    weights: Path | None = None
    """import: the .npz, .safetensors, .pt, .pth or .caffemodel file to read. export: the .safetensors file to write."""
    layout: Literal["columns", "grouped"] = "columns"
    """export: columns writes kernels as [columns, out, in, ...], as checkpoints do; grouped as [out, in / groups, ...], as
    other programs do."""
    channels: Literal["file", "rgb", "bgr"] = "file"
    """import: the order of conv1's input channels. file: bgr for a .caffemodel, rgb for all other files."""
    mean_image: Path | None = None
    """import: Caffe's mean image, a .binaryproto, to be used instead of Caffe's mean colour."""


@dataclass(frozen=True)
class Traffic:
    """What `--mode=traffic` assumes about the devices. With both numbers it predicts the time of a step."""

    link: float | None = None
    """traffic: GB per second (10^9 bytes) that each device can send while it receives as much."""
    compute: float | None = None
    """traffic: 10^12 multiplications and additions per second of each device."""


@dataclass(frozen=True)
class Request:
    """A command line that was read and checked: what to run the mode on."""

    experiment: Experiment
    shipped: Experiment  # as its file in experiments/ defines it, before any option
    workdir: Path
    restore: str | None = None
    overwrite: bool = False
    restore_skip: tuple[str, ...] = ()  # layers that a run with `restore` initializes afresh
    look: Look = field(default_factory=Look)
    exchange: Exchange = field(default_factory=Exchange)
    traffic: Traffic = field(default_factory=Traffic)
    processes: int = 1  # to be started on this machine
    process: ProcessIdentity | None = None  # None: this process is the only one of the run
    given: frozenset[str] = frozenset()  # names of the options on the command line
    notes: tuple[str, ...] = ()  # sentences for the user, printed before the mode runs


@dataclass(frozen=True)
class Mode:
    """One value of `--mode`."""

    name: str
    """One word: a verb, or what is printed."""
    function: str
    """The function that runs the mode, `module.function` of alexnet_jax. It takes the request."""
    help: str
    """What the mode does, for --help."""
    reads: tuple[str, ...] = ()
    """Options that not every mode reads, such as `restore`; every other mode refuses them."""
    trained: bool = False
    """Whether the mode works on a trained run: the defaults of its options are those of the run in --workdir."""
    shared: bool = False
    """Whether the processes of a run execute the mode together; every other mode refuses several processes."""
    computes: bool = True
    """Whether the mode computes enough to gain from a tuned memory allocator."""
    flag: bool = False
    """Whether the mode is selected by a flag of its name, such as --dry_run, instead of --mode."""

    def run(self, request: Any) -> None:
        """Import the module and call the function."""
        module, _, function = self.function.rpartition(".")
        getattr(importlib.import_module(f"alexnet_jax.{module}"), function)(request)


def _by_name(*modes: Mode) -> dict[str, Mode]:
    return {mode.name: mode for mode in modes}


MODES = _by_name(
    Mode(
        "train", "training.train", "start a run or continue it",
        reads=("restore", "restore_skip", "dry_run", "processes"), shared=True,
    ),
    Mode("dry_run", "dry_run.show", "print what a training would need", flag=True),
    Mode(
        "eval", "training.evaluate", "print the test error of a checkpoint",
        reads=("restore", "processes"), trained=True, shared=True,
    ),
    Mode("summary", "dry_run.summarize", "print the table of layers, or the arms of a sweep", computes=False),
    Mode(
        "report", "run.report.write_report_again", "write the report again, of a sweep also while it runs",
        computes=False,
    ),
    Mode("prepare", "data.prepare.run", "store large pictures as small ones, for fast epochs"),
    Mode(
        "import", "weights.exchange.import_weights", "make a run folder from a file of weights (docs/weights.md)",
        reads=("weights", "channels", "mean_image"),
    ),
    Mode(
        "export", "weights.exchange.export_weights", "write the weights of a checkpoint to a file",
        reads=("restore", "weights", "layout"), trained=True,
    ),
    Mode(
        "kernels", "qualitative.kernels.show", "draw the first layer's kernels and measure how far the columns specialized",
        reads=("restore", "out"), trained=True, computes=False,
    ),
    Mode(
        "predict", "qualitative.predict.predict", "print the five most probable classes of pictures",
        reads=("restore", "image", "out"), trained=True,
    ),
    Mode(
        "neighbours", "qualitative.neighbours.show", "find the nearest training images of pictures",
        reads=("restore", "image", "layer", "out"), trained=True,
    ),
    Mode(
        "features", "qualitative.features.write", "write the outputs of a layer to a file",
        reads=("restore", "image", "layer", "split", "out"), trained=True,
    ),
    Mode(
        "gradcheck", "gradcheck.check", "compare gradients with differences of the loss, in float64",
        reads=("restore",), trained=True,
    ),
    Mode(
        "traffic", "traffic.show.show", "print the bytes that each layer sends between devices, for any number of devices",
        computes=False,
    ),
)  # fmt: skip
"""{name: mode} of an experiment."""

SWEEP_MODES = _by_name(
    Mode("train", "sweeps.run.run", "run the trials that are missing, then write the report"),
    Mode("dry_run", "sweeps.run.dry_run", "list the trials and estimate their time", flag=True),
    Mode("summary", "sweeps.run.summarize", "print the arms", computes=False),
    Mode("report", "sweeps.run.report", "write the report of the trials so far", computes=False),
)
"""{name: mode} of a sweep."""


def readers(option: str) -> tuple[str, ...]:
    """Return the names of the modes that read an option; empty for an option that every mode reads."""
    return tuple(mode.name for mode in MODES.values() if option in mode.reads)
