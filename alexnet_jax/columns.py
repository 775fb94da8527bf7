"""THE split: where the two columns live and the only places where they communicate (section 3.2 of the paper).

    device mesh            axis 'column' ->
    axis 'data'    [ column 0 | column 1 ]   first share of the batch
        |          [ column 0 | column 1 ]   second share
        v

Every parameter has a leading axis [columns, ...], sharded over the mesh axis 'column'; every batch is sharded over 'data'.
The network runs inside one `jax.shard_map`, so each device sees only its own columns and its own images, and nothing moves
between devices except through the functions below: `gather` before conv3, fc6 and fc7, `sum_columns` after fc8,
`mean_over_data` around the loss, and, in Caffe's network alone, `bordered` around its normalization. A device that holds
both columns computes both. Only this file and `hybrid.py`, the placement of "One weird trick", name a mesh axis.
"""

from dataclasses import dataclass
from typing import Self, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers
from alexnet_jax.network.placement import Masks, Parameters, Placement
from alexnet_jax.network.table import LRN, Layer, Table, shapes

DATA, COLUMN = "data", "column"

WHOLE = P()
"""Replicated on every device: the bias of fc8, a data set, the loss."""
COLUMNS = P(COLUMN)
"""[columns, ...]: parameters."""
BATCH_FIRST = P(DATA)
"""[batch, ...]: labels and images as a data set provides them."""
BATCH_LAST = P(None, None, None, DATA)
"""[channels, height, width, batch]: images inside the network."""
LOGITS = P(None, DATA)
"""[classes, batch]."""
MASKS = P(COLUMN, None, DATA)
"""[columns, units, batch]: dropout masks."""


# --- the mesh --------------------------------------------------------------------------------------------------------


