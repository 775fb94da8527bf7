"""What an experiment is: five small frozen records and their JSON form. checks.py checks that their fields fit together.

This file does not import jax: a mistyped option is answered at once, and a finished run can be read without a device.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from alexnet_jax.errors import UsageError


@dataclass(frozen=True)
class Network:
    """The network to build (network/networks.py). Its table of layers itself is not an option."""

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
    """alexnet: the paper's network for 224x224 images. alexnet_cifar: the same layers for 32x32 images. The others are fixed
    tables (baselines.py, foreign.py) that no other option changes; all but caffe_alexnet have one column."""
    width: float = 1.0
    """Factor on the number of maps of conv1 to conv5; 1 gives the paper's 96-256-384-384-256."""
    fc_units: int = 4096
    """Units of fc6 and of fc7, over all columns."""
    columns: Literal[1, 2] = 2
    """2: the two-GPU network. 1: the same maps in one column, where every kernel sees all maps."""
    kernels: Literal["paper", "half", "merged"] = "paper"
    """half: half as many kernels in conv1 to conv4; with one column, the paper's one-GPU network (section 3.2, net 145-half).
    merged: 64, 192, 384, 384 and 256 kernels in one column, the network of "One weird trick"."""
    order: Literal["paper", "tutorial", "original"] = "paper"
    """The order of LRN, pooling and ReLU: that of the paper's text, of the tutorial, or of the original program's net 145."""
    init: Literal["paper", "original", "he"] = "paper"
    """Initial weights. paper: N(0, 0.01), and ones in some biases. original: 0.03 in conv3 to conv5. he: He's, for 32x32
    images."""
    dropout: float = 0.5
    """Probability that a unit of fc6 or fc7 is dropped in training; 0 turns dropout off."""
    pooling: Literal["overlapping", "non_overlapping"] = "overlapping"
    """overlapping: 3x3 windows with stride 2 (section 3.4). non_overlapping: 2x2 windows with stride 2, as in net 147."""
    lrn: Literal["paper", "divided", "pixel_scale", "not_conv2", "none"] = "paper"
    """paper: as `order` defines it. divided: alpha / 5. pixel_scale: alpha * 64^2, which acts on images scaled to a deviation
    of one as the paper's alpha does on 0..255. not_conv2: none after conv2. none: no normalization."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation of every layer but the last (section 3.1)."""
    crossings: Literal["paper", "none_before_fc8", "none_at_conv3", "conv4_for_conv3", "everywhere"] = "paper"
    """Layers at which the columns communicate. paper: conv3, fc6, fc7 and fc8. none_before_fc8: fc8 alone (net 150, with conv2
    and fc6 wider). none_at_conv3: not at conv3 (net 127, with conv3 wider). conv4_for_conv3: at conv4 instead of conv3 (net
    132). everywhere: at conv2, conv4 and conv5 too."""
    without: Literal["none", "conv3", "conv4", "conv5", "fc7"] = "none"
    """A layer to remove (section 7). Its pooling moves to the layer before it, its crossing to the layer after it."""
    biases: Literal["init", "ones", "zeros"] = "init"
    """Initial biases. init: as `init` defines them. ones: ones in conv2, conv4, conv5, fc6 and fc7. zeros: zeros."""


