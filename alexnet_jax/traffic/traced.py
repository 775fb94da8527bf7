"""The collectives of a training step, counted in its jaxpr; tracing needs neither devices nor data.

The jaxpr is the training step before XLA merges or moves operations. An equation that names a mesh axis communicates along it;
the equation's named scopes give its layer and direction.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from alexnet_jax.model import dropout_masks, loss_and_gradients
from alexnet_jax.network.placement import Placement
from alexnet_jax.network.table import Table, shapes
from alexnet_jax.traffic.moves import Move

BOOKKEEPING = {"pvary", "pcast", "axis_index", "shard_map", "jit", "pjit"}
"""Primitives that name an axis but communicate nothing along it."""


@dataclass(frozen=True)
class Collective:
    """One operand of a communicating equation."""

    layer: str
    direction: str  # forward or backward
    kind: str  # name of the primitive
    axes: tuple[str, ...]  # mesh axes
    shape: tuple[int, ...]  # of the operand on one device
    itemsize: int  # bytes per element
    pairs: int  # senders of a ppermute, otherwise 0


def moves(table: Table, placement: Placement, batch: int, precision: str = "float32") -> list[Move]:
    """Return the moves of one step on `batch` images, counted over all devices, as `predicted.moves` predicts them."""
    return [_move(each, dict(placement.mesh.shape)) for each in step_collectives(table, placement, batch, precision)]


def step_collectives(table: Table, placement: Placement, batch: int, precision: str = "float32") -> list[Collective]:
    """Return the collectives of loss and gradients of one step. The update does not communicate."""
    height, width, channels = table.image
    parameters = {
        s.spec.name: {kind: jax.ShapeDtypeStruct(getattr(s, kind), jnp.float32) for kind in ("kernel", "bias")}
        for s in shapes(table)
    }
    masks = jax.eval_shape(lambda: dropout_masks(table, jax.random.key(0), batch))
    images = jax.ShapeDtypeStruct((channels, height, width, batch), precision)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    step = functools.partial(loss_and_gradients, table, placement)
    program = jax.make_jaxpr(step)(parameters, images, labels, masks).jaxpr
    return list(collectives(program, tuple(placement.mesh.axis_names)))


def collectives(program: Any, axes: tuple[str, ...], scope: str = "") -> Iterator[Collective]:
    """Yield the collectives of a jaxpr and its inner jaxprs along the given axes."""
    for equation in program.eqns:
        here = f"{scope}/{equation.source_info.name_stack}"
        kind = equation.primitive.name.removesuffix("_invariant")
        along = tuple(axis for axis in axes if any(_names(value, axis) for value in equation.params.values()))
        if along and kind not in BOOKKEEPING:
            layer = here.replace("transpose(", "").replace("jvp(", "").strip("/)")
            direction = "backward" if "transpose(" in here else "forward"
            pairs = len(equation.params.get("perm", ()))
            for operand in equation.invars:
                shape, itemsize = operand.aval.shape, operand.aval.dtype.itemsize
                yield Collective(layer, direction, kind, along, shape, itemsize, pairs)
        for inner in jaxprs_in_params(equation.params):
            yield from collectives(getattr(inner, "jaxpr", inner), axes, here)


def _names(value: Any, axis: str) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return any(_names(each, axis) for each in value)
    return isinstance(value, str) and value == axis


def _move(found: Collective, sizes: dict[str, int]) -> Move:
    devices = math.prod(sizes[axis] for axis in found.axes)
    operand = math.prod(found.shape) * found.itemsize
    size = operand * devices if found.kind == "all_gather" else operand
    return Move(found.layer, found.direction, found.kind, size, devices, found.pairs)  # pyright: ignore[reportArgumentType]