def mesh_shape(devices: int, columns: int, data: int | None = None, column: int | None = None) -> tuple[int, int]:
    """Return (data, column), choosing what is None: all devices, columns first. Raise UsageError if devices are lacking."""
    if column is None:
        column = columns if devices >= columns * (data or 1) else 1
    if data is None:
        data = max(1, devices // column)
    if data * column > devices:
        raise UsageError(
            f"--mesh.data={data} --mesh.column={column} needs {data * column} devices, but there "
            f"{'is' if devices == 1 else 'are'} {devices}. Ask for fewer; on a CPU give both options, before jax is started."
        )
    return data, column


def make_mesh(data: int = 1, column: int = 1) -> Mesh:
    """Return a mesh over the first data * column devices. Raise UsageError when there are fewer."""
    available = jax.devices()
    mesh_shape(len(available), column, data, column)
    return jax.make_mesh((data, column), (DATA, COLUMN), (AxisType.Auto,) * 2, devices=available[: data * column])


def abstract_mesh(data: int = 1, column: int = 1) -> Mesh:
    """Return the same mesh without devices: a program can be traced on it, though not run."""
    return cast(Mesh, AbstractMesh((data, column), (DATA, COLUMN), axis_types=(AxisType.Auto,) * 2))


@dataclass(frozen=True)
class Columns(Placement):
    """The paper's placement: each device holds one column or all of them, and a share of the batch."""

    @classmethod
    def over(cls, data: int = 1, column: int = 1) -> Self:
        """Return this placement on the first data * column devices. Raise UsageError when there are fewer."""
        return cls(make_mesh(data, column))

    @property
    def replicas(self) -> int:
        """Number of shares into which a batch is divided."""
        return self.mesh.shape[DATA]

    def check_fits(self, table: Table) -> None:
        """Raise UsageError unless the columns divide over the devices of a row."""
        devices, number = self.mesh.shape[COLUMN], table.columns
        if number % devices:
            plural = "" if number == 1 else "s"
            raise UsageError(
                f"A network of {number} column{plural} does not divide over {devices} devices. Use make_mesh(data, column) "
                f"with column={' or '.join(str(n) for n in range(1, number + 1) if number % n == 0)}."
            )

    def parameter_specs(self, table: Table) -> dict[str, dict[str, P]]:
        """Return {layer: {'kernel', 'bias'}}: all are sharded by column except a bias that follows a sum."""
        return {s.name: {"kernel": COLUMNS, "bias": WHOLE if s.crossing == "sum" else COLUMNS} for s in table.layers}

    def mask_specs(self, table: Table) -> dict[str, P]:
        """Return {layer: spec}: a mask is sharded as its layer's units."""
        return {spec.name: MASKS for spec in table.layers}

    def output_spec(self, table: Table) -> P:
        """Return the spec of the result of `forward`."""
        *_, last = shapes(table)
        return LOGITS if last.spec.crossing == "sum" else P(COLUMN, *(None for _ in last.outputs), DATA)

    def forward(self, table: Table, parameters: Parameters, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Return logits [classes, batch]; an activation is [own columns, maps, height, width, batch] between crossings."""
        h, shared = images, True  # shared: h is one input that all columns read, not one for each
        for spec in table.layers:
            with jax.named_scope(spec.name):
                if spec.crossing == "gather":
                    h, shared = gather(h), True
                elif shared:
                    h = for_each_column(h)
                mask = masks.get(spec.name) if masks is not None else None
                h = own_columns(spec, parameters[spec.name], h.astype(images.dtype), shared, mask)
                shared = spec.crossing == "sum"
        return h


# --- the crossings ---------------------------------------------------------------------------------------------------


def gather(h: jax.Array) -> jax.Array:
    """Concatenate all columns' maps: [own columns, maps, ...] -> [all columns * maps, ...].

    Its transpose is a reduce-scatter: each column receives the gradient of its own maps, summed over all columns.
    """
    h = lax.all_gather(h, COLUMN, axis=0, tiled=True)
    return h.reshape(-1, *h.shape[2:])


def sum_columns(partial: jax.Array) -> jax.Array:
    """Sum over all columns: [own columns, units, batch] -> [units, batch]. Backward needs no communication."""
    return lax.psum(partial.sum(0), COLUMN)


def bordered(h: jax.Array, reach: int) -> jax.Array:
    """Add the nearest maps of both neighbours, or zeros: [own columns, maps, ...] -> [own columns, reach + maps + reach, ...]."""
    forth = [(device, device + 1) for device in range(lax.axis_size(COLUMN) - 1)]
    back = [(after, before) for before, after in forth]
    first, last = h[:, :reach], h[:, -reach:]
    before = jnp.concatenate([lax.ppermute(last[-1:], COLUMN, forth), last[:-1]])
    after = jnp.concatenate([first[1:], lax.ppermute(first[:1], COLUMN, back)])
    return jnp.concatenate([before, h, after], axis=1)


def for_each_share(parameter: jax.Array) -> jax.Array:
    """Cast a parameter for use on a share of the batch; the transpose sums the gradients of all shares.

    Without it jax all-reduces the gradients of Winograd's transformed kernels, which have nearly twice as many numbers.
    """
    return lax.pcast(parameter, DATA, to="varying")


def for_each_column(shared: jax.Array) -> jax.Array:
    """Cast an input for use by every column's own kernels; the transpose sums the gradients of all columns."""
    return lax.pcast(shared, COLUMN, to="varying")


def mean_over_data(x: jax.Array) -> jax.Array:
    """Return the mean over the shares of the batch. Differentiate this mean: gradients of the local ones would be summed."""
    return lax.pmean(x, DATA)


def own_columns(
    spec: Layer, parameters: dict[str, jax.Array], h: jax.Array, shared: bool, mask: jax.Array | None
) -> jax.Array:
    """Compute one layer on this device's columns: [own columns, out, ..., batch], or [out, batch] after a sum over columns.

    h: [in, ..., batch] if shared, else [own columns, in, ..., batch]. Kernels are cast to its type, bfloat16 or wider;
    biases and sums have at least 32 bits: the gradient of a bias is a sum over all pixels of all images, too long for 16.
    """
    kernel, bias = for_each_share(parameters["kernel"]).astype(h.dtype), for_each_share(parameters["bias"])
    sums = layers.widened(layers.linear_columns(spec, h, kernel, shared))
    if spec.crossing == "sum":
        sums = sum_columns(sums)
    sums += bias.reshape(*bias.shape, *(1,) * (sums.ndim - bias.ndim))
    if spec.crossing != "sum":
        sums = sums.astype(h.dtype)
    return apply_parts(spec, sums, mask)


def apply_parts(spec: Layer, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Apply what follows the sums of a layer, in the order of its table."""
    for part in spec.after:
        if isinstance(part, LRN) and part.across:
            reach = part.size // 2
            normalized: jax.Array = layers.lrn(bordered(x, reach), part)
            x = normalized[:, reach:-reach]
        else:
            x = layers.apply_part(part, x, mask)
    return x
