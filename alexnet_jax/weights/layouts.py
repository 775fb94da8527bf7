"""Layouts of weights in files and conversion from and to parameters (docs/weights.md). No value changes.

Parameters are {layer: {'kernel': [columns, out, in, ...], 'bias': [columns, out]}}. The layout `columns` stores them as they
are: `conv1.kernel`, `conv1.bias`. The layout `grouped` is that of programs for one device, with columns as groups:
`conv1.weight` [out, in / groups, kh, kw], `fc6.weight` [out, in]. Both have the maps of column 0 first, and fc6 reads its inputs
in the order of an NCHW flatten, so the conversion is a reshape, with a transposition for layers that sum over the columns (fc8).
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from alexnet_jax.errors import UsageError
from alexnet_jax.network.foreign import NAMES
from alexnet_jax.network.table import Conv, LayerShape, Table, shapes
from alexnet_jax.weights.formats import Tensors

Layout = Literal["columns", "grouped"]
HostParameters = dict[str, dict[str, np.ndarray]]


def to_file(table: Table, parameters: HostParameters, layout: Layout) -> Tensors:
    """Return the parameters in a layout, as views where possible.

    Raises UsageError if `grouped` cannot represent a layer of the network.
    """
    if layout == "columns":
        return {f"{layer}.{kind}": numbers for layer, both in parameters.items() for kind, numbers in both.items()}
    tensors = {}
    for shape in shapes(table):
        _check_groups(table, shape)
        name, both = _foreign_name(table, shape.spec.name), parameters[shape.spec.name]
        tensors[f"{name}.weight"] = _transposed(shape, both["kernel"]).reshape(_grouped(shape))
        tensors[f"{name}.bias"] = both["bias"].reshape(-1)
    return tensors


def from_file(table: Table, tensors: Tensors, source: str) -> HostParameters:
    """Return the parameters from tensors of either layout; torchvision's own names are accepted for its network.

    Raises UsageError naming `source` and the tensors that are missing, unknown or of another shape.
    """
    if any(name.endswith(".kernel") for name in tensors):
        return _from_columns(table, tensors, source)
    tensors = _with_our_names(table, tensors)
    expected = {}
    for shape in shapes(table):
        _check_groups(table, shape)
        expected[f"{shape.spec.name}.weight"] = _grouped(shape)
        expected[f"{shape.spec.name}.bias"] = (int(np.prod(shape.bias)),)
    found = _checked(table, tensors, expected, source)
    parameters = {}
    for shape in shapes(table):
        columns, out, *rest = shape.kernel
        weight = found[f"{shape.spec.name}.weight"]
        transposed = weight.reshape(out, columns, *rest).swapaxes(0, 1) if _summed(shape) else weight
        kernel = np.ascontiguousarray(transposed).reshape(shape.kernel)
        parameters[shape.spec.name] = {"kernel": kernel, "bias": found[f"{shape.spec.name}.bias"].reshape(shape.bias)}
    return parameters


def flip_channels(table: Table, parameters: HostParameters) -> HostParameters:
    """Return the parameters of the same network for images with reversed channels, RGB instead of BGR."""
    first = table.layers[0].name
    kernel = np.ascontiguousarray(parameters[first]["kernel"][:, :, ::-1])
    return parameters | {first: parameters[first] | {"kernel": kernel}}


def classes(table: Table, tensors: Tensors) -> int:
    """Return the number of classes in a file, or that of the table if the file lacks the last layer."""
    last = table.layers[-1].name
    bias = _with_our_names(table, tensors).get(f"{last}.bias")
    return table.classes if bias is None else bias.size


def _from_columns(table: Table, tensors: Tensors, source: str) -> HostParameters:
    both = {shape.spec.name: {"kernel": shape.kernel, "bias": shape.bias} for shape in shapes(table)}
    expected = {f"{layer}.{kind}": shape for layer, kinds in both.items() for kind, shape in kinds.items()}
    found = _checked(table, tensors, expected, source)
    return {layer: {kind: found[f"{layer}.{kind}"] for kind in kinds} for layer, kinds in both.items()}


def _summed(shape: LayerShape) -> bool:
    return shape.spec.crossing == "sum"


def _transposed(shape: LayerShape, kernel: np.ndarray) -> np.ndarray:
    """Transpose the kernel of a layer that sums over the columns from [columns, out, in] to [out, columns, in]."""
    return kernel.swapaxes(0, 1) if _summed(shape) else kernel


def _grouped(shape: LayerShape) -> tuple[int, ...]:
    columns, out, *rest = shape.kernel
    return (out, columns * rest[0]) if _summed(shape) else (columns * out, *rest)


def _check_groups(table: Table, shape: LayerShape) -> None:
    spec = shape.spec
    local = isinstance(spec, Conv) and spec.local
    block_diagonal = not isinstance(spec, Conv) and spec.crossing is None and table.columns > 1
    if local or block_diagonal:
        what = "separate weights for every pixel" if local else "a separate matrix for each column"
        raise UsageError(
            f"{table.name}: {spec.name} has {what}, which the grouped layout cannot represent. Use --layout=columns."
        )


def _foreign_name(table: Table, layer: str) -> str:
    return NAMES.get(table.name, {}).get(layer, layer)


def _with_our_names(table: Table, tensors: Tensors) -> Tensors:
    ours = {foreign: layer for layer, foreign in NAMES.get(table.name, {}).items()}
    parts = {name: name.rpartition(".") for name in tensors}
    return {f"{ours.get(layer, layer)}.{kind}": tensors[name] for name, (layer, _, kind) in parts.items()}


def _checked(table: Table, tensors: Tensors, expected: dict[str, tuple[int, ...]], source: str) -> Tensors:
    """Return the tensors in the expected shapes. Axes of length 1 are ignored: old Caffe files have [1, 1, out, in]."""
    _check_names(table, tensors, expected, source)
    for name, shape in expected.items():
        if _significant(tensors[name].shape) != _significant(shape):
            raise UsageError(
                f"{source}: {name} has the shape {list(tensors[name].shape)}, but {table.name} expects {list(shape)}. Use the "
                "weights of this network or change --exp or --network.*."
            )
    return {name: tensors[name].reshape(shape) for name, shape in expected.items()}


def _check_names(table: Table, tensors: Tensors, expected: Iterable[str], source: str) -> None:
    missing, unknown = [name for name in expected if name not in tensors], sorted(set(tensors) - set(expected))
    if missing or unknown:
        listed = f"{'lacks' if missing else 'has'} {', '.join((missing or unknown)[:4])}"
        other = f" and has {', '.join(unknown[:4])}" if missing and unknown else ""
        expects = "" if missing else f", which {table.name} does not have"
        raise UsageError(f"{source} {listed}{other}{expects}. Expected the weights of {table.name} (docs/weights.md).")


def _significant(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)
