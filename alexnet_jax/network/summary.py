"""`--mode=summary`: the layers of a network as text, read off its table without devices or parameters."""

from alexnet_jax.formatting import text_table
from alexnet_jax.network.table import Conv, LayerShape, Table, normalizations, shapes

HEADINGS = ("layer", "sees per column", "gives per column", "parameters", "operations", "from the other column")


def summary(table: Table) -> str:
    """Return one row per layer: shapes [channels, height, width], parameters, operations, and what crosses the columns.

    Parameters and operations are counted over all columns. Raise ValueError when the layers do not fit together.
    """
    layers = list(shapes(table))
    rows = [HEADINGS, *(_row(table, layer) for layer in layers)]
    total = sum(layer.parameters for layer in layers), sum(layer.operations for layer in layers)
    rows.append(("total", "", "", f"{total[0]:,}", f"{total[1] / 1e6:,.1f} M", ""))
    title = f"{table.name}: images {_by(table.image)}, columns {table.columns}, classes {table.classes}"
    note = "Operations: multiplications and additions of one image's forward pass, over all columns."
    return f"{title}\n\n{text_table(rows, right=(3, 4))}\n\n{note}"


def _row(table: Table, layer: LayerShape) -> tuple[str, ...]:
    return (
        layer.spec.name,
        _by(layer.inputs),
        _by(layer.outputs),
        f"{layer.parameters:,}",
        f"{layer.operations / 1e6:,.1f} M",
        ", ".join(_received(table.columns, layer)) or "-",
    )


def _received(columns: int, layer: LayerShape) -> list[str]:
    """Return what each column receives from the others."""
    if columns == 1:
        return []
    found = []
    if layer.spec.crossing == "sum":
        found.append(f"partial sums of {layer.received:,} units")
    elif layer.spec.crossing == "gather":
        others = layer.inputs[0] * (columns - 1) // columns
        gathered = f"{others:,} maps of {_by(layer.inputs[1:])}"
        found.append(gathered if isinstance(layer.spec, Conv) else f"{others:,} activations")
    for part, shape in normalizations(layer.spec, layer.convolved):
        if part.across:
            found.append(f"{min(columns - 1, 2) * (part.size // 2):,} maps of {_by(shape[1:])} for LRN")
    return found


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