@dataclass(frozen=True)
class Data:
    """The images, and how they are processed before they reach the network."""

    name: Literal["cifar10", "digits", "imagenet2012", "folder"] = "cifar10"
    """cifar10 and imagenet2012 are read through tensorflow-datasets; digits ships with scikit-learn. folder: your own pictures,
    in one sub-folder of data.dir for each class, or of its train/, val/ and test/; or any labelled images in a version folder
    of tensorflow-datasets."""
    dir: str | None = None
    """The folder of tensorflow-datasets. Default: TFDS_DATA_DIR, then ~/tensorflow_datasets. With data.name=folder: the folder
    of pictures."""
    prepared: str | None = None
    """The folder that --mode=prepare wrote for imagenet2012 or folder; none: read the pictures themselves. Default: the folder
    in ~/.cache/alexnet_jax, if it exists."""
    side: int = 256
    """imagenet2012, folder: the shorter side of a picture is scaled to this many pixels, and its central square is cut out."""
    workers: int | None = None
    """imagenet2012, folder: processes that read and decode pictures; 0: threads of this process. Default: 0 on CPUs, half of
    the cores elsewhere."""
    fallback: Literal["digits", "error"] = "digits"
    """When the data set can neither be found nor downloaded. digits: a new training continues on the digits. error:
    stop."""
    validation: int = 5000
    """Number of training images held out for validation, the same ones in every run; one in ten where there are too few for the
    default. Schedules and the choice of the best checkpoint use only them."""
    crop_padding: int = 4
    """Training images are padded by this many zero pixels on each side (after the mean is subtracted) and cropped at random; 0
    turns it off."""
    mirror: bool = True
    """Mirror training images left to right with probability 1/2."""
    mean: Literal["pixel", "channel"] = "pixel"
    """What to subtract. pixel: the mean image of the training split, as the paper does. channel: its mean colour."""
    scale: Literal["none", "std"] = "none"
    """none: keep the scale 0..255. std: divide by the standard deviation of the training split (one number)."""
    crop: int = 0
    """Side of the random crop of each image, after any padding; 0: the side of the image. Networks for small images are built for
    this side."""
    views: Literal[1, 9, 10] = 1
    """Number of views of a test image whose softmax outputs are averaged; validations use the centre alone. 1: the centre. 9: a
    grid of 3x3. 10: the corners, the centre, and their mirror images."""
    colour: Literal["none", "paper", "original"] = "none"
    """Noise along the principal components of the colours (section 4.1), drawn once for each use of an image. original: a tenth
    of each component's standard deviation, after which the image is divided by 1.1. paper: a tenth of each eigenvalue, as the
    text has it, for colours in 0..1, where eigenvalues are below one (for 0..255 they are in the thousands)."""
    colour_epochs: float | None = None
    """Number of epochs with colour noise; the original program used none in its last epochs. Default: all epochs."""
    fold_in: bool = False
    """Train on the held-out images too, as the author's last runs did. The validation error is then measured on training
    images."""


DIGITS = Data(name="digits", validation=180, crop_padding=2, mirror=False, mean="pixel", scale="std")
"""Options of the data set that needs no download: 1,797 handwritten digits, never mirrored, shifted by at most two pixels."""


@dataclass(frozen=True)
class Optim:
    """SGD with momentum and the schedule of its learning rate. Times are in epochs."""

    rule: Literal["paper", "original", "sgd"] = "paper"
    """paper: v <- m v - decay lr w - lr g; w <- w + v. original: the same, but biases have no decay and a constant rate of
    their own. sgd: the rate multiplies the velocity, as in optax.sgd and most libraries."""
    learning_rate: float = 0.01
    """Peak learning rate; with the rule `original`, of the weights alone."""
    bias_learning_rate: float = 0.02
    """Constant learning rate of the biases; only the rule `original` uses it."""
    momentum: float = 0.9
    """Fraction of the velocity that is kept at each step."""
    weight_decay: float = 0.0005
    """Multiplies the learning rate and the weight in the velocity."""
    schedule: Literal["constant", "drops", "plateau", "original", "linear", "cosine"] = "drops"
    """drops: multiply the rate by drop_factor at each epoch in drops. plateau: multiply it by drop_factor, at most three times,
    when `patience` validations in a row did not improve on the best (section 5). original: as the author of net 145 lowered it
    by hand, by ten at epochs 25, 51 and 79, in conv1 again by ten at 67 and to zero at 72. linear, cosine: from the peak to
    zero, which is reached one step after the last."""
    warmup: float = 0.0
    """Epochs over which the rate first rises from zero to its peak."""
    drops: tuple[float, ...] = ()
    """drops: the epochs at which the rate is multiplied by drop_factor."""
    drop_factor: float = 0.1
    """drops, plateau: the factor."""
    patience: int = 5
    """plateau: validations (one per epoch) without a lower error before the rate drops."""
    new_rate: float = 1.0
    """Factor on the learning rate of the layers that --restore_skip initializes afresh."""


