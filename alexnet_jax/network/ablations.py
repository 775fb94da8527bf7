"""What an ablation changes in a table of AlexNet: each option of `Network` beyond width and order is one function here.

Every function takes a table and gives another. Where the original program's author made up for a change (wider layers, other
paddings), so does the function, and its docstring names the net.
"""

import dataclasses
from collections.abc import Callable

from alexnet_jax.experiment import Network
from alexnet_jax.network.table import LRN, Dense, Layer, MapNorm, MaxPool, Part, Pool, ReLU, Table, Tanh

ONES = frozenset({"conv2", "conv4", "conv5", "fc6", "fc7"})
"""Layers whose biases start at 1 (section 5 of the paper), so that their ReLUs have positive inputs from the first step."""

ORIGINAL_LRN = LRN(alpha=1e-4 / 5)
"""The original program divides alpha by the number of maps it sums over."""

PIXEL_DEVIATION = 64
"""Standard deviation of photographs' pixels on the 0..255 scale, rounded (CIFAR-10's is 64.1)."""

PIXEL_SCALE_LRN = LRN(alpha=1e-4 * PIXEL_DEVIATION**2)
"""On images scaled to a deviation of one this is the paper's LRN on images of 0..255: a network of ReLUs without biases
gives the same answers, divided by 64, since LRN(64 x; alpha) = 64 LRN(x; 64^2 alpha)."""


def ablate(table: Table, network: Network) -> Table:
    """The table with everything that `network` asks for. Raises KeyError for a value its record does not list."""
    changes: tuple[Callable[[Table], Table], ...] = (
        {"overlapping": _same, "non_overlapping": non_overlapping}[network.pooling],
        {
            "paper": _same,
            "divided": lambda table: each_lrn(table, ORIGINAL_LRN),
            "pixel_scale": lambda table: each_lrn(table, PIXEL_SCALE_LRN),
            "not_conv2": lambda table: without_normalization(table, "conv2"),
            "none": without_normalization,
        }[network.lrn],
        {"relu": _same, "tanh": with_tanh}[network.activation],
        {
            "paper": _same,
            "none_before_fc8": none_before_fc8,
            "none_at_conv3": none_at_conv3,
            "conv4_for_conv3": conv4_for_conv3,
            "everywhere": crossings_everywhere,
        }[network.crossings],
        {"init": _same, "ones": with_ones, "zeros": with_zeros}[network.biases],
        _same if network.without == "none" else lambda table: without_layer(table, network.without),
    )
    for change in changes:
        table = change(table)
    return table


def non_overlapping(table: Table) -> Table:
    """2x2 windows every two pixels (section 3.4).

    At 224x224 conv2 is padded by 1 and conv5 not at all, as in net 147, or fc6 would see another size: 55, 28, 26, 13, 11, 6.
    At 32x32 both pools halve the same sizes and nothing else changes.
    """
    table = _each_part(table, lambda part: MaxPool(2, 2) if isinstance(part, MaxPool) else part)
    if table.image[0] == 32:
        return table
    return replaced(table, conv2={"padding": (1, 1)}, conv5={"padding": (0, 0)})


def each_lrn(table: Table, lrn: LRN) -> Table:
    """Every LRN with other constants."""
    return _each_part(table, lambda part: lrn if isinstance(part, LRN) else part)


def without_normalization(table: Table, layer: str | None = None) -> Table:
    """No normalization of either kind (net 148), or none after one layer (net 167: conv2)."""
    return dataclasses.replace(
        table,
        layers=tuple(
            dataclasses.replace(spec, after=tuple(p for p in spec.after if not isinstance(p, LRN | MapNorm)))
            if layer in (None, spec.name)
            else spec
            for spec in table.layers
        ),
    )


def with_tanh(table: Table) -> Table:
    """tanh in place of every ReLU (section 3.1)."""
    return _each_part(table, lambda part: Tanh() if isinstance(part, ReLU) else part)


def none_before_fc8(table: Table) -> Table:
    """Net 150: the columns meet in fc8 only; conv2 a quarter wider and fc6 twice as wide, to make up for it."""
    wider = {"conv2": {"maps": _wider(table, "conv2", 1.25)}, "fc6": {"units": _wider(table, "fc6", 2)}}
    apart = replaced(table, conv3={"crossing": None}, fc6={"crossing": None}, fc7={"crossing": None})
    return replaced(apart, **wider)


def none_at_conv3(table: Table) -> Table:
    """After net 127: conv3 sees its own column only and is wider, by how much there is not recorded.

    1.4 times as many maps keep the number of weights of conv3 and conv4 together.
    """
    return replaced(table, conv3={"crossing": None, "maps": _wider(table, "conv3", 1.4)})


def conv4_for_conv3(table: Table) -> Table:
    """Nets 132 and 133: the columns meet at conv4 instead of conv3."""
    return replaced(table, conv3={"crossing": None}, conv4={"crossing": "gather"})


def crossings_everywhere(table: Table) -> Table:
    """Every layer sees all maps of the one before it, so nothing but LRN tells two columns of conv1 apart (figure 3)."""
    return replaced(table, **{name: {"crossing": "gather"} for name in ("conv2", "conv4", "conv5")})


def with_ones(table: Table) -> Table:
    """Biases as in section 5 of the paper."""
    return replaced(table, **{spec.name: {"bias": 1.0 if spec.name in ONES else 0.0} for spec in table.layers})


def with_zeros(table: Table) -> Table:
    """All biases start at 0."""
    return replaced(table, **{spec.name: {"bias": 0.0} for spec in table.layers})


def without_layer(table: Table, name: str) -> Table:
    """One layer less (section 7). Its pooling moves to the layer before it, its crossing to the one after it."""
    place = [spec.name for spec in table.layers].index(name)
    before, gone, after = table.layers[place - 1 : place + 2]
    pools = tuple(part for part in gone.after if isinstance(part, Pool))
    before = dataclasses.replace(before, after=before.after + pools)
    if gone.crossing == "gather" and after.crossing is None:
        after = dataclasses.replace(after, crossing="gather")
    layers = (*table.layers[: place - 1], before, after, *table.layers[place + 2 :])
    return dataclasses.replace(table, layers=layers)


def replaced(table: Table, **fields: dict) -> Table:
    """The table with fields of some layers replaced: `replaced(table, conv3={"crossing": None})`."""
    layers = tuple(dataclasses.replace(spec, **fields.get(spec.name, {})) for spec in table.layers)
    return dataclasses.replace(table, layers=layers)


def _same(table: Table) -> Table:
    return table


def _each_part(table: Table, change: Callable[[Part], Part]) -> Table:
    layers = tuple(dataclasses.replace(spec, after=tuple(map(change, spec.after))) for spec in table.layers)
    return dataclasses.replace(table, layers=layers)


def _wider(table: Table, name: str, factor: float) -> int:
    """Maps or units of a layer times a factor, still a multiple of the columns."""
    spec: Layer = next(spec for spec in table.layers if spec.name == name)
    width = spec.units if isinstance(spec, Dense) else spec.maps
    return round(width * factor / table.columns) * table.columns
