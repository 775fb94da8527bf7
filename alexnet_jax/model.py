"""A table and the column split, made into a flax module; initial parameters, dropout masks and the loss."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax import columns
from alexnet_jax.errors import UsageError
from alexnet_jax.hybrid import placement_of
from alexnet_jax.network import networks
from alexnet_jax.network.placement import Masks, Parameters, Placement
from alexnet_jax.network.table import Dropout, Table, shapes


def shardings(table: Table, placement: Placement) -> dict[str, dict[str, NamedSharding]]:
    """Return the sharding of each parameter, {layer: {'kernel', 'bias'}}. Raise UsageError when the table does not fit."""
    placement.check_fits(table)
    return jax.tree.map(placement.sharding, placement.parameter_specs(table))


def initialize(table: Table, key: jax.Array, placement: Placement) -> Parameters:
    """Return initial parameters {layer: {'kernel', 'bias'}}, float32, created on the devices that keep them.

    The numbers are the same on every mesh. Raise UsageError when the table does not fit this one.
    """
    return jax.jit(lambda key: _draw(table, key), out_shardings=shardings(table, placement))(key)


def abstract(table: Table, placement: Placement) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Return the shapes, dtypes and shardings of the parameters of `initialize`, for restoring them; raises as it does."""

    def leaf(shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return jax.tree.map(leaf, jax.eval_shape(lambda: _draw(table, jax.random.key(0))), shardings(table, placement))


def _draw(table: Table, key: jax.Array) -> Parameters:
    """All kernels are cut from one draw, in the table's order: eight draws would take eight times as long to compile."""
    sizes = [math.prod(shape.kernel) for shape in shapes(table)]
    numbers = jax.random.normal(key, (sum(sizes),), jnp.float32)
    parameters, start = {}, 0
    for shape, size in zip(shapes(table), sizes, strict=True):
        std = math.sqrt(2 / shape.fan_in) if shape.spec.weight_std == "he" else shape.spec.weight_std
        kernel = std * numbers[start : start + size].reshape(shape.kernel)
        parameters[shape.spec.name] = {"kernel": kernel, "bias": jnp.full(shape.bias, shape.spec.bias, jnp.float32)}
        start += size
    return parameters


def dropout_masks(table: Table, key: jax.Array, batch: int) -> Masks:
    """{layer: bool [columns, units, batch]}, True where a unit, or a pixel of a map, is kept; layer i: fold_in(key, i).

    Drawn with global shapes outside the split: a key used inside it would give every device the same mask.
    """
    masks = {}
    for i, shape in enumerate(shapes(table)):
        for part in shape.spec.after:
            if isinstance(part, Dropout):
                units = (table.columns, math.prod(shape.outputs), batch)
                masks[shape.spec.name] = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - part.probability, units)
    return masks


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax at the right class, per example: logits [classes, batch] and labels [batch] to [batch], in 32 bits or more."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=0), labels[None], axis=0)
    return -chosen[0]


class Layer(nnx.Module):
    """The parameters of one layer: kernel [columns, out, in, ...] and bias [columns, out]."""

    def __init__(self, kernel: jax.Array, bias: jax.Array):
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(bias)


