"""The hybrid placement of "One weird trick": convolutions are sharded by images, fully connected layers by units.

    device            0        1        2        3
    conv1 to conv5  [images] [images] [images] [images]    every kernel on each device, a share of the batch
    fc6 to fc8      [units ] [units ] [units ] [units ]    a share of the units (fc8: of its inputs), the whole batch

Convolutions have most of the computation and few parameters, fully connected layers the reverse, so each kind communicates
the smaller of the two: convolutions sum gradients, fully connected layers exchange activations. The mesh has one axis, over
which both are sharded; batches are sharded as in columns.py. The network must have one column.

Before fc6 the devices gather all images (`every_image`), before fc7 all units (`every_unit`); after fc8 partial sums are
reduced and scattered by images (`own_images`). The backward pass uses the transposes. The paper has three schemes of
gathering images: `whole`, its (a), gathers all at once; `slices`, its (c), gathers one slice of every device's share after
another, so that the layers can compute on one slice while the next is sent.
"""

from dataclasses import dataclass
from typing import Literal, Self, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from alexnet_jax import columns
from alexnet_jax.columns import DATA, LOGITS, WHOLE, Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers
from alexnet_jax.network.placement import Masks, Parameters, Placement
from alexnet_jax.network.table import Conv, Dense, Layer, Table, shapes

Scheme = Literal["whole", "slices"]

UNITS, UNIT_BIASES = P(None, DATA, None), P(None, DATA)
"""[1, units, inputs or batch]: kernels and masks of fully connected layers; and [1, units]."""
INPUTS = P(None, None, DATA)
"""[1, units, inputs]: the kernel of a layer that sums; [1, units, batch]: masks of layers sharded by images."""


# --- the mesh --------------------------------------------------------------------------------------------------------


def make_mesh(devices: int = 1) -> Mesh:
    """Return a mesh over the first devices, for this placement. Raise UsageError when there are fewer."""
    available = jax.devices()
    columns.mesh_shape(len(available), 1, devices, 1)
    return jax.make_mesh((devices,), (DATA,), (AxisType.Auto,), devices=available[:devices])


def abstract_mesh(devices: int) -> Mesh:
    """Return the same mesh without devices: a program can be traced on it, though not run."""
    return cast(Mesh, AbstractMesh((devices,), (DATA,), axis_types=(AxisType.Auto,)))


def placement_of(mesh: Mesh, scheme: Scheme = "whole") -> Placement:
    """Return the placement that a mesh is meant for: `Hybrid` if it has no axis for columns, else `Columns`."""
    return Hybrid(mesh, scheme) if tuple(mesh.axis_names) == (DATA,) else Columns(mesh)


