"""What an experiment is: five small frozen records, and their JSON form; checks.py has the checks across their fields.

This file knows no jax, so that a misspelt option is answered at once and a finished run can be read without a device.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from alexnet_jax.errors import UsageError


@dataclass(frozen=True)
class Network:
    """Which table of layers to build (networks.py). The table itself never appears on the command line."""

    name: Literal[
        "alexnet",
        "alexnet_cifar",
        "lenet5",
        "simple_cnn",
        "cuda_convnet_26pct",
        "cuda_convnet_18pct",
        "cuda_convnet_13pct",
        "cuda_convnet_11pct",
        "caffe_alexnet",
        "torchvision_alexnet",
    ] = "alexnet_cifar"
    """alexnet: the paper's, 224x224. alexnet_cifar: the same, 32x32. The others are fixed tables (baselines.py, foreign.py),
    which no other option changes; all but caffe_alexnet have one column."""
    width: float = 1.0
    """Factor on the maps of conv1 to conv5; 1 is the paper's 96-256-384-384-256."""
    fc_units: int = 4096
    """Units of fc6 and of fc7, over all columns."""
    columns: Literal[1, 2] = 2
    """2: the two-GPU network. 1: the same maps in one column, every kernel seeing all of them."""
    kernels: Literal["paper", "half", "merged"] = "paper"
    """half: half as many in conv1 to conv4; with one column the paper's one-GPU net (section 3.2, net 145-half). merged: 64,
    192, 384, 384 and 256 in one column, the network of "One weird trick"."""
    order: Literal["paper", "tutorial", "original"] = "paper"
    """Where LRN, pooling and ReLU stand: the paper's text, the tutorial's, or the original program's net 145."""
    init: Literal["paper", "original", "he"] = "paper"
    """Initial weights: N(0, 0.01) and ones in some biases; the original program's 0.03 in conv3-5; or He's, for 32x32."""
    dropout: float = 0.5
    """Probability that a unit of fc6 or fc7 is dropped in training; 0 turns dropout off."""
    pooling: Literal["overlapping", "non_overlapping"] = "overlapping"
    """3x3 windows every 2 pixels (section 3.4), or 2x2 every 2, as in net 147."""
    lrn: Literal["paper", "divided", "pixel_scale", "not_conv2", "none"] = "paper"
    """paper: where and as order has it. divided: alpha / 5. pixel_scale: alpha * 64^2, which acts on images scaled to a
    deviation of one as the paper's does on 0..255. not_conv2: none after conv2. none: no normalization at all."""
    activation: Literal["relu", "tanh"] = "relu"
    """After every layer but the last (section 3.1)."""
    crossings: Literal["paper", "none_before_fc8", "none_at_conv3", "conv4_for_conv3", "everywhere"] = "paper"
    """Where the columns talk: conv3, fc6, fc7, fc8; or fc8 alone (net 150, conv2 and fc6 wider); or not at conv3 (net 127,
    conv3 wider); or at conv4 instead of conv3 (net 132); or everywhere, at conv2, conv4 and conv5 too."""
    without: Literal["none", "conv3", "conv4", "conv5", "fc7"] = "none"
    """A layer to leave out (section 7); its pooling moves to the layer before, its crossing to the one after."""
    biases: Literal["init", "ones", "zeros"] = "init"
    """Initial biases: as init has them; ones in conv2, conv4, conv5, fc6 and fc7; or zeros."""


