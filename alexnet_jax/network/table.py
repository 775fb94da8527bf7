"""Networks as tables of layer specs, with their shapes and counts, which need no computation.

A network is a `Table`: frozen layer specs, in the order of figure 2 of the paper. A spec states what one layer computes,
what it receives from the other column (`crossing`) and which parts follow its sums, in order (`after`).
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ReLU:
    """max(x, 0), section 3.1 of the paper."""


@dataclass(frozen=True)
class Tanh:
    """tanh(x), with which section 3.1 of the paper compares ReLU."""


@dataclass(frozen=True)
class LRN:
    """Local response normalization across neighbouring maps of a column, section 3.3: x / (k + alpha * sum x^2)^beta.

    across: windows at the edge of a column extend into the next one, as in programs that hold all maps on one device.
    """

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    across: bool = False


@dataclass(frozen=True)
class MapNorm:
    """The original program's normalization within each map, over size x size windows; constants of its net 145."""

    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 25
    beta: float = 0.75


@dataclass(frozen=True)
class MaxPool:
    """Maximum over window x window every stride pixels, section 3.4; the last window may overhang the edge (ceil mode)."""

    window: int = 3
    stride: int = 2


@dataclass(frozen=True)
class AvgPool:
    """Mean over window x window every stride pixels, in ceil mode; a window divides by the number of its pixels inside."""

    window: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Dropout:
    """Section 4.2: units are zeroed with this probability in training; outputs are scaled by 1 - probability at test.

    inverted: instead, outputs kept in training are divided by it, as in Caffe, PyTorch and most libraries.
    """

    probability: float = 0.5
    inverted: bool = False


Pool = MaxPool | AvgPool
Part = ReLU | Tanh | LRN | MapNorm | Pool | Dropout


@dataclass(frozen=True)
class Conv:
    """A convolutional layer. `maps` counts all columns; without a crossing, a column sees only its own input maps.

    local: every output pixel has a kernel and a bias of its own (the original program's "local" layers). weight_std: standard
    deviation of the initial weights, or He's. bias: initial value. rate, decay: see `Dense`.
    """

    name: str
    maps: int
    kernel: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # rows (above, below); columns (left, right) alike
    crossing: Literal["gather"] | None = None
    weight_std: float | Literal["he"] = 0.01
    bias: float = 0.0
    after: tuple[Part, ...] = (ReLU(),)
    local: bool = False
    rate: float = 1.0
    decay: float | None = None


@dataclass(frozen=True)
class Dense:
    """A fully connected layer. `units` counts all columns.

    crossing: with `gather` each column computes its units from all inputs; with `sum` every column computes all units from
    its own inputs, and the results are summed. rate: factor on the learning rate of the layer (except of biases that have a
    learning rate of their own). decay: weight decay of its weights, instead of the optimizer's.
    """

    name: str
    units: int
    crossing: Literal["gather", "sum"] | None = None
    weight_std: float | Literal["he"] = 0.01
    bias: float = 0.0
    after: tuple[Part, ...] = ()
    rate: float = 1.0
    decay: float | None = None


Layer = Conv | Dense


@dataclass(frozen=True)
class Table:
    """A network: its input images, number of columns and layers. The last layer of a classifier sums over the columns."""

    name: str
    image: tuple[int, int, int]  # height, width, channels
    columns: int
    layers: tuple[Layer, ...]

    @property
    def classes(self) -> int:
        """Number of outputs of the last layer."""
        last = self.layers[-1]
        return last.units if isinstance(last, Dense) else last.maps

    def until(self, layer: str) -> "Table":
        """Return the network up to and including the layer of this name. Raise ValueError if there is none."""
        names = [spec.name for spec in self.layers]
        return dataclasses.replace(self, layers=self.layers[: names.index(layer) + 1])


@dataclass(frozen=True)
class LayerShape:
    """A layer's shapes and counts. Activation shapes are per column and per image; counts are over all columns."""

    spec: Layer
    inputs: tuple[int, ...]  # of one column's kernels: [maps, height, width], or [units]
    convolved: tuple[int, ...]  # before `after`
    outputs: tuple[int, ...]  # after it
    kernel: tuple[int, ...]  # [columns, out, in, kh, kw] or [columns, out, in]; a local layer's ends with height, width
    bias: tuple[int, ...]  # [columns, out]; [out] after a sum over columns; [columns, out, height, width] if local
    received: int  # numbers that a column receives from the others, per image

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return math.prod(self.kernel) + math.prod(self.bias)

    @property
    def operations(self) -> int:
        """Number of multiplications and additions in the forward pass of one image, without biases."""
        local = isinstance(self.spec, Conv) and self.spec.local
        positions = 1 if local else math.prod(self.convolved[1:])
        return 2 * math.prod(self.kernel) * positions

    @property
    def fan_in(self) -> int:
        """Number of inputs of one unit."""
        summed = self.kernel[0] if self.spec.crossing == "sum" else 1
        return math.prod(self.kernel[2:5]) * summed