@dataclass(frozen=True)
class Hybrid(Placement):
    """Convolutions sharded by images, fully connected layers by units; how a training step gathers the images."""

    scheme: Scheme = "whole"

    @classmethod
    def over(cls, devices: int = 1, scheme: Scheme = "whole") -> Self:
        """Return this placement on the first devices. Raise UsageError when there are fewer."""
        return cls(make_mesh(devices), scheme)

    @property
    def replicas(self) -> int:
        """Number of shares into which a batch is divided."""
        return self.mesh.shape[DATA]

    @property
    def slices(self) -> int:
        """Number of slices in which a training step works through each share of its batch."""
        return self.replicas if self.scheme == "slices" else 1

    def check_fits(self, table: Table) -> None:
        """Raise UsageError unless the table has one column, and its fully connected layers divide over the mesh."""
        if table.columns != 1:
            raise UsageError(
                f"{table.name} has {table.columns} columns; the hybrid placement is for one. Use --network.columns=1 "
                "(--network.kernels=merged is the network of One weird trick), or --mesh.placement=columns."
            )
        for shape in shapes(table):
            _, units, inputs = shape.kernel[:3]
            number, what = (inputs, "inputs") if shape.spec.crossing == "sum" else (units, "units")
            if isinstance(shape.spec, Dense) and number % self.replicas:
                raise UsageError(
                    f"The {number} {what} of {shape.spec.name} do not divide over {self.replicas} devices. Change "
                    "--mesh.data, or the network (--network.fc_units)."
                )

    def parameter_specs(self, table: Table) -> dict[str, dict[str, P]]:
        """Return {layer: {'kernel', 'bias'}}: convolutions are replicated, fully connected layers sharded by units."""

        def specs(layer: Layer) -> dict[str, P]:
            if isinstance(layer, Conv):
                return {"kernel": WHOLE, "bias": WHOLE}
            if layer.crossing == "sum":
                return {"kernel": INPUTS, "bias": WHOLE}
            return {"kernel": UNITS, "bias": UNIT_BIASES}

        return {layer.name: specs(layer) for layer in table.layers}

    def mask_specs(self, table: Table) -> dict[str, P]:
        """Return {layer: spec}: a mask [1, units, batch] is sharded as the activations it multiplies."""
        return {layer.name: UNITS if _by_units(layer) else INPUTS for layer in table.layers}

    def output_spec(self, table: Table) -> P:
        """Return the spec of logits, of [1, maps, height, width, batch] or of [1, units, batch]."""
        *_, last = shapes(table)
        if last.spec.crossing == "sum":
            return LOGITS
        return UNITS if _by_units(last.spec) else P(None, *(None for _ in last.outputs), DATA)

    def forward(self, table: Table, parameters: Parameters, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Return logits [classes, own images]. At test (masks None) the images are gathered whole under either scheme."""
        slices = 1 if masks is None else self.slices
        convolutions = [spec for spec in table.layers if isinstance(spec, Conv)]
        connected = [spec for spec in table.layers if isinstance(spec, Dense)]
        masks, h = masks or {}, images
        for spec in convolutions:
            with jax.named_scope(spec.name):
                (h,) = columns.own_columns(
                    spec, parameters[spec.name], h.astype(images.dtype), True, masks.get(spec.name)
                )
        if not connected:
            return h[None]
        parameters = {spec.name: _shared_by_slices(spec, parameters[spec.name]) for spec in connected}
        outputs = []
        for i in range(slices):
            cut = {
                spec.name: _slice_of_mask(spec, masks[spec.name], i, slices) for spec in connected if spec.name in masks
            }
            outputs.append(_fully_connected(connected, parameters, _slice(h, i, slices), cut))
        return jnp.concatenate(outputs, -1)


def _by_units(layer: Layer) -> bool:
    return isinstance(layer, Dense) and layer.crossing != "sum"


# --- the crossings ---------------------------------------------------------------------------------------------------


def every_image(h: jax.Array) -> jax.Array:
    """Gather images: [..., own images] -> [..., all images]. The transpose sums the gradients of own images over all units."""
    return lax.all_gather(h, DATA, axis=h.ndim - 1, tiled=True)


def every_unit(h: jax.Array) -> jax.Array:
    """Gather units: [own units, images] -> [all units, images]. The transpose is a reduce-scatter, too."""
    return lax.all_gather(h, DATA, axis=0, tiled=True)


def own_inputs(h: jax.Array) -> jax.Array:
    """Exchange [inputs, own images] -> [own inputs, all images], where a layer that sums follows the convolutions."""
    return lax.all_to_all(h, DATA, split_axis=0, concat_axis=1, tiled=True)


def own_images(partial: jax.Array) -> jax.Array:
    """Sum over devices, [units, all images] -> [units, own images]. The transpose gathers."""
    return lax.psum_scatter(partial, DATA, scatter_dimension=1, tiled=True)


# --- the fully connected layers ----------------------------------------------------------------------------------------


def _shared_by_slices(spec: Dense, parameters: dict) -> dict:
    """Cast a replicated bias once, so that its gradients are summed once and not for each slice."""
    if spec.crossing != "sum":
        return parameters
    with jax.named_scope(spec.name):
        return parameters | {"bias": columns.for_each_share(parameters["bias"])}


def _fully_connected(specs: list[Dense], parameters: dict, h: jax.Array, masks: dict[str, jax.Array]) -> jax.Array:
    """Return [units, own images] after a sum, else [1, own units, all images], of activations [..., own images]."""
    by_units, dtype = False, h.dtype
    h = h.reshape(-1, h.shape[-1])
    for spec in specs:
        with jax.named_scope(spec.name):
            if spec.crossing != "sum":
                h = every_unit(h) if by_units else every_image(h)
            elif not by_units:
                h = own_inputs(h)
            h = _own_units(spec, parameters[spec.name], h.astype(dtype), masks.get(spec.name))
            by_units = _by_units(spec)
    return h[None] if by_units else h


def _own_units(spec: Dense, parameters: dict, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Compute this device's units for all images; a layer that sums computes partial sums of this device's inputs."""
    (kernel,), bias = parameters["kernel"].astype(x.dtype), parameters["bias"]
    sums = layers.widened(layers.dense(x, kernel))
    if spec.crossing == "sum":
        sums = own_images(sums) + bias[:, None]
    else:
        sums = (sums + bias[0][:, None]).astype(x.dtype)
    return columns.apply_parts(spec, sums, mask)


def _slice_of_mask(spec: Dense, mask: jax.Array, i: int, slices: int) -> jax.Array:
    return _slice(mask, i, slices, lax.axis_size(DATA) if _by_units(spec) else 1)


def _slice(x: jax.Array, i: int, slices: int, shares: int = 1) -> jax.Array:
    """Return slice i of [..., images], or of each share if the images are those of several devices."""
    parts = x.reshape(*x.shape[:-1], shares, slices, -1)
    return parts[..., i, :].reshape(*x.shape[:-1], -1)
