"""THE split: where the two columns live and the only places where they talk (section 3.2 of the paper).

    device mesh            axis 'column' ->
    axis 'data'    [ column 0 | column 1 ]   first share of the batch
        |          [ column 0 | column 1 ]   second share
        v

Every parameter has a leading axis [columns, ...] that is spread over the mesh axis 'column'; every batch is spread over
'data'. The network runs inside one `jax.shard_map`, so each device sees only its own columns and its own images, and
nothing moves between devices unless a line below says so: `gather` before conv3, fc6 and fc7, `sum_columns` after fc8,
`mean_over_data` around the loss, and in Caffe's network alone `bordered` around its normalization. A device that holds both
columns loops over them. Nothing but this file, and `hybrid.py` with the placement of "One weird trick", names a mesh axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers
from alexnet_jax.network.table import LRN, AvgPool, Conv, Dropout, Layer, MapNorm, MaxPool, Part, Table, Tanh, shapes

DATA, COLUMN = "data", "column"

WHOLE = P()
"""The same on every device: the bias of fc8, the data set, numbers that leave the split."""
COLUMNS = P(COLUMN)
"""[columns, ...]: parameters."""
BATCH_FIRST = P(DATA)
"""[batch, ...]: labels and images as the world hands them over."""
BATCH_LAST = P(None, None, None, DATA)
"""[channels, height, width, batch]: images inside the split."""
LOGITS = P(None, DATA)
"""[classes, batch]."""
MASKS = P(COLUMN, None, DATA)
"""[columns, units, batch]: dropout masks."""


# --- the mesh --------------------------------------------------------------------------------------------------------


def mesh_shape(devices: int, columns: int, data: int | None = None, column: int | None = None) -> tuple[int, int]:
    """(data, column) for so many devices; what is left out is chosen: all devices, columns first.

    Raises UsageError when more devices are asked for than there are.
    """
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
    """A mesh over the first data * column devices. Raises UsageError when there are fewer."""
    available = jax.devices()
    mesh_shape(len(available), column, data, column)
    return jax.make_mesh(
        (data, column), (DATA, COLUMN), (AxisType.Auto, AxisType.Auto), devices=available[: data * column]
    )


def abstract_mesh(data: int = 1, column: int = 1) -> AbstractMesh:
    """The same mesh without devices, to trace a program for any number of them."""
    return AbstractMesh((data, column), (DATA, COLUMN), axis_types=(AxisType.Auto, AxisType.Auto))


def place(mesh: Mesh, spec: P) -> NamedSharding:
    """Where an array with this spec lives on the mesh."""
    return NamedSharding(mesh, spec)


def check_fits(mesh: Mesh, table: Table) -> None:
    """Raise UsageError unless the table's columns divide over the mesh."""
    devices, number = mesh.shape[COLUMN], table.columns
    if number % devices:
        plural = "" if number == 1 else "s"
        raise UsageError(
            f"A network of {number} column{plural} does not divide over {devices} devices. Use make_mesh(data, column) with "
            f"column={' or '.join(str(n) for n in range(1, number + 1) if number % n == 0)}."
        )


def data_replicas(mesh: Mesh) -> int:
    """How many shares a batch is cut into."""
    return mesh.shape[DATA]


def parameter_specs(table: Table) -> dict[str, dict[str, P]]:
    """{layer: {'kernel': spec, 'bias': spec}}: everything is split by column but the bias that follows a sum over columns."""
    return {
        spec.name: {"kernel": COLUMNS, "bias": WHOLE if spec.crossing == "sum" else COLUMNS} for spec in table.layers
    }


def mask_specs(table: Table) -> dict[str, P]:
    """{layer: where its dropout mask lives}."""
    return {spec.name: MASKS for spec in table.layers}


def output_spec(table: Table) -> P:
    """Of what the last layer of a table gives: [columns, maps or units, ..., batch], or LOGITS where the columns are summed."""
    *_, last = shapes(table)
    return LOGITS if last.spec.crossing == "sum" else P(COLUMN, *(None for _ in last.outputs), DATA)


