"""Every network as a table of layers, after the paper (sections 3.1-3.5), the tutorial and the original program.

Read `ALEXNET` first. `build` turns the small `Network` record of the command line into a table; every other name here is
one of its products or a part of it.
"""

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
"""What follows each convolution, by source. conv5 is (ReLU, pool) and fc6, fc7 are (ReLU, dropout) in all of them."""

MAPS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256}
"""Kernels per layer over both columns (section 3.5)."""

HALF_MAPS = {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192, "conv5": 256}
"""The paper's one-GPU net (section 3.2): half as many kernels, but not in conv5, to keep the parameters comparable."""

MERGED_MAPS = {"conv1": 64, "conv2": 192, "conv3": 384, "conv4": 384, "conv5": 256}
"""One column in place of two, in "One weird trick" (2014)."""


FIXED = BASELINES | FOREIGN
"""Networks that no option changes: {name: its table for a number of classes}."""


def build(network: Network, classes: int) -> Table:
    """The table a record describes, for `classes` outputs. Raises UsageError when its numbers do not fit together."""
    check_width(network)
    fixed = FIXED.get(network.name)
    table = fixed(classes) if fixed else ablate(_alexnet(network, classes), network)
    try:
        list(shapes(table))
    except ValueError as problem:
        raise UsageError(f"The network {table.name} cannot be built: {problem}. Change --network.*.") from problem
    return table


def _alexnet(network: Network, classes: int) -> Table:
    maps = {"paper": MAPS, "half": HALF_MAPS, "merged": MERGED_MAPS}[network.kernels]
    maps = {name: _scaled(count, network) for name, count in maps.items()}
    small = network.name == "alexnet_cifar"
    # 224 becomes 55 through three more rows and columns on the right and the bottom, as in the original program.
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
    """maps * width, rounded to a multiple of the columns."""
    return max(1, round(maps * network.width / network.columns)) * network.columns


def _initial(layer: str, scheme: str) -> dict:
    """Standard deviation of the weights and value of the biases of one layer, by named scheme.

    paper: 0.01 everywhere (section 5). original: 0.03 in conv3 to conv5 (net 145). he: sqrt(2 / inputs), biases 0, which
    keeps the size of the activations from layer to layer where a narrow network's 0.01 would shrink them.
    """
    if scheme == "he":
        return {"weight_std": "he", "bias": 0.0}
    wider = scheme == "original" and layer in {"conv3", "conv4", "conv5"}
    return {"weight_std": 0.03 if wider else 0.01, "bias": 1.0 if layer in ONES else 0.0}


ALEXNET = build(Network("alexnet"), 1000)
"""The paper's network: 60,965,224 parameters in two columns."""

ALEXNET_TUTORIAL = build(Network("alexnet", order="tutorial"), 1000)
"""The tutorial's order: pooling before LRN, and LRN after conv3 and conv4 too."""

ALEXNET_ORIGINAL = build(Network("alexnet", order="original", init="original"), 1000)
"""Net 145 of the original program: conv1 normalizes and pools before its ReLU, conv2 has a second normalization."""

ALEXNET_ONE_COLUMN = build(Network("alexnet", columns=1, kernels="half"), 1000)
"""The paper's one-GPU network (net 145-half)."""

ALEXNET_MERGED = build(Network("alexnet", columns=1, kernels="merged"), 1000)
"""The network of "One weird trick": one column, for the hybrid placement."""

ALEXNET_CIFAR = build(Network("alexnet_cifar"), 10)
"""The eight layers at 32x32 and full width."""
