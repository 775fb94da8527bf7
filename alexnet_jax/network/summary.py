"""`--mode=summary`: a table of layers read off the table of the network; no device, no parameters."""

import math

from alexnet_jax.formatting import text_table
from alexnet_jax.network.table import LRN, LayerShape, Table, shapes

HEADINGS = ("layer", "sees per column", "gives per column", "parameters", "operations", "from the other column")


def summary(table: Table) -> str:
    """Per layer: shapes (channels x height x width), parameters and operations over all columns, and what crosses."""
    layers = list(shapes(table))
    rows = [HEADINGS, *(_row(table, layer) for layer in layers)]
    total = sum(layer.parameters for layer in layers), sum(layer.operations for layer in layers)
    rows.append(("total", "", "", f"{total[0]:,}", f"{total[1] / 1e6:,.1f} M", ""))
    image = "x".join(map(str, table.image))
    title = f"{table.name}: images {image}, columns {table.columns}, classes {table.classes}"
    note = "Operations: multiplications and additions of one image's forward pass, over all columns."
    return f"{title}\n\n{text_table(rows, right=(3, 4))}\n\n{note}"


def _row(table: Table, layer: LayerShape) -> tuple[str, ...]:
    shape = "x".join
    return (
        layer.spec.name,
        shape(map(str, layer.inputs)),
        shape(map(str, layer.outputs)),
        f"{layer.parameters:,}",
        f"{layer.operations / 1e6:,.1f} M",
        _crossing(table, layer),
    )


def _crossing(table: Table, layer: LayerShape) -> str:
    if not layer.received:
        return "-"
    if layer.spec.crossing is None:
        maps = sum(part.size // 2 for part in layer.spec.after if isinstance(part, LRN) and part.across)
        side = math.isqrt(layer.received // maps)
        return f"{maps:,} maps of {side}x{side} for LRN"
    if layer.spec.crossing == "sum":
        return f"partial sums of {layer.received:,} units"
    maps = layer.inputs[0] * (table.columns - 1) // table.columns
    pixels = layer.received // maps
    if len(layer.inputs) == 1:
        return f"{layer.received:,} activations"
    side = math.isqrt(pixels)
    return f"{maps:,} maps of {side}x{side}"
