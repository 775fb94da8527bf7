"""The order of numbers in files of weights, and ours: {layer: {'kernel': [columns, out, in, ...], 'bias': [columns, out]}}.

Two layouts (docs/weights.md). `columns` is ours, `conv1.kernel` and `conv1.bias` as they stand. `grouped` is what a program
on one device has, `conv1.weight` [out, in / groups, kh, kw] and `fc6.weight` [out, in]: columns become groups. Since columns
lead and our activations are [maps, height, width], the first column's maps first, nearly all of it is a reshape; fc6's
inputs stand in the order of an NCHW flatten. Only fc8, which sums over the columns, is turned. No number is changed.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from alexnet_jax.errors import UsageError
from alexnet_jax.network.foreign import NAMES
from alexnet_jax.network.table import Conv, LayerShape, Table, shapes
from alexnet_jax.weights.formats import Tensors

Layout = Literal["columns", "grouped"]
Numbers = dict[str, dict[str, np.ndarray]]


def to_file(table: Table, parameters: Numbers, layout: Layout) -> Tensors:
    """The parameters under the names and in the order of a layout, without copies where that can be.

    Raises UsageError for `grouped` when the network has a layer that other programs lack.
    """
    if layout == "columns":
        return {f"{layer}.{kind}": numbers for layer, both in parameters.items() for kind, numbers in both.items()}
    tensors = {}
    for shape in shapes(table):
        _check_groups(table, shape)
        name, both = _foreign_name(table, shape.spec.name), parameters[shape.spec.name]
        tensors[f"{name}.weight"] = _turned(shape, both["kernel"]).reshape(_grouped(shape))
        tensors[f"{name}.bias"] = both["bias"].reshape(-1)
    return tensors


def from_file(table: Table, tensors: Tensors, source: str) -> Numbers:
    """The inverse, whichever layout the tensors have; torchvision's names for its own network are known too.

    Raises UsageError naming `source` and the first tensor that is missing, unknown, or of another shape.
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
        turned = weight.reshape(out, columns, *rest).swapaxes(0, 1) if _summed(shape) else weight
        kernel = np.ascontiguousarray(turned).reshape(shape.kernel)
        parameters[shape.spec.name] = {"kernel": kernel, "bias": found[f"{shape.spec.name}.bias"].reshape(shape.bias)}
    return parameters


def flip_channels(table: Table, parameters: Numbers) -> Numbers:
    """The same network for images whose channels stand in the opposite order: RGB for BGR."""
    first = table.layers[0].name
    kernel = np.ascontiguousarray(parameters[first]["kernel"][:, :, ::-1])
    return parameters | {first: parameters[first] | {"kernel": kernel}}


def classes(table: Table, tensors: Tensors) -> int:
    """Rows of the last layer in a file, or those of the table where the file has no such layer."""
    last = table.layers[-1].name
    bias = _with_our_names(table, tensors).get(f"{last}.bias")
    return table.classes if bias is None else bias.size


def _from_columns(table: Table, tensors: Tensors, source: str) -> Numbers:
    both = {shape.spec.name: {"kernel": shape.kernel, "bias": shape.bias} for shape in shapes(table)}
    expected = {f"{layer}.{kind}": shape for layer, kinds in both.items() for kind, shape in kinds.items()}
    found = _checked(table, tensors, expected, source)
    return {layer: {kind: found[f"{layer}.{kind}"] for kind in kinds} for layer, kinds in both.items()}


def _summed(shape: LayerShape) -> bool:
    return shape.spec.crossing == "sum"


def _turned(shape: LayerShape, kernel: np.ndarray) -> np.ndarray:
    """Of a layer that sums over columns: [columns, out, in] to [out, columns, in]."""
    return kernel.swapaxes(0, 1) if _summed(shape) else kernel


def _grouped(shape: LayerShape) -> tuple[int, ...]:
    columns, out, *rest = shape.kernel
    return (out, columns * rest[0]) if _summed(shape) else (columns * out, *rest)


def _check_groups(table: Table, shape: LayerShape) -> None:
    spec = shape.spec
    local = isinstance(spec, Conv) and spec.local
    apart = not isinstance(spec, Conv) and spec.crossing is None and table.columns > 1
    if local or apart:
        what = "weights of its own for every pixel" if local else "a matrix for each column's own inputs"
        raise UsageError(
            f"{table.name}: {spec.name} has {what}, which the grouped layout lacks; --layout=columns has it."
        )


def _foreign_name(table: Table, layer: str) -> str:
    return NAMES.get(table.name, {}).get(layer, layer)


def _with_our_names(table: Table, tensors: Tensors) -> Tensors:
    ours = {foreign: layer for layer, foreign in NAMES.get(table.name, {}).items()}
    parts = {name: name.rpartition(".") for name in tensors}
    return {f"{ours.get(layer, layer)}.{kind}": tensors[name] for name, (layer, _, kind) in parts.items()}


def _checked(table: Table, tensors: Tensors, expected: dict[str, tuple[int, ...]], source: str) -> Tensors:
    """The tensors in the shapes expected. Axes of one element do not count: Caffe's old files have [1, 1, out, in]."""
    _check_names(table, tensors, expected, source)
    for name, shape in expected.items():
        if _long(tensors[name].shape) != _long(shape):
            raise UsageError(
                f"{source}: {name} is {list(tensors[name].shape)}; {table.name} expects {list(shape)}. Give the weights of "
                "this network, or another --exp or --network.*."
            )
    return {name: tensors[name].reshape(shape) for name, shape in expected.items()}


def _check_names(table: Table, tensors: Tensors, expected: Iterable[str], source: str) -> None:
    missing, unknown = [name for name in expected if name not in tensors], sorted(set(tensors) - set(expected))
    if missing or unknown:
        listed = f"{'lacks' if missing else 'has'} {', '.join((missing or unknown)[:4])}"
        other = f" and has {', '.join(unknown[:4])}" if missing and unknown else ""
        expects = "" if missing else f", which {table.name} does not know"
        raise UsageError(f"{source} {listed}{other}{expects}. Expected the weights of {table.name} (docs/weights.md).")


def _long(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)
