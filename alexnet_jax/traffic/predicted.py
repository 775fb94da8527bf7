"""Communication and computation of a training step, predicted from a table of layers for any number of devices, without jax.

A `Partition` divides the batch into `data` shares and the work on each share over `column` devices, in one of three ways:

    columns   one or more columns on each device; all of them on each is data parallelism (columns.py)
    hybrid    convolutions by images, fully connected layers by units, over the same devices (hybrid.py)
    model     every layer by maps or units, each device gathering the complete input of a layer (predicted only)

The program implements the first two. `traced.py` counts their collectives in the traced step; the tests require equality.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexnet_jax.errors import UsageError
from alexnet_jax.network.table import Conv, Layer, LayerShape, Table, normalizations, shapes
from alexnet_jax.traffic.moves import Direction, Kind, Move

WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes per activation, by `--train.precision`."""

WIDE = 4
"""Bytes per parameter, per gradient of a parameter and per partial sum of fc8, with either precision."""


@dataclass(frozen=True)
class Partition:
    """A division of a training step over devices."""

    kind: Literal["columns", "hybrid", "model"]
    data: int = 1  # shares of the batch; all devices for hybrid
    column: int = 1  # devices per share
    slices: int = 1  # hybrid: parts in which the images of a share are gathered (`--mesh.scheme=slices`)

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self.data * self.column


@dataclass(frozen=True)
class Work:
    """Multiplications and additions of one layer in one step, on the device with the most."""

    layer: str
    forward: float
    backward: float
    fully_connected: bool

    @property
    def operations(self) -> float:
        """The sum of forward and backward operations."""
        return self.forward + self.backward


def moves(table: Table, partition: Partition, batch: int, precision: str = "float32") -> list[Move]:
    """Return the collectives of one step on `batch` images, counted over all devices.

    Raises UsageError if the batch or the columns do not divide evenly over the devices.
    """
    images = _images(partition, batch)
    layer_moves = {"columns": _columns, "hybrid": _hybrid, "model": _model}[partition.kind]
    found, before = [], None
    for shape in shapes(table):
        found += layer_moves(table, partition, _LayerMoves(shape, images, WIDTH[precision]), before)
        before = shape.spec
    # The loss and the error, averaged over the shares of the batch.
    return [*found, Move("loss", "forward", "psum", 2 * WIDE, partition.data)]


def work(table: Table, partition: Partition, batch: int) -> list[Work]:
    """Return the operations of each layer on the device with the most. Raises UsageError if the batch does not divide.

    The backward pass takes twice the operations of the forward pass; in the first layer as many, since images need no gradient.
    """
    images, found = _images(partition, batch), []
    for i, shape in enumerate(shapes(table)):
        forward = shape.operations * images * _share_of(shape, partition)
        found.append(Work(shape.spec.name, forward, (2 if i else 1) * forward, not isinstance(shape.spec, Conv)))
    return found


def held(table: Table, partition: Partition) -> int:
    """Return the number of parameters on the device with the most; training needs a velocity and a gradient for each."""

    def parts(shape: LayerShape) -> int:
        if partition.kind != "hybrid":
            return partition.column
        return 1 if isinstance(shape.spec, Conv) else partition.data

    return sum(sum(_own(shape, parts(shape))) for shape in shapes(table))


def _images(partition: Partition, batch: int) -> int:
    if batch % (partition.data * partition.slices):
        raise UsageError(
            f"--train.batch={batch}: expected a multiple of {partition.data * partition.slices}, the {partition.data} shares"
            f"{f' of {partition.slices} slices each' if partition.slices > 1 else ''}."
        )
    return batch // partition.data


