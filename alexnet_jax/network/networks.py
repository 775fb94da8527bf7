"""AlexNet as a table of layers, after the paper (sections 3.1-3.5), the tutorial and the original program.

Read `ALEXNET` first. `build` turns the `Network` record of the command line into the table of any network.
"""

import dataclasses

from alexnet_jax.checks import check_width
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.network.ablations import ONES, ORIGINAL_LRN, ablate
from alexnet_jax.network.baselines import BASELINES
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.network.table import LRN, Conv, Dense, Dropout, MapNorm, MaxPool, Part, ReLU, Table, shapes

ORDERS: dict[str, dict[str, tuple[Part, ...]]] = {
    "paper": {
        "conv1": (ReLU(), LRN(), MaxPool()),
        "conv2": (ReLU(), LRN(), MaxPool()),
        "conv3": (ReLU(),),
        "conv4": (ReLU(),),
    },
    "tutorial": {
        "conv1": (ReLU(), MaxPool(), LRN()),
        "conv2": (ReLU(), MaxPool(), LRN()),
        "conv3": (ReLU(), LRN()),
        "conv4": (ReLU(), LRN()),
    },
    "original": {  # net 145
        "conv1": (ORIGINAL_LRN, MaxPool(), ReLU()),
        "conv2": (ReLU(), ORIGINAL_LRN, MapNorm(), MaxPool()),
        "conv3": (ReLU(),),
        "conv4": (ReLU(),),
    },
}
"""The parts after each convolution, by source. In all of them conv5 has (ReLU, pool), and fc6 and fc7 (ReLU, dropout)."""

MAPS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256}
"""Kernels per layer over both columns (section 3.5)."""

HALF_MAPS = {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192, "conv5": 256}
"""The paper's one-GPU network (section 3.2): half as many kernels except in conv5, so that the parameters are comparable."""

MERGED_MAPS = {"conv1": 64, "conv2": 192, "conv3": 384, "conv4": 384, "conv5": 256}
"""The one-column network of "One weird trick" (2014)."""

ALEXNETS = ("alexnet", "alexnet_cifar")
"""Networks that every option of `Network` applies to."""
ANY_SIDE = ("alexnet_cifar", *BASELINES)
"""Networks that are built for the crops of small images, whatever their side."""
FIXED = BASELINES | FOREIGN
"""Networks that no option changes: {name: function from a number of classes to a table}."""


def build(network: Network, classes: int, side: int = 0) -> Table:
    """Return the table that a record describes, with `classes` outputs.

    side: side of the crops of the images, 0 without crops. Networks for small images are built for them; those for ImageNet
    have one size.

    Raise UsageError for an unknown name, or numbers that do not fit together.
    """
    check_width(network)
    if network.name in FIXED:
        table = FIXED[network.name](classes)
    elif network.name in ALEXNETS:
        table = _alexnet(network, classes)
    else:
        raise UsageError(f"--network.name={network.name}: expected one of {', '.join((*ALEXNETS, *FIXED))}.")
    if side and network.name in ANY_SIDE:
        table = dataclasses.replace(table, image=(side, side, table.image[-1]))
    try:
        table = ablate(table, network) if network.name in ALEXNETS else table
        list(shapes(table))
    except ValueError as problem:
        change = f"--data.crop={side} or --network.*" if side else "--network.*"
        raise UsageError(f"The network {table.name} cannot be built: {problem}. Change {change}.") from problem
    return table


def _alexnet(network: Network, classes: int) -> Table:
    maps = {"paper": MAPS, "half": HALF_MAPS, "merged": MERGED_MAPS}[network.kernels]
    maps = {name: _scaled(count, network) for name, count in maps.items()}
    small = network.name == "alexnet_cifar"
    # Three more rows and columns at the bottom and on the right reduce 224 pixels to 55, as in the original program.
    stem = {"kernel": 5, "padding": (2, 2)} if small else {"kernel": 11, "stride": 4, "padding": (0, 3)}
    after = ORDERS[network.order]
    hidden = (ReLU(), Dropout(network.dropout)) if network.dropout else (ReLU(),)
    start = {name: _initial(name, network.init) for name in (*MAPS, "fc6", "fc7", "fc8")}
    return Table(
        network.name,
        (32, 32, 3) if small else (224, 224, 3),
        network.columns,
        (
            Conv("conv1", maps["conv1"], **stem, after=after["conv1"], **start["conv1"]),
            Conv("conv2", maps["conv2"], 5, padding=(2, 2), after=after["conv2"], **start["conv2"]),
            Conv("conv3", maps["conv3"], 3, padding=(1, 1), crossing="gather", after=after["conv3"], **start["conv3"]),
            Conv("conv4", maps["conv4"], 3, padding=(1, 1), after=after["conv4"], **start["conv4"]),
            Conv("conv5", maps["conv5"], 3, padding=(1, 1), after=(ReLU(), MaxPool()), **start["conv5"]),
            Dense("fc6", network.fc_units, "gather", after=hidden, **start["fc6"]),
            Dense("fc7", network.fc_units, "gather", after=hidden, **start["fc7"]),
            Dense("fc8", classes, "sum", **start["fc8"]),
        ),
    )


def _scaled(maps: int, network: Network) -> int:
    """Return maps * width, rounded to a multiple of the columns."""
    return max(1, round(maps * network.width / network.columns)) * network.columns


def _initial(layer: str, scheme: str) -> dict:
    """Return the fields `weight_std` and `bias` of a layer, by initialization scheme.

    paper: 0.01 everywhere (section 5). original: 0.03 in conv3 to conv5 (net 145). he: sqrt(2 / inputs) and biases of 0,
    which preserve the scale of activations where 0.01 would shrink them in a narrow network.
    """
    if scheme == "he":
        return {"weight_std": "he", "bias": 0.0}
    wider = scheme == "original" and layer in {"conv3", "conv4", "conv5"}
    return {"weight_std": 0.03 if wider else 0.01, "bias": 1.0 if layer in ONES else 0.0}


ALEXNET = build(Network("alexnet"), 1000)
"""The paper's network: 60,965,224 parameters in two columns."""

ALEXNET_TUTORIAL = build(Network("alexnet", order="tutorial"), 1000)
"""The tutorial's order: pooling before LRN, and LRN also after conv3 and conv4."""

ALEXNET_ORIGINAL = build(Network("alexnet", order="original", init="original"), 1000)
"""Net 145 of the original program: conv1 normalizes and pools before its ReLU, conv2 has a second normalization."""

ALEXNET_ONE_COLUMN = build(Network("alexnet", columns=1, kernels="half"), 1000)
"""The paper's one-GPU network (net 145-half)."""

ALEXNET_MERGED = build(Network("alexnet", columns=1, kernels="merged"), 1000)
"""The one-column network of "One weird trick", which the hybrid placement is made for."""

ALEXNET_CIFAR = build(Network("alexnet_cifar"), 10)
"""The same eight layers for 32x32 images, at full width."""