@dataclass(frozen=True)
class Train:
    """Length, batches and seed of a training, and what it writes."""

    epochs: float = 90
    """Passes over the training split. A larger number continues a finished run, unless the schedule is linear or cosine, whose
    rate is zero at the end; then start a new run from it with --restore."""
    batch: int = 128
    """Images per step, over all devices. The last incomplete batch of an epoch is dropped."""
    eval_batch: int = 500
    """Images per evaluation step; the results do not depend on it."""
    seed: int = 0
    """Everything random is a function of the seed, the step and the layer or example."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 0
    """Steps between two checkpoints, in addition to the one at the end of each epoch; 0: none."""
    keep: int = 2
    """Number of latest checkpoints to keep; the best by validation error is kept too."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: the type of activations and products; parameters, velocities, LRN and the loss stay float32. For GPUs."""
    deterministic: bool = False
    """On a GPU: use deterministic, slower operations, so that repeats are bit-exact. CPUs are always bit-exact."""
    tune_allocator: bool = True
    """On a CPU with Linux and glibc: keep freed memory in the process, which is several times faster
    (processes/allocator.py)."""
    compile_cache: bool = True
    """Keep compiled programs in ~/.cache/alexnet_jax, or in JAX_COMPILATION_CACHE_DIR, for a faster start."""


@dataclass(frozen=True)
class MeshOptions:
    """Devices: data replicas times columns. By default all devices, columns first; in traffic mode, two devices."""

    data: int | None = None
    """Number of data-parallel replicas; with the placement `hybrid`, of devices."""
    column: int | None = None
    """Number of devices that the columns are spread over: 1 (all columns on one device) or the number of columns."""
    placement: Literal["columns", "hybrid"] = "columns"
    """hybrid: the placement of "One weird trick", for networks with one column. Convolutions are data-parallel and fully
    connected layers are split by units, over the same devices (hybrid.py)."""
    scheme: Literal["whole", "slices"] = "whole"
    """hybrid, in training: the fully connected layers process all images at once (whole, its scheme (a)), or in as many slices
    as there are devices (slices, its scheme (c))."""


@dataclass(frozen=True)
class Experiment:
    """One training, from its data to its report."""

    name: str
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    mesh: MeshOptions = field(default_factory=MeshOptions)


MAY_DIFFER = frozenset(
    {
        *("data.dir", "data.prepared", "data.workers", "data.fallback"),
        *("train.eval_batch", "train.log_every", "train.save_every", "train.keep"),
        *("train.deterministic", "train.tune_allocator", "train.compile_cache"),
        *("mesh.data", "mesh.column", "mesh.placement", "mesh.scheme"),
    }
)
"""Options that may change when a run continues: none of them changes the mathematics. See `differences` for train.epochs."""


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as nested dictionaries of JSON values; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_json(values: dict[str, Any]) -> Experiment:
    """Invert `to_json`. Raises UsageError naming a section, field or value that this version does not know."""
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
    if hint is Any:
        return True
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
    """Return every field under its name on the command line: {'optim.learning_rate': 0.01, ...}."""
    flat = {}
    for section, fields in to_json(experiment).items():
        if isinstance(fields, dict):
            flat |= {f"{section}.{k}": v for k, v in fields.items()}
    return flat


def differences(saved: Experiment, requested: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return {option: (saved, requested)} for the options that forbid continuing `saved` as `requested`.

    The number of epochs may grow, except under the schedules linear and cosine, which end at the last epoch.
    """
    old, new = flatten(saved), flatten(requested)
    differing = {k: (old[k], new[k]) for k in old if old[k] != new[k] and k not in MAY_DIFFER}
    stretched = requested.optim.schedule in ("linear", "cosine")
    if requested.train.epochs > saved.train.epochs and not stretched:
        differing.pop("train.epochs", None)
    return differing
