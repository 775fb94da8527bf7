"""What a training step moves and computes, read off a table: for any number of devices, with none at hand, without jax.

Three placements of a network (`Partition`), each over `data` shares of the batch times `column` devices for each share:

    columns   a column on each device, or all columns on each (data parallel): columns.py
    hybrid    convolutions by images, fully connected layers by units, over the same devices: hybrid.py
    model     every layer by maps or units over all devices of a share, each gathering its whole input: on paper only

The first two are what the program does, collective by collective: `traced.py` counts those, and the tests hold them equal.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexnet_jax.errors import UsageError
from alexnet_jax.network.table import Conv, Layer, LayerShape, Table, normalizations, shapes
from alexnet_jax.traffic.moves import Direction, Kind, Move

WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes of an activation; parameters, their gradients and sums over devices after fc8 have four with both."""

WIDE = 4


@dataclass(frozen=True)
class Partition:
    """Where a network lives. Of hybrid `data` counts all devices, and `slices` says in how many parts a share is gathered."""

    kind: Literal["columns", "hybrid", "model"]
    data: int = 1
    column: int = 1
    slices: int = 1

    @property
    def devices(self) -> int:
        """How many there are in all."""
        return self.data * self.column


@dataclass(frozen=True)
class Work:
    """One layer on the busiest device: multiplications and additions of one step."""

    layer: str
    forward: float
    backward: float
    fully_connected: bool

    @property
    def operations(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


def moves(table: Table, partition: Partition, batch: int, precision: str = "float32") -> list[Move]:
    """Every collective of one step on `batch` images over all devices.

    Raises UsageError where batch or columns do not divide over the devices.
    """
    images = _images(partition, batch)
    layout = {"columns": _columns, "hybrid": _hybrid, "model": _model}[partition.kind]
    found, before = [], None
    for shape in shapes(table):
        found += layout(table, partition, _Scribe(shape, images, WIDTH[precision]), before)
        before = shape.spec
    # The mean of loss and error over the shares of the batch, two numbers.
    return [*found, Move("loss", "forward", "psum", 2 * WIDE, partition.data)]


def work(table: Table, partition: Partition, batch: int) -> list[Work]:
    """Operations of each layer on the busiest device. Backward is twice forward, but the images need no gradient."""
    images, found = _images(partition, batch), []
    for i, shape in enumerate(shapes(table)):
        forward = shape.operations * images * _share_of(shape, partition)
        found.append(Work(shape.spec.name, forward, (2 if i else 1) * forward, not isinstance(shape.spec, Conv)))
    return found


def held(table: Table, partition: Partition) -> int:
    """Parameters on the busiest device; training keeps a velocity beside each, and for a moment a gradient."""

    def parts(shape: LayerShape) -> int:
        if partition.kind != "hybrid":
            return partition.column
        return 1 if isinstance(shape.spec, Conv) else partition.data

    return sum(sum(_own(shape, parts(shape))) for shape in shapes(table))


def _images(partition: Partition, batch: int) -> int:
    if batch % (partition.data * partition.slices):
        raise UsageError(
            f"--train.batch={batch}: expected a multiple of {partition.data * partition.slices}, for {partition.data} shares"
            f"{f' in {partition.slices} slices each' if partition.slices > 1 else ''}."
        )
    return batch // partition.data


def _share_of(shape: LayerShape, partition: Partition) -> float:
    """Part of a layer that the busiest device of a share computes for the images of that share."""
    if partition.kind != "model":
        return 1 / partition.column
    columns, out, inputs = shape.kernel[:3]
    parts = inputs * columns if shape.spec.crossing == "sum" else out * columns
    return -(-parts // partition.column) / parts


@dataclass(frozen=True)
class _Scribe:
    """Writes the moves of one layer down. Sizes are per image of a share, or of the parameters."""

    shape: LayerShape
    images: int
    width: int

    def __call__(self, direction: Direction, kind: Kind, numbers: int, devices: int, width: int = 0) -> Move:
        return Move(self.shape.spec.name, direction, kind, numbers * self.images * (width or self.width), devices)

    def there_and_back(
        self, kinds: tuple[Kind, Kind], devices: int, times: int = 1, back: bool = True
    ) -> Iterator[Move]:
        """The whole input of the layer for `times` shares of images, and backward its gradient to where it came from."""
        numbers = math.prod(self.shape.inputs) * times
        yield self("forward", kinds[0], numbers, devices)
        if back:
            yield self("backward", kinds[1], numbers, devices)

    def borders(self, maps: int, seen: tuple[int, ...], devices: int, rows: int = 1) -> Iterator[Move]:
        """`maps` of the maps [maps, height, width] to each neighbour in `rows` rows of devices, and their gradients home."""
        whole = maps * math.prod(seen[1:]) * self.images * self.width
        for direction in ("forward", "forward", "backward", "backward"):
            yield Move(self.shape.spec.name, direction, "ppermute", whole, devices, pairs=devices - rows)

    def update(self, devices: int, parts: int = 1) -> Iterator[Move]:
        """The gradients of a device's part of kernel and bias, added up over the shares of the batch."""
        for numbers in _own(self.shape, parts):
            yield Move(self.shape.spec.name, "backward", "psum", numbers * WIDE, devices, update=True)


def _own(shape: LayerShape, parts: int) -> tuple[int, int]:
    """Of a kernel and a bias cut in so many parts, what the busiest device has; a bias after a sum is whole on each."""
    bias_parts = 1 if shape.spec.crossing == "sum" else parts
    return -(-math.prod(shape.kernel) // parts), -(-math.prod(shape.bias) // bias_parts)


GATHERED: tuple[Kind, Kind] = ("all_gather", "reduce_scatter")
DEALT: tuple[Kind, Kind] = ("all_to_all", "all_to_all")


def _columns(table: Table, partition: Partition, scribe: _Scribe, before: Layer | None) -> Iterator[Move]:
    shape, column = scribe.shape, partition.column
    if table.columns % column:
        raise UsageError(f"--mesh.column={column}: expected a divisor of the {table.columns} columns of {table.name}.")
    if shape.spec.crossing == "gather":
        yield from scribe.there_and_back(GATHERED, column)
    elif before is not None and before.crossing == "sum":  # every column adds to the gradient of what they all saw
        yield scribe("backward", "psum", math.prod(shape.inputs), column, WIDE)
    if shape.spec.crossing == "sum":
        yield scribe("forward", "psum", shape.convolved[0], column, WIDE)
    for part, seen in normalizations(shape.spec, shape.convolved):
        if part.across:
            yield from scribe.borders(part.size // 2, seen, column)
    yield from scribe.update(partition.data, column)


def _hybrid(table: Table, partition: Partition, scribe: _Scribe, before: Layer | None) -> Iterator[Move]:
    shape, devices = scribe.shape, partition.data
    if isinstance(shape.spec, Conv):
        yield from scribe.update(devices)
        return
    by_images = before is None or isinstance(before, Conv) or before.crossing == "sum"
    summed = shape.spec.crossing == "sum"
    slices = [_Scribe(shape, scribe.images // partition.slices, scribe.width)] * partition.slices
    for part in slices:
        if not summed:
            yield from part.there_and_back(GATHERED, devices, devices, back=before is not None)
        elif by_images:
            yield from part.there_and_back(DEALT, devices, back=before is not None)
        if summed:
            numbers = shape.convolved[0] * devices
            yield part("forward", "reduce_scatter", numbers, devices, WIDE)
            yield part("backward", "all_gather", numbers, devices, WIDE)
    if summed:  # its bias is added to the sums, where each device has its own images again
        yield Move(shape.spec.name, "backward", "psum", math.prod(shape.bias) * WIDE, devices, update=True)


def _model(table: Table, partition: Partition, scribe: _Scribe, before: Layer | None) -> Iterator[Move]:
    """Each column's maps and units over column / columns devices; a layer without a crossing hears those alone."""
    shape, devices = scribe.shape, partition.column
    if devices % table.columns:
        raise UsageError(f"{devices} devices: expected a multiple of the {table.columns} columns of {table.name}.")
    own = devices // table.columns
    if shape.spec.crossing == "sum":
        yield scribe("forward", "psum", shape.convolved[0], devices, WIDE)
    elif before is not None and before.crossing == "sum":
        yield scribe("backward", "psum", math.prod(shape.inputs), devices, WIDE)
    elif before is not None:
        yield from scribe.there_and_back(GATHERED, devices if shape.spec.crossing == "gather" else own)
    for part, seen in normalizations(shape.spec, shape.convolved):
        yield from scribe.borders(part.size // 2, seen, devices, 1 if part.across else table.columns)
    yield from scribe.update(partition.data, devices)
