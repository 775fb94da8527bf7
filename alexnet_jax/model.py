"""A network as a flax module; its initial parameters, dropout masks, loss and gradients."""

import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax import columns
from alexnet_jax.data.augment import normalize
from alexnet_jax.data.images import upright
from alexnet_jax.data.statistics import Statistics
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
    """Draw all kernels at once, in the order of the table; eight draws would take eight times as long to compile."""
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
    """Return {layer: bool [columns, units, batch]}, True where a unit, or a pixel of a map, is kept (section 4.2).

    Layer i uses fold_in(key, i). Masks are drawn with global shapes, outside `Placement.per_device`, where every device would
    draw the same mask.
    """
    masks = {}
    for i, shape in enumerate(shapes(table)):
        for part in shape.spec.after:
            if isinstance(part, Dropout):
                units = (table.columns, math.prod(shape.outputs), batch)
                masks[shape.spec.name] = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - part.probability, units)
    return masks


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return -log softmax of the right class, [batch], for logits [classes, batch], float32 or wider, and labels [batch]."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=0), labels[None], axis=0)
    return -chosen[0]


class Layer(nnx.Module):
    """The parameters of one layer: kernel [columns, out, in, ...] and bias [columns, out]."""

    def __init__(self, kernel: jax.Array, bias: jax.Array):
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(bias)


@dataclass(frozen=True)
class TopClasses:
    """The most probable classes of an image, the best first."""

    names: tuple[str, ...]
    probabilities: tuple[float, ...]