def _share_of(shape: LayerShape, partition: Partition) -> float:
    """Return the fraction of a layer's operations on its share of images that the device with the most computes."""
    if partition.kind != "model":
        return 1 / partition.column
    columns, out, inputs = shape.kernel[:3]
    parts = inputs * columns if shape.spec.crossing == "sum" else out * columns
    return -(-parts // partition.column) / parts


@dataclass(frozen=True)
class _LayerMoves:
    """Builds the moves of one layer."""

    shape: LayerShape
    images: int  # per share of the batch
    width: int  # bytes per activation

    def move(self, direction: Direction, kind: Kind, numbers: int, devices: int, width: int = 0) -> Move:
        """Return a move of `numbers` values per image, each of `width` bytes if they are no activations."""
        return Move(self.shape.spec.name, direction, kind, numbers * self.images * (width or self.width), devices)

    def exchange_inputs(
        self, kinds: tuple[Kind, Kind], devices: int, times: int = 1, back: bool = True
    ) -> Iterator[Move]:
        """Move the layer's complete input for `times` shares of images, and backward the gradient of that input."""
        numbers = math.prod(self.shape.inputs) * times
        yield self.move("forward", kinds[0], numbers, devices)
        if back:
            yield self.move("backward", kinds[1], numbers, devices)

    def borders(self, maps: int, seen: tuple[int, ...], devices: int, rows: int = 1) -> Iterator[Move]:
        """Move `maps` maps to both neighbours in `rows` rows of devices and their gradients back; seen: [maps, height, width]."""
        size = maps * math.prod(seen[1:]) * self.images * self.width
        for direction in ("forward", "forward", "backward", "backward"):
            yield Move(self.shape.spec.name, direction, "ppermute", size, devices, pairs=devices - rows)

    def update(self, devices: int, parts: int = 1) -> Iterator[Move]:
        """Sum the gradients of a device's part of kernel and bias over the shares of the batch."""
        for numbers in _own(self.shape, parts):
            yield Move(self.shape.spec.name, "backward", "psum", numbers * WIDE, devices, update=True)


def _own(shape: LayerShape, parts: int) -> tuple[int, int]:
    """Return the sizes of the largest parts of a kernel and a bias. A bias added after a sum is not divided."""
    bias_parts = 1 if shape.spec.crossing == "sum" else parts
    return -(-math.prod(shape.kernel) // parts), -(-math.prod(shape.bias) // bias_parts)


GATHERED: tuple[Kind, Kind] = ("all_gather", "reduce_scatter")
EXCHANGED: tuple[Kind, Kind] = ("all_to_all", "all_to_all")


def _columns(table: Table, partition: Partition, layer: _LayerMoves, before: Layer | None) -> Iterator[Move]:
    shape, column = layer.shape, partition.column
    if table.columns % column:
        raise UsageError(f"--mesh.column={column}: expected a divisor of the {table.columns} columns of {table.name}.")
    if shape.spec.crossing == "gather":
        yield from layer.exchange_inputs(GATHERED, column)
    elif before is not None and before.crossing == "sum":  # each column has a part of the gradient of the common input
        yield layer.move("backward", "psum", math.prod(shape.inputs), column, WIDE)
    if shape.spec.crossing == "sum":
        yield layer.move("forward", "psum", shape.convolved[0], column, WIDE)
    for part, seen in normalizations(shape.spec, shape.convolved):
        if part.across:
            yield from layer.borders(part.size // 2, seen, column)
    yield from layer.update(partition.data, column)


def _hybrid(table: Table, partition: Partition, layer: _LayerMoves, before: Layer | None) -> Iterator[Move]:
    shape, devices = layer.shape, partition.data
    if isinstance(shape.spec, Conv):
        yield from layer.update(devices)
        return
    by_images = before is None or isinstance(before, Conv) or before.crossing == "sum"
    summed = shape.spec.crossing == "sum"
    slices = [_LayerMoves(shape, layer.images // partition.slices, layer.width)] * partition.slices
    for part in slices:
        if not summed:
            yield from part.exchange_inputs(GATHERED, devices, devices, back=before is not None)
        elif by_images:
            yield from part.exchange_inputs(EXCHANGED, devices, back=before is not None)
        if summed:
            numbers = shape.convolved[0] * devices
            yield part.move("forward", "reduce_scatter", numbers, devices, WIDE)
            yield part.move("backward", "all_gather", numbers, devices, WIDE)
    if summed:  # each device adds the bias to the sums of its own images
        yield Move(shape.spec.name, "backward", "psum", math.prod(shape.bias) * WIDE, devices, update=True)


def _model(table: Table, partition: Partition, layer: _LayerMoves, before: Layer | None) -> Iterator[Move]:
    """Divide each column's maps and units over column / columns devices; without a crossing a layer reads those only."""
    shape, devices = layer.shape, partition.column
    if devices % table.columns:
        raise UsageError(f"{devices} devices: expected a multiple of the {table.columns} columns of {table.name}.")
    own = devices // table.columns
    if shape.spec.crossing == "sum":
        yield layer.move("forward", "psum", shape.convolved[0], devices, WIDE)
    elif before is not None and before.crossing == "sum":
        yield layer.move("backward", "psum", math.prod(shape.inputs), devices, WIDE)
    elif before is not None:
        yield from layer.exchange_inputs(GATHERED, devices if shape.spec.crossing == "gather" else own)
    for part, seen in normalizations(shape.spec, shape.convolved):
        yield from layer.borders(part.size // 2, seen, devices, 1 if part.across else table.columns)
    yield from layer.update(partition.data, devices)