def pooled(size: int, part: Pool) -> int:
    """Return the output size of pooling in ceil mode: the windows reach the last pixel, and every window starts inside."""
    reaching = max(0, -(-(size - part.window) // part.stride)) + 1
    starting = -(-size // part.stride)  # fewer than `reaching` only where the stride is larger than the window
    return min(reaching, starting)


def shapes(table: Table) -> Iterator[LayerShape]:
    """Yield the shapes of each layer. Raise ValueError naming the first layer that does not fit."""
    height, width, channels = table.image
    seen, shared = (channels, height, width), True  # `shared`: every column sees the same input, as at the image
    for spec in table.layers:
        shape = _layer_shape(table, spec, seen, shared)
        seen, shared = shape.outputs, spec.crossing == "sum"
        yield shape


def _layer_shape(table: Table, spec: Layer, seen: tuple[int, ...], shared: bool) -> LayerShape:
    columns = table.columns
    width = spec.maps if isinstance(spec, Conv) else spec.units
    if spec.crossing == "gather" and shared:
        raise ValueError(f"{spec.name}: nothing to gather, every column already sees the same input")
    gathered = columns if spec.crossing == "gather" else 1
    received = math.prod(seen) * (gathered - 1)
    inputs = (seen[0] * gathered, *seen[1:])
    if width < 1:
        raise ValueError(f"{spec.name}: {width} outputs; expected at least 1")
    if spec.crossing == "sum":
        received = width * (columns - 1)
        kernel, bias, convolved = (columns, width, math.prod(inputs)), (width,), (width,)
        return LayerShape(spec, (math.prod(inputs),), convolved, _after(spec, convolved), kernel, bias, received)
    if width % columns:
        raise ValueError(f"{spec.name}: {width} outputs do not divide into {columns} columns")
    own = width // columns
    if isinstance(spec, Dense):
        inputs = (math.prod(inputs),)
        kernel, convolved, bias = (columns, own, *inputs), (own,), (columns, own)
    else:
        kernel = (columns, own, inputs[0], spec.kernel, spec.kernel)
        convolved = (own, *((n + sum(spec.padding) - spec.kernel) // spec.stride + 1 for n in inputs[1:]))
        if min(convolved) < 1:
            raise ValueError(
                f"{spec.name}: its {spec.kernel}x{spec.kernel} kernel does not fit into {inputs[1:]} pixels"
            )
        bias = (columns, own)
        if spec.local:
            kernel, bias = kernel + convolved[1:], bias + convolved[1:]
    received += _bordering(table, spec, convolved)
    return LayerShape(spec, inputs, convolved, _after(spec, convolved), kernel, bias, received)


def _bordering(table: Table, spec: Layer, shape: tuple[int, ...]) -> int:
    """Return how many numbers of the neighbouring columns the normalization of a column reads."""
    across = [(part, seen) for part, seen in normalizations(spec, shape) if part.across]
    return sum(min(table.columns - 1, 2) * (part.size // 2) * math.prod(seen[1:]) for part, seen in across)


def normalizations(spec: Layer, convolved: tuple[int, ...]) -> Iterator[tuple[LRN, tuple[int, ...]]]:
    """Yield each normalization across maps after a layer, with the shape [maps, height, width] of its input."""
    shape = convolved
    for part in spec.after:
        if isinstance(part, LRN):
            yield part, shape
        shape = _after_part(part, shape)


def _after(spec: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    for part in spec.after:
        shape = _after_part(part, shape)
    return shape


def _after_part(part: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *(pooled(n, part) for n in shape[1:])) if isinstance(part, Pool) else shape


def parameter_count(table: Table) -> int:
    """Return the number of weights and biases of a network."""
    return sum(shape.parameters for shape in shapes(table))


def training_operations(table: Table) -> int:
    """Return the number of multiplications and additions of one image in a training step.

    The backward pass takes twice the operations of the forward pass; in the first layer as many, since images need no gradient.
    """
    first, *_ = shapes(table)
    return 3 * operation_count(table) - first.operations


def operation_count(table: Table) -> int:
    """Return the number of multiplications and additions in the forward pass of one image."""
    return sum(shape.operations for shape in shapes(table))
