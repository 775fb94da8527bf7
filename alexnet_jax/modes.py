"""What a command asks for: the request that every --mode receives, and the options of single modes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alexnet_jax.experiment import Experiment
from alexnet_jax.processes.identity import Place


@dataclass(frozen=True)
class Look:
    """What the modes that look into a trained network are asked for."""

    image: tuple[Path, ...] = ()
    """predict, neighbours, features: picture files, or folders of them. Default: images of the data set's test split; for
    features what --split says."""
    layer: str | None = None
    """neighbours, features: the layer whose vectors are compared or written, such as fc6. Default: the last but one (fc7)."""
    split: Literal["train", "validation", "test"] | None = None
    """features: of which images. Default: test."""
    out: Path | None = None
    """features: the file to write, .npz or .parquet. kernels, predict, neighbours: the folder for pictures and numbers.
    Default: features/ or figures/ in the folder of the checkpoint's run."""


@dataclass(frozen=True)
class Exchange:
    """What import and export are asked for."""

    weights: Path | None = None
    """import: a .npz, .safetensors, .pt, .pth or .caffemodel file. export: the .safetensors file to write."""
    layout: Literal["columns", "grouped"] = "columns"
    """export: kernels as here, [columns, out, in, ...], or as one device has them, [out, in / groups, ...]."""
    channels: Literal["file", "rgb", "bgr"] = "file"
    """import: what the inputs of conv1 stand for. file: bgr in a .caffemodel, rgb in all others."""
    mean_image: Path | None = None
    """import: Caffe's mean image, a .binaryproto, in place of its mean colour."""


@dataclass(frozen=True)
class Traffic:
    """What --mode=traffic assumes of the devices; with both it predicts the time of a step."""

    link: float | None = None
    """traffic: 10^9 bytes a second that each device can send, while it receives as many."""
    compute: float | None = None
    """traffic: 10^12 multiplications and additions a second of each device."""


@dataclass(frozen=True)
class Request:
    """A command line, read and checked: what to do (beside its mode), where, and from what."""

    experiment: Experiment
    shipped: Experiment  # as its file under experiments/ has it, before any option
    workdir: Path
    restore: str | None = None
    overwrite: bool = False
    restore_skip: tuple[str, ...] = ()  # layers that a run with `restore` starts anew
    look: Look = field(default_factory=Look)
    exchange: Exchange = field(default_factory=Exchange)
    traffic: Traffic = field(default_factory=Traffic)
    processes: int = 1  # to be started on this machine
    place: Place | None = None  # of this one among those of the run; None: it is the only one