class AlexNet(nnx.Module):
    """The two-column network as a flax module: images [batch, height, width, 3] in, logits [batch, classes] out.

    Its layers are attributes (`model.conv1.kernel`). It computes in the type of the images; parameters, and the logits of
    bfloat16 images, are float32. `train.py` trains the same parameters as a plain dictionary, through the same `forward`.

    `model.train()` and `model.eval()` turn dropout on and off, as in every nnx module. A new model is in evaluation mode.
    """

    def __init__(
        self,
        table: Table = networks.ALEXNET,
        *,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
        parameters: Parameters | None = None,
        normalization: Statistics | None = None,
        classes: Sequence[str] | None = None,
        side: int | None = None,
    ):
        """Create the network with new parameters, or given ones.

        Args:
          table: The layers.
          mesh: The devices, from `make_mesh(data, column)`; one device by default.
          rngs: Its stream `params` draws the parameters, its stream `dropout` the dropout masks of `model.train()`.
          parameters: Parameters in the form of `AlexNet.parameters`, on the devices of the mesh.
          normalization: Mean and scale of the images; `predict` needs them.
          classes: Names of the classes; `predict` needs them.
          side: Side in pixels of the central square of a picture file, before the network's input is cut out of its centre;
            by default that of the mean image, or of the network's input.

        Raises:
          UsageError: The table does not fit the mesh, or the number of names is not that of the classes.
        """
        if classes is not None and len(classes) != table.classes:
            raise UsageError(f"{len(classes)} names of classes; {table.name} has {table.classes} classes.")
        self.table = table
        self.placement = placement_of(mesh if mesh is not None else columns.make_mesh(1, 1))
        self.normalization, self.side = normalization, side
        self.classes = None if classes is None else tuple(classes)
        self.deterministic = True
        for name, leaves in (parameters or initialize(table, rngs.params(), self.placement)).items():
            setattr(self, name, Layer(**leaves))
        self.rngs = _dropout_stream(rngs) if _drops(table) else None

    @property
    def mesh(self) -> Mesh:
        """The mesh on which the network runs."""
        return self.placement.mesh

    @property
    def parameters(self) -> Parameters:
        """{layer: {'kernel', 'bias'}}, the form that training, checkpoints and `Placement.forward` use."""
        return {s.name: nnx.to_pure_dict(nnx.state(getattr(self, s.name), nnx.Param)) for s in self.table.layers}

    def __call__(self, images: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Return logits [batch, classes] of images [batch, height, width, 3], floating point, already normalized.

        Dropout is applied with `dropout_key`, in either mode; without it, after `model.train()`, with a key of the stream
        `dropout`. Raise UsageError if the images do not fit the table, or the batch does not divide over the mesh.
        """
        self._check(images)
        if dropout_key is None and not self.deterministic and _drops(self.table):
            if self.rngs is None:
                raise UsageError("model.train() needs a stream: build the model with rngs=nnx.Rngs(params=0, dropout=1).")
            dropout_key = self.rngs()
        masks = None if dropout_key is None else dropout_masks(self.table, dropout_key, images.shape[0])
        return logits(self.table, self.placement, self.parameters, images, masks)

    def predict(self, images: np.ndarray | str | Path | Sequence[str | Path], top: int = 5) -> list[TopClasses]:
        """Return the `top` most probable classes of each image, in evaluation mode, from its central view alone.

        images: uint8 [batch, height, width, 3], at least as large as the network's input, whose size is cut out of the
        centre; or one or several picture files, of which the central square is used. Raise UsageError if the model has no
        normalization or class names or the images do not fit, RunError naming a file that is no picture.
        """
        if self.normalization is None or self.classes is None:
            missing = "normalization" if self.normalization is None else "class names"
            raise UsageError(
                f"This {self.table.name} has no {missing}. Load a trained network by alexnet_jax.load, or create it with "
                "AlexNet(..., normalization=..., classes=...)."
            )
        if not 1 <= top <= len(self.classes):
            raise UsageError(f"top={top}: expected 1 to {len(self.classes)}, the number of classes.")
        pixels = images if isinstance(images, np.ndarray) else self._read(images)
        shares = np.asarray(jax.nn.softmax(logits(self.table, self.placement, self.parameters, self._centre(pixels))))
        best = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        return [
            TopClasses(tuple(self.classes[i] for i in order), tuple(float(row[i]) for i in order))
            for row, order in zip(shares, best, strict=True)
        ]

    def _read(self, files: str | Path | Sequence[str | Path]) -> np.ndarray:
        assert self.normalization is not None
        paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"{path}: no such file.")
        if not paths:
            raise UsageError("No images to predict. Give an array or picture files.")
        side = self.side or max(self.normalization.mean.shape[0], *self.table.image[:2])
        return np.stack([upright(path.read_bytes(), side, str(path)) for path in paths])

    def _centre(self, pixels: np.ndarray) -> jax.Array:
        """Return the normalized centres of images uint8, as large as the network's input. Raise UsageError if they do not fit."""
        assert self.normalization is not None
        (height, width, channels), mean = self.table.image, self.normalization.mean.shape
        fits = (
            pixels.ndim == 4 and pixels.shape[3] == channels and (pixels.shape[1:3] == mean[:2] or mean[:2] == (1, 1))
        )
        if not fits or pixels.shape[1] < height or pixels.shape[2] < width or pixels.dtype != np.uint8:
            size = "height, width" if mean[:2] == (1, 1) else f"{mean[0]}, {mean[1]}"
            raise UsageError(
                f"images are {pixels.dtype} {pixels.shape}; expected uint8 [batch, {size}, {channels}], at least "
                f"{height}x{width}, with pixels from 0 to 255."
            )
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        seen = normalize(jnp.asarray(pixels), self.normalization)[:, top : top + height, left : left + width]
        self._check(seen)
        return seen

    def _check(self, images: jax.Array) -> None:
        shape, replicas = jnp.shape(images), self.placement.replicas
        if shape[1:] != self.table.image:
            size = ", ".join(map(str, self.table.image))
            raise UsageError(f"images have shape {shape}; {self.table.name} expects [batch, {size}].")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise UsageError(f"images are {images.dtype}; expected floating point. Subtract the mean first.")
        if shape[0] % replicas:
            raise UsageError(f"A batch of {shape[0]} images does not divide over {replicas} data-parallel devices.")


def _drops(table: Table) -> bool:
    return any(isinstance(part, Dropout) for spec in table.layers for part in spec.after)


def _dropout_stream(rngs: nnx.Rngs) -> nnx.RngStream | None:
    """Return the stream `dropout`, or one derived from the default stream without advancing it; None if there is neither."""
    if "dropout" in rngs or "default" not in rngs:
        return rngs.dropout.fork() if "dropout" in rngs else None
    key = jax.random.fold_in(rngs.default.key[...], rngs.default.count[...])
    return nnx.Rngs(dropout=jax.random.fold_in(key, zlib.crc32(b"dropout"))).dropout


@functools.partial(jax.jit, static_argnums=(0, 1))  # compiling operation by operation would take minutes
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
    table: Table, placement: Placement, parameters: Parameters, images: jax.Array, labels: jax.Array, masks: Masks | None
) -> tuple[tuple[jax.Array, jax.Array], Parameters]:
    """Return ((mean cross-entropy, share of wrong answers), gradients of the former) over the global batch.

    images [channels, height, width, batch], floating point; labels int [batch]. Each gradient has its parameter's sharding.
    """
    specs = placement.parameter_specs(table)

    def per_device(parameters: Parameters, images: jax.Array, labels: jax.Array, masks: Masks | None) -> tuple:
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
