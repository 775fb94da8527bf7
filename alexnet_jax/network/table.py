"""The words a network is written in, and what can be read off a table of them without running anything.

A network is a `Table`: frozen layer specs, top to bottom as in figure 2 of the paper. A spec says what one layer computes,
what it receives from the other column (`crossing`) and what follows the sum, in order (`after`).
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
    """tanh(x), what section 3.1 of the paper compares ReLU with."""


@dataclass(frozen=True)
class LRN:
    """Local response normalization across neighbouring maps of a column, section 3.3: x / (k + alpha * sum x^2)^beta.

    across: a window at the edge of a column reaches into the next one, as in programs that hold all maps on one device.
    """

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    across: bool = False


@dataclass(frozen=True)
class MapNorm:
    """The original program's normalization within each map, over a size x size window; constants of its net 145."""

    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 25
    beta: float = 0.75


@dataclass(frozen=True)
class MaxPool:
    """Maximum over window x window every stride pixels, section 3.4; the last window may hang over the edge (ceil mode)."""

    window: int = 3
    stride: int = 2


@dataclass(frozen=True)
class AvgPool:
    """Mean over window x window every stride pixels, in ceil mode; a window over the edge divides by its pixels inside."""

    window: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Dropout:
    """Section 4.2: units are zeroed with this probability in training; outputs are scaled by 1 - probability at test.

    inverted: those kept are divided by it in training instead, as in Caffe, PyTorch and most libraries.
    """

    probability: float = 0.5
    inverted: bool = False


Pool = MaxPool | AvgPool
Part = ReLU | Tanh | LRN | MapNorm | Pool | Dropout


@dataclass(frozen=True)
class Conv:
    """A convolutional layer. `maps` counts all columns; without a crossing a column sees only its own input maps.

    local: weights are not shared, every output pixel has a kernel and a bias of its own (the original program's "local"
    layers). rate, decay: see `Dense`.
    """

    name: str
    maps: int
    kernel: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # rows above and below; the same for columns left and right
    crossing: Literal["gather"] | None = None
    weight_std: float | Literal["he"] = 0.01
    bias: float = 0.0
    after: tuple[Part, ...] = (ReLU(),)
    local: bool = False
    rate: float = 1.0
    decay: float | None = None


@dataclass(frozen=True)
class Dense:
    """A fully connected layer. `gather`: each column computes its units from all inputs. `sum`: from its own inputs, added up.

    rate: factor on the layer's learning rate (biases that have a rate of their own keep it). decay: weight decay of its
    weights, in place of the optimizer's.
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
    """A whole network: its input images, how many columns it has, and its layers, the last of which sums over the columns."""

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
        """The network up to and with the layer of this name. Raises ValueError when it has none."""
        names = [spec.name for spec in self.layers]
        return dataclasses.replace(self, layers=self.layers[: names.index(layer) + 1])


@dataclass(frozen=True)
class LayerShape:
    """What a table implies for one layer. Shapes are per column and per image; counts are over all columns."""

    spec: Layer
    inputs: tuple[int, ...]  # what one column's kernels see: [maps, height, width], or [units]
    convolved: tuple[int, ...]  # before `after`
    outputs: tuple[int, ...]  # after it
    kernel: tuple[
        int, ...
    ]  # [columns, out, in, kh, kw] or [columns, out, in]; a local layer's goes on with [height, width]
    bias: tuple[
        int, ...
    ]  # [columns, out]; [out] where the columns' results are summed; [columns, out, height, width] if local
    received: int  # numbers per image and column that come from the other columns

    @property
    def parameters(self) -> int:
        """Weights and biases over all columns."""
        return math.prod(self.kernel) + math.prod(self.bias)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the forward pass for one image, over all columns, biases left out."""
        local = isinstance(self.spec, Conv) and self.spec.local
        positions = 1 if local else math.prod(self.convolved[1:])
        return 2 * math.prod(self.kernel) * positions

    @property
    def fan_in(self) -> int:
        """Inputs of one unit."""
        summed = self.kernel[0] if self.spec.crossing == "sum" else 1
        return math.prod(self.kernel[2:5]) * summed


def pooled(size: int, part: Pool) -> int:
    """Output size of pooling in ceil mode: the windows reach the last pixel, and every window starts inside."""
    reaching = max(0, -(-(size - part.window) // part.stride)) + 1
    starting = -(-size // part.stride)  # fewer than `reaching` only where the stride is larger than the window
    return min(reaching, starting)


def shapes(table: Table) -> Iterator[LayerShape]:
    """Walk the table. Raises ValueError naming the first layer whose parts do not fit together."""
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
    """Numbers of the columns beside a column that its normalization across columns sees."""
    across = [(part, seen) for part, seen in normalizations(spec, shape) if part.across]
    return sum(min(table.columns - 1, 2) * (part.size // 2) * math.prod(seen[1:]) for part, seen in across)


def normalizations(spec: Layer, convolved: tuple[int, ...]) -> Iterator[tuple[LRN, tuple[int, ...]]]:
    """Each normalization across maps that follows a layer, with the shape [maps, height, width] of what it normalizes."""
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
    """Weights and biases of the whole network."""
    return sum(shape.parameters for shape in shapes(table))


def operation_count(table: Table) -> int:
    """Multiplications and additions of the forward pass for one image."""
    return sum(shape.operations for shape in shapes(table))