@dataclass(frozen=True)
class Data:
    """Which images, and what is done to them on their way into the network."""

    name: Literal["cifar10", "digits", "imagenet2012", "folder"] = "cifar10"
    """cifar10 and imagenet2012 come through tensorflow-datasets; digits ships with scikit-learn; folder: your own pictures, a
    sub-folder of data.dir for each class, or in train/ and val/ of it; or any set of labelled images in a version folder of
    tensorflow-datasets."""
    dir: str | None = None
    """tensorflow-datasets folder. Default: TFDS_DATA_DIR, then ~/tensorflow_datasets. With data.name=folder: that folder."""
    prepared: str | None = None
    """Folder of what --mode=prepare made of imagenet2012 or folder; none: the pictures as they are. Default: a folder in
    ~/.cache/alexnet_jax, if it is there."""
    side: int = 256
    """Of imagenet2012 and folder: the shorter side of a picture is scaled to so many pixels and the central square cut out."""
    workers: int | None = None
    """Of the same: processes that read and decode; 0: threads of this one. Default: 0 on CPUs, else half of the cores."""
    fallback: Literal["digits", "error"] = "digits"
    """When the data is neither there nor downloadable: go on with the digits (plain first trainings only), or stop."""
    validation: int = 5000
    """Training images held out, the same ones in every run; schedules and best checkpoints look only at them."""
    crop_padding: int = 4
    """Training images are padded by this many zero pixels (after the mean) on each side and cropped at random; 0 turns it off."""
    mirror: bool = True
    """Mirror training images left to right with probability 1/2."""
    mean: Literal["pixel", "channel"] = "pixel"
    """Subtract the training split's mean image (the paper's way) or its mean colour."""
    scale: Literal["none", "std"] = "none"
    """none: the original 0..255 scale. std: divide by the training split's standard deviation (one number)."""
    crop: int = 0
    """Side of what is cut out of each image at random, after any padding; 0: as large as the image."""
    views: Literal[1, 9, 10] = 1
    """Views of a test image whose softmax is averaged. 1: the centre. 9: a grid of 3x3. 10: corners, centre and mirrors."""
    colour: Literal["none", "paper", "original"] = "none"
    """Noise along the principal components of the colours (section 4.1), one draw per image and use. original: a tenth of each
    component's standard deviation, the image then divided by 1.1. paper: a tenth of the eigenvalue, as the text has it, on
    colours of 0..1, where eigenvalues are below one (on 0..255 they run to thousands)."""
    colour_epochs: float | None = None
    """Epochs with colour noise; the original program did without in its last ones. Left out: all."""
    fold_in: bool = False
    """Train on the held-out images too, as the author's last runs did; the validation error then says nothing of new images."""


CLASSES = {"cifar10": 10, "digits": 10, "imagenet2012": 1000}
"""Classes of each data set that are known without looking at it."""

IMAGES = {"cifar10": (50_000, 10_000), "digits": (1_437, 360), "imagenet2012": (1_281_167, 50_000)}
"""Training images, those held out for validation among them, and test images of the same, which may not be here yet."""

DIGITS = Data(name="digits", validation=180, crop_padding=2, mirror=False, mean="pixel", scale="std")
"""The embedded data set: 1,797 handwritten digits, never mirrored, shifted by at most two pixels."""


@dataclass(frozen=True)
class Optim:
    """SGD with momentum, and how its rate moves. Times are in epochs."""

    rule: Literal["paper", "original", "sgd"] = "paper"
    """paper: v <- m v - decay lr w - lr g; w <- w + v. original: biases have no decay and a constant rate of their own. sgd: the
    paper's with the rate outside the velocity, as in optax.sgd and most libraries."""
    learning_rate: float = 0.01
    """Peak rate (of the weights alone under the original rule)."""
    bias_learning_rate: float = 0.02
    """Constant rate of the biases; used by the original rule only."""
    momentum: float = 0.9
    """Fraction of the velocity kept at each step."""
    weight_decay: float = 0.0005
    """Multiplies the rate and the weight inside the velocity."""
    schedule: Literal["constant", "drops", "plateau", "original", "linear", "cosine"] = "drops"
    """drops: times drop_factor at each epoch of drops. plateau: the same, three times at most, when `patience` validations
    in a row were no better than the best (section 5). original: as net 145's author lowered it by hand, a tenth at epochs 25,
    51 and 79, conv1 another tenth at 67 and zero from 72. linear, cosine: from the peak to zero at the last step."""
    warmup: float = 0.0
    """Epochs over which the rate first rises from zero to its peak."""
    drops: tuple[float, ...] = ()
    """Epochs at which the rate is multiplied by drop_factor."""
    drop_factor: float = 0.1
    """Of the schedules drops and plateau."""
    patience: int = 5
    """Of the schedule plateau: validations, one per epoch, without a lower error before the rate drops."""
    new_rate: float = 1.0
    """Factor on the rate of the layers that --restore_skip starts anew."""


@dataclass(frozen=True)
class Train:
    """How long, how many at a time, from which seed, and what is written down."""

    epochs: float = 90
    """Passes over the training split. A larger number continues a finished run."""
    batch: int = 128
    """Images per step over all devices; the last incomplete batch of an epoch's order is left out."""
    eval_batch: int = 500
    """Images per evaluation step; any size gives the same numbers."""
    seed: int = 0
    """Everything random is a function of this, the step and the layer or example."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 0
    """Steps between two checkpoints beside the one at each epoch's end; 0: none."""
    keep: int = 2
    """Latest checkpoints kept; the best by validation error is kept beside them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: activations and products; parameters, velocities, LRN and the loss keep 32 bits. For GPUs."""
    deterministic: bool = False
    """On a GPU: bit-exact repeats, slower. A CPU is always bit-exact."""
    tune_allocator: bool = True
    """On a CPU under Linux with glibc: keep freed memory in the process, several times faster (allocator.py)."""
    compile_cache: bool = True
    """Keep compiled programs in ~/.cache/alexnet_jax, or where JAX_COMPILATION_CACHE_DIR says, for a faster start."""