def split(function: Callable, mesh: Mesh | AbstractMesh, in_specs: Any, out_specs: Any) -> Callable:
    """`function` run once per device on its own columns and its own images; everything it communicates is written out."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


# --- the crossings ---------------------------------------------------------------------------------------------------


def gather(h: jax.Array) -> jax.Array:
    """All columns' maps, one after the other: [own columns, maps, ...] -> [all columns * maps, ...].

    Maps lead, so this is a plain concatenation. Its transpose is a reduce-scatter: each column gets back the gradient of
    its own maps, summed over the columns that used them.
    """
    h = lax.all_gather(h, COLUMN, axis=0, tiled=True)
    return h.reshape(-1, *h.shape[2:])


def sum_columns(partial: jax.Array) -> jax.Array:
    """[own columns, units, batch] -> [units, batch], added up over all columns. Backward needs no communication."""
    return lax.psum(partial.sum(0), COLUMN)


def bordered(h: jax.Array, reach: int) -> jax.Array:
    """Each column's maps between the `reach` nearest of the columns beside it, zeros where there is none.

    [own columns, maps, ...] -> [own columns, reach + maps + reach, ...]. Backward each border goes home the same way.
    """
    forth = [(device, device + 1) for device in range(lax.axis_size(COLUMN) - 1)]
    back = [(after, before) for before, after in forth]
    first, last = h[:, :reach], h[:, -reach:]
    before = jnp.concatenate([lax.ppermute(last[-1:], COLUMN, forth), last[:-1]])
    after = jnp.concatenate([first[1:], lax.ppermute(first[:1], COLUMN, back)])
    return jnp.concatenate([before, h, after], axis=1)


def for_each_share(parameter: jax.Array) -> jax.Array:
    """The same values, to be used on a share of the batch. Its transpose adds the gradients of the shares up.

    Said once per parameter, or jax would say it wherever a form of convolution first mixes one with images: Winograd's
    sixteen transformed kernels, say, would be summed one by one, and they are nearly twice as many numbers.
    """
    return lax.pcast(parameter, DATA, to="varying")


def for_each_column(shared: jax.Array) -> jax.Array:
    """The same values, to be used by every column's own kernels. Its transpose adds the columns' gradients up."""
    return lax.pcast(shared, COLUMN, to="varying")


def mean_over_data(x: jax.Array) -> jax.Array:
    """Mean over the shares of the batch. It must stand INSIDE the differentiated function, or gradients come out wrong."""
    return lax.pmean(x, DATA)


# --- the forward pass ------------------------------------------------------------------------------------------------


def forward(table: Table, parameters: dict, images: jax.Array, masks: dict[str, jax.Array] | None = None) -> jax.Array:
    """Logits [classes, batch] of images [channels, height, width, batch]; runs inside `split`.

    Of a table whose last layer does not sum over the columns: what that gives, [own columns, maps or units, ..., batch].
    parameters: {layer: {'kernel': [own columns, out, in, ...], 'bias': [own columns, out]}}. masks: {layer: [own columns,
    units, batch]} in training, None at test. Between crossings an activation is [own columns, maps, height, width, batch].
    Kernels are taken in the type of the images, so bfloat16 images give bfloat16 products, and gathers of 16 bits; biases, and
    the sums over columns after fc8, have at least 32.
    """
    h, shared = images, True  # shared: one input that every column sees, rather than one per column
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


def own_columns(spec: Layer, parameters: dict, h: jax.Array, shared: bool, mask: jax.Array | None) -> jax.Array:
    """One layer on this device's columns: [own columns, out, ...], or [out, ...] where the columns are summed."""
    kernel, bias = for_each_share(parameters["kernel"]).astype(h.dtype), for_each_share(parameters["bias"])
    each = _all_see(spec, h, kernel) if shared else _each_its_own(spec, h, kernel)
    # In 32 bits, since the gradient of a bias is a sum over all pixels of all images.
    sums = layers.widened(each)
    if spec.crossing == "sum":
        sums = sum_columns(sums)
    sums += bias.reshape(*bias.shape, *(1,) * (sums.ndim - bias.ndim))
    if spec.crossing != "sum":
        sums = sums.astype(h.dtype)
    return apply_parts(spec, sums, mask)


def _all_see(spec: Layer, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Columns that see the same input are computed at once, as one layer with the kernels of all of them."""
    own, out, *rest = kernel.shape
    sums = _linear(spec, x, kernel.reshape(own * out, *rest))
    return sums.reshape(own, out, *sums.shape[1:])


def _each_its_own(spec: Layer, h: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.stack([_linear(spec, x, own) for x, own in zip(h, kernel, strict=True)])


def _linear(spec: Layer, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if isinstance(spec, Conv):
        convolve = layers.local if spec.local else layers.conv
        return convolve(x, kernel, spec.stride, spec.padding)
    return layers.dense(x.reshape(-1, x.shape[-1]), kernel)


def _lrn_across(part: LRN, x: jax.Array) -> jax.Array:
    reach = part.size // 2
    normalized: jax.Array = layers.lrn(bordered(x, reach), part)
    return normalized[:, reach:-reach]


def apply_parts(spec: Layer, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """What follows the sums of a layer, in the order of its table."""
    for part in spec.after:
        x = _part(part, x, mask)
    return x


def _part(part: Part, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    match part:
        case MaxPool():
            return layers.max_pool(x, part)
        case AvgPool():
            return layers.avg_pool(x, part)
        case LRN() if part.across:
            return _lrn_across(part, x)
        case LRN() | MapNorm():
            return layers.lrn(x, part)
        case Dropout():
            return layers.dropout(x, part, None if mask is None else mask.reshape(x.shape))
        case Tanh():
            return layers.tanh(x)
        case _:
            return layers.relu(x)
