"""Baselines for 32x32 images: LeNet-5, a simple CNN, and the CIFAR-10 networks of AlexNet's author.

The latter are those of cuda-convnet and cuda-convnet2, named by their test errors in those programs; their inputs are pixels
from 0 to 255 minus the training mean. All baselines have one column. Weight decays are in the tables, learning rates in the
experiments. To add a network, write a function here, register it in `BASELINES` and add its name to `experiment.Network`.
"""

from alexnet_jax.network.table import LRN, AvgPool, Conv, Dense, MapNorm, MaxPool, Pool, ReLU, Table

HALVED = MaxPool(2, 2)


def _lenet5(classes: int) -> Table:
    """LeNet-5 (LeCun et al. 1998) with today's usual changes: three channels, ReLU, max-pooling, and a fully connected C3."""
    layers = (
        Conv("conv1", 6, 5, after=(ReLU(), HALVED), weight_std="he"),
        Conv("conv2", 16, 5, after=(ReLU(), HALVED), weight_std="he"),
        Dense("fc3", 120, after=(ReLU(),), weight_std="he"),
        Dense("fc4", 84, after=(ReLU(),), weight_std="he"),
        Dense("fc5", classes, "sum", weight_std="he"),
    )
    return Table("lenet5", (32, 32, 3), 1, layers)


def _simple_cnn(classes: int) -> Table:
    """Two 3x3 convolutions and two fully connected layers, as in introductory tutorials."""
    layers = (
        Conv("conv1", 32, 3, padding=(1, 1), after=(ReLU(), HALVED), weight_std="he"),
        Conv("conv2", 64, 3, padding=(1, 1), after=(ReLU(), HALVED), weight_std="he"),
        Dense("fc3", 128, after=(ReLU(),), weight_std="he"),
        Dense("fc4", classes, "sum", weight_std="he"),
    )
    return Table("simple_cnn", (32, 32, 3), 1, layers)


def _conv(name: str, maps: int, std: float, decay: float, *after: ReLU | LRN | MapNorm | Pool) -> Conv:
    return Conv(name, maps, 5, padding=(2, 2), weight_std=std, decay=decay, after=after)


def _local(name: str, maps: int) -> Conv:
    return Conv(name, maps, 3, padding=(1, 1), weight_std=0.04, decay=0.004, local=True)


def _cuda_convnet_26pct(classes: int) -> Table:
    """26 % without augmentation, which its author trained in 80 seconds."""
    layers = (
        _conv("conv1", 32, 1e-4, 0.004, ReLU(), MaxPool()),
        _conv("conv2", 32, 0.01, 0.004, ReLU(), AvgPool()),
        _conv("conv3", 64, 0.01, 0.004, ReLU(), AvgPool()),
        Dense("fc4", 64, weight_std=0.1, decay=0.03, after=(ReLU(),)),
        Dense("fc5", classes, "sum", weight_std=0.1, decay=0.03),
    )
    return Table("cuda_convnet_26pct", (32, 32, 3), 1, layers)


def _cuda_convnet_18pct(classes: int) -> Table:
    """18 % without augmentation; conv1 pools before its ReLU, and normalization is within each map."""
    norm = MapNorm(size=3, k=1.0, alpha=5e-5 / 9)
    layers = (
        _conv("conv1", 32, 1e-4, 0.004, MaxPool(), ReLU(), norm),
        _conv("conv2", 32, 0.01, 0.004, ReLU(), AvgPool(), norm),
        _conv("conv3", 64, 0.01, 0.004, ReLU(), AvgPool()),
        Dense("fc4", classes, "sum", weight_std=0.01, decay=1.0),
    )
    return Table("cuda_convnet_18pct", (32, 32, 3), 1, layers)


def _cuda_convnet_13pct(classes: int) -> Table:
    """13 % with 24x24 crops and mirroring; two locally connected layers, whose weights are not shared."""
    layers = (
        _conv("conv1", 64, 1e-4, 0.0, ReLU(), MaxPool()),
        _conv("conv2", 64, 0.01, 0.0, ReLU(), MaxPool()),
        _local("local3", 32),
        _local("local4", 32),
        Dense("fc5", classes, "sum", weight_std=0.01, decay=0.004),
    )
    return Table("cuda_convnet_13pct", (24, 24, 3), 1, layers)


def _cuda_convnet_11pct(classes: int) -> Table:
    """11 % with nine views; LRN across nine maps after the first pool and before the second, and more local maps."""
    lrn = LRN(size=9, k=1.0, alpha=1e-3 / 9)
    layers = (
        _conv("conv1", 64, 1e-4, 0.0, ReLU(), MaxPool(), lrn),
        _conv("conv2", 64, 0.01, 0.0, ReLU(), lrn, MaxPool()),
        _local("local3", 64),
        _local("local4", 32),
        Dense("fc5", classes, "sum", weight_std=0.01, decay=0.01),
    )
    return Table("cuda_convnet_11pct", (24, 24, 3), 1, layers)


BASELINES = {
    "lenet5": _lenet5,
    "simple_cnn": _simple_cnn,
    "cuda_convnet_26pct": _cuda_convnet_26pct,
    "cuda_convnet_18pct": _cuda_convnet_18pct,
    "cuda_convnet_13pct": _cuda_convnet_13pct,
    "cuda_convnet_11pct": _cuda_convnet_11pct,
}
"""{network: function from a number of classes to its table}."""