class AlexNet(nnx.Module):
    """The two-column network as a flax module: images [batch, height, width, 3] in, logits [batch, classes] out.

    Its layers are attributes (`model.conv1.kernel`). It runs on `mesh` (`columns.make_mesh(data, column)`; one device by
    default). `train.py` trains the same parameters as a plain dictionary, through the same `forward`. It computes
    in the type of the images; parameters and the logits of bfloat16 images have 32 bits.
    """

    def __init__(self, table: Table = networks.ALEXNET, *, mesh: Mesh | None = None, rngs: nnx.Rngs):
        """table: networks.ALEXNET, or any other. rngs: where the initial parameters are drawn from (its `params` stream)."""
        self.table = table
        self.placement = placement_of(mesh if mesh is not None else columns.make_mesh(1, 1))
        for name, leaves in initialize(table, rngs.params(), self.placement).items():
            setattr(self, name, Layer(**leaves))

    @property
    def mesh(self) -> Mesh:
        """The mesh on which the network runs."""
        return self.placement.mesh

    @property
    def parameters(self) -> Parameters:
        """{layer: {'kernel', 'bias'}}, the form that training, checkpoints and `columns.forward` use."""
        return {s.name: nnx.to_pure_dict(nnx.state(getattr(self, s.name), nnx.Param)) for s in self.table.layers}

    def __call__(self, images: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Logits [batch, classes] of images [batch, height, width, 3], floating point, already normalized.

        With a dropout_key units are dropped, as in training. Raises UsageError when the images do not fit the table or
        the batch does not divide over the mesh.
        """
        self._check(images)
        masks = None if dropout_key is None else dropout_masks(self.table, dropout_key, images.shape[0])
        return logits(self.table, self.placement, self.parameters, images, masks)

    def _check(self, images: Any) -> None:
        shape, replicas = jnp.shape(images), self.placement.replicas
        if shape[1:] != self.table.image:
            height, width, channels = self.table.image
            raise UsageError(
                f"images have shape {shape}; {self.table.name} expects [batch, {height}, {width}, {channels}]."
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise UsageError(f"images are {images.dtype}; expected floating point. Subtract the mean first.")
        if shape[0] % replicas:
            raise UsageError(f"A batch of {shape[0]} images does not divide over {replicas} data-parallel devices.")


@functools.partial(jax.jit, static_argnums=(0, 1))  # op by op, outside a jit, it would take minutes to compile
def logits(
    table: Table, placement: Placement, parameters: Parameters, images: jax.Array, masks: Masks | None = None
) -> jax.Array:
    """Return logits [batch, classes] of images [batch, height, width, 3]; masks only in training."""
    return _outputs(table, placement, parameters, images, masks)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def activations(table: Table, placement: Placement, parameters: Parameters, images: jax.Array, layer: str) -> jax.Array:
    """Return a layer's output at test time, all its parts applied: images [batch, height, width, 3] -> [batch, units].

    The units of column 0 come first; in a convolutional layer they are maps, rows, columns of pixels. After dropout they are
    what the next layer sees: fc7's [4096] are halved. Raise ValueError when the table has no such layer.
    """
    first = table.until(layer)
    return _outputs(first, placement, {spec.name: parameters[spec.name] for spec in first.layers}, images, None)


def _outputs(
    table: Table, placement: Placement, parameters: Parameters, images: jax.Array, masks: Masks | None
) -> jax.Array:
    """Return the output of the last layer of a table, [batch, units]."""
    in_specs = (placement.parameter_specs(table), columns.BATCH_LAST, _mask_specs(table, placement, masks))
    forward = placement.per_device(functools.partial(placement.forward, table), in_specs, placement.output_spec(table))
    outputs = forward(parameters, images.transpose(3, 1, 2, 0), masks)
    return outputs.reshape(-1, outputs.shape[-1]).T


def _mask_specs(table: Table, placement: Placement, masks: Masks | None) -> dict[str, PartitionSpec] | None:
    specs = placement.mask_specs(table)
    return None if masks is None else {layer: specs[layer] for layer in masks}


def loss_and_gradients(
    table: Table,
    placement: Placement,
    parameters: Parameters,
    images: jax.Array,
    labels: jax.Array,
    masks: Masks | None,
) -> tuple[tuple[jax.Array, jax.Array], Parameters]:
    """Return ((mean cross-entropy, share of wrong answers), gradients of the former) over the global batch.

    images [channels, height, width, batch], floating point; labels int [batch]. Each gradient has its parameter's sharding.
    """
    specs = placement.parameter_specs(table)

    def per_device(
        parameters: Parameters, images: jax.Array, labels: jax.Array, masks: Masks | None
    ) -> tuple[tuple[jax.Array, jax.Array], Parameters]:
        def loss(parameters: Parameters) -> tuple[jax.Array, jax.Array]:
            scores = placement.forward(table, parameters, images, masks)
            with jax.named_scope("loss"):
                wrong = (jax.lax.argmax(scores, 0, labels.dtype) != labels).mean(dtype=scores.dtype)
                both = columns.mean_over_data(jnp.stack([cross_entropy(scores, labels).mean(), wrong]))
                return both[0], both[1]

        return jax.value_and_grad(loss, has_aux=True)(parameters)

    in_specs = (specs, columns.BATCH_LAST, columns.BATCH_FIRST, _mask_specs(table, placement, masks))
    out_specs = ((columns.WHOLE, columns.WHOLE), specs)
    return placement.per_device(per_device, in_specs, out_specs)(parameters, images, labels, masks)
