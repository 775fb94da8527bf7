"""Ablations of AlexNet: one function from table to table for each option of `Network` beyond width and order.

Where the author of the original program compensated for a change (wider layers, other paddings), the function does the same,
and its docstring names the net.
"""

import dataclasses
from collections.abc import Callable

from alexnet_jax.experiment import Network
from alexnet_jax.network.table import LRN, Dense, Layer, MapNorm, MaxPool, Part, Pool, ReLU, Table, Tanh, shapes

ONES = frozenset({"conv2", "conv4", "conv5", "fc6", "fc7"})
"""Layers whose biases start at 1, so that their ReLUs receive positive inputs in early training (section 5)."""

ORIGINAL_LRN = LRN(alpha=1e-4 / 5)
"""The original program divides alpha by the number of maps it sums over."""

PIXEL_DEVIATION = 64
"""Standard deviation of the pixels of photographs on the scale 0 to 255, rounded (CIFAR-10: 64.1)."""

PIXEL_SCALE_LRN = LRN(alpha=1e-4 * PIXEL_DEVIATION**2)
"""The paper's LRN for images scaled to a standard deviation of one: LRN(64 x; alpha) = 64 LRN(x; 64^2 alpha), so a ReLU
network without biases computes the same outputs, divided by 64."""


def ablate(table: Table, network: Network) -> Table:
    """Return the table with all ablations that `network` selects. Raise KeyError for a value that it does not list."""
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
    """Pool in 2x2 windows every two pixels (section 3.4).

    conv2 and conv5 are padded by one pixel less where they would otherwise have more outputs than with overlapping pooling, so
    that fc6 keeps its inputs. At 224x224 both are, as in net 147: 55, 28, 26, 13, 11, 6. At 28x28 conv5 is, at 32x32 neither.
    """
    changed = _each_part(table, lambda part: MaxPool(2, 2) if isinstance(part, MaxPool) else part)
    outputs = lambda table: {shape.spec.name: shape.outputs for shape in shapes(table)}  # noqa: E731
    for name in ("conv2", "conv5"):
        if outputs(changed)[name] != outputs(table)[name]:
            before, behind = next(spec.padding for spec in table.layers if spec.name == name)
            changed = replaced(changed, **{name: {"padding": (before - 1, behind - 1)}})
    return changed


def each_lrn(table: Table, lrn: LRN) -> Table:
    """Replace every LRN."""
    return _each_part(table, lambda part: lrn if isinstance(part, LRN) else part)


def without_normalization(table: Table, layer: str | None = None) -> Table:
    """Remove normalization of either kind from all layers (net 148) or from one (net 167: conv2)."""
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
    """Replace every ReLU by tanh (section 3.1)."""
    return _each_part(table, lambda part: Tanh() if isinstance(part, ReLU) else part)


def none_before_fc8(table: Table) -> Table:
    """Net 150: the columns communicate in fc8 only; conv2 is a quarter wider and fc6 twice as wide, in compensation."""
    wider = {"conv2": {"maps": _wider(table, "conv2", 1.25)}, "fc6": {"units": _wider(table, "fc6", 2)}}
    apart = replaced(table, conv3={"crossing": None}, fc6={"crossing": None}, fc7={"crossing": None})
    return replaced(apart, **wider)


def none_at_conv3(table: Table) -> Table:
    """After net 127: conv3 sees only its own column and is wider, by a factor that net 127 does not record.

    1.4 times as many maps preserve the total number of weights of conv3 and conv4.
    """
    return replaced(table, conv3={"crossing": None, "maps": _wider(table, "conv3", 1.4)})


def conv4_for_conv3(table: Table) -> Table:
    """Nets 132 and 133: the columns communicate at conv4 instead of conv3."""
    return replaced(table, conv3={"crossing": None}, conv4={"crossing": "gather"})


def crossings_everywhere(table: Table) -> Table:
    """Let every layer see all maps of the layer before it, so that only LRN distinguishes the columns of conv1 (figure 3)."""
    return replaced(table, **{name: {"crossing": "gather"} for name in ("conv2", "conv4", "conv5")})


def with_ones(table: Table) -> Table:
    """Initialize biases as in section 5 of the paper."""
    return replaced(table, **{spec.name: {"bias": 1.0 if spec.name in ONES else 0.0} for spec in table.layers})


def with_zeros(table: Table) -> Table:
    """Initialize all biases to 0."""
    return replaced(table, **{spec.name: {"bias": 0.0} for spec in table.layers})


def without_layer(table: Table, name: str) -> Table:
    """Remove a layer (section 7). Its pooling moves to the layer before it, its crossing to the one after it."""
    index = [spec.name for spec in table.layers].index(name)
    before, removed, after = table.layers[index - 1 : index + 2]
    pools = tuple(part for part in removed.after if isinstance(part, Pool))
    before = dataclasses.replace(before, after=before.after + pools)
    if removed.crossing == "gather" and after.crossing is None:
        after = dataclasses.replace(after, crossing="gather")
    layers = (*table.layers[: index - 1], before, after, *table.layers[index + 2 :])
    return dataclasses.replace(table, layers=layers)


def replaced(table: Table, **fields: dict) -> Table:
    """Replace fields of some layers: `replaced(table, conv3={"crossing": None})`."""
    layers = tuple(dataclasses.replace(spec, **fields.get(spec.name, {})) for spec in table.layers)
    return dataclasses.replace(table, layers=layers)


def _same(table: Table) -> Table:
    return table


def _each_part(table: Table, change: Callable[[Part], Part]) -> Table:
    layers = tuple(dataclasses.replace(spec, after=tuple(map(change, spec.after))) for spec in table.layers)
    return dataclasses.replace(table, layers=layers)


def _wider(table: Table, name: str, factor: float) -> int:
    """Return the maps or units of a layer times a factor, rounded to a multiple of the columns."""
    spec: Layer = next(spec for spec in table.layers if spec.name == name)
    width = spec.units if isinstance(spec, Dense) else spec.maps
    return round(width * factor / table.columns) * table.columns