@dataclass(frozen=True)
class MeshOptions:
    """Devices: data replicas times columns. Left out: all devices, columns first; in traffic mode two."""

    data: int | None = None
    """Data-parallel replicas; of the hybrid placement all devices."""
    column: int | None = None
    """Devices the columns are spread over: 1 (all columns on one device) or the number of columns."""
    placement: Literal["columns", "hybrid"] = "columns"
    """hybrid: for networks of one column, as in "One weird trick": over all devices, convolutions are spread by images and
    fully connected layers by units (hybrid.py)."""
    scheme: Literal["whole", "slices"] = "whole"
    """Of the hybrid placement in training: the fully connected layers get all images at once, or in as many slices as there
    are devices (the schemes (a) and (c) of its paper)."""


@dataclass(frozen=True)
class Experiment:
    """One training, from data to report."""

    name: str
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    mesh: MeshOptions = field(default_factory=MeshOptions)


MAY_DIFFER = frozenset(
    {
        "data.dir",
        "data.prepared",
        "data.workers",
        "data.fallback",
        "train.eval_batch",
        "train.log_every",
        "train.save_every",
        "train.keep",
    }
    | {"train.deterministic", "train.tune_allocator", "train.compile_cache", "mesh.data", "mesh.column"}
    | {"mesh.placement", "mesh.scheme"}
)
"""Fields a continued run may change: none of them touches the mathematics. train.epochs may grow (see `differences`)."""


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dictionaries of JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_json(values: dict[str, Any]) -> Experiment:
    """The inverse of `to_json`. Raises UsageError naming a section or field this version does not know."""
    sections: dict[str, Any] = {"network": Network, "data": Data, "optim": Optim, "train": Train, "mesh": MeshOptions}
    built: dict[str, Any] = {"name": values.get("name")}
    if not isinstance(built["name"], str):
        raise UsageError(f"An experiment needs a name, found {built['name']!r}; the file may be damaged.")
    for section, kind in sections.items():
        fields = values.get(section)
        known = {f.name for f in dataclasses.fields(kind)}
        if not isinstance(fields, dict) or not set(fields) <= known:
            found = sorted(set(fields) - known) if isinstance(fields, dict) else fields
            raise UsageError(
                f"The saved experiment's section {section!r} has {found!r}, which this version does not know."
            )
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        hints = typing.get_type_hints(kind)
        for name, value in fields.items():
            if not fits(value, hints[name]):
                raise UsageError(
                    f"The saved experiment has {section}.{name}={value!r}, which this version does not know; the file may be "
                    "damaged."
                )
        built[section] = kind(**fields)
    return Experiment(**built)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of a field: Literal, a union, a tuple of any length, a dict by name, or plain."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(each, inner[1]) for each in value.values())
    if inner:
        return any(fits(value, each) for each in inner)
    plain = int | float if hint is float else hint
    return isinstance(value, plain) and (hint is bool or not isinstance(value, bool))


def flatten(experiment: Experiment) -> dict[str, Any]:
    """{'optim.learning_rate': 0.01, ...}: every field under its command-line name."""
    flat = {}
    for section, fields in to_json(experiment).items():
        if isinstance(fields, dict):
            flat |= {f"{section}.{k}": v for k, v in fields.items()}
    return flat


def differences(saved: Experiment, asked: Experiment) -> dict[str, tuple[Any, Any]]:
    """Fields that forbid continuing `saved` as `asked`: {option: (saved value, asked value)}; empty when it may go on.

    The number of epochs may grow unless the schedule is stretched over it (linear and cosine end at the last epoch).
    """
    old, new = flatten(saved), flatten(asked)
    differing = {k: (old[k], new[k]) for k in old if old[k] != new[k] and k not in MAY_DIFFER}
    stretched = asked.optim.schedule in ("linear", "cosine")
    if asked.train.epochs > saved.train.epochs and not stretched:
        differing.pop("train.epochs", None)
    return differing
