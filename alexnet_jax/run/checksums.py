"""A checksum of every leaf of a checkpoint, the same on any mesh, and the record of them in the checkpoint.

The checksums are computed on the devices before saving and again after restoring, so that any change in between is found:
on the way to the disk, on the disk or on the way back. The record also lists the leaves, so that a damaged description is
not mistaken for another network.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.errors import Damaged

BEST = "validation_top1_error"
"""The metric of a validated checkpoint; saves in the middle of an epoch have none."""

CHECKSUMS = "checksums"
"""The item of a checkpoint that holds the record."""
FILE = "metadata"
"""The file of that item, as orbax names it."""

Leaves = dict[str, tuple[str, tuple[int, ...]]]
"""{'conv1/kernel': ('float32', (2, 48, 3, 11, 11))}"""


def checksum(x: jax.Array) -> jax.Array:
    """Return uint32 []: the sum modulo 2**32 of all elements' bits, each mixed with its index in the array.

    A sum does not depend on the sharding of the array. Mixing is one-to-one, so any change of one element changes the sum;
    any other damage is missed with probability 2**-32.
    """
    words = _words(x)
    place = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return _mix(words ^ _mix(place)).sum(dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """Return the bits as uint32: one word for 8, 16 or 32 bits, two for 64."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    size = min(x.dtype.itemsize, 4)
    return jax.lax.bitcast_convert_type(x, f"uint{8 * size}").astype(jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """Apply the finalizer of MurmurHash3, a bijection of uint32 in which every input bit affects every output bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


_checksums = jax.jit(lambda leaves: {name: checksum(leaf) for name, leaf in leaves.items()})


def checksums(tree: Any) -> dict[str, int]:
    """Return {leaf: checksum}; waits for the devices."""
    return {name: int(found) for name, found in jax.device_get(_checksums(_named(tree))).items()}


def describe(tree: Any) -> Leaves:
    """Return the type and shape of every leaf. A tree, its abstract form and orbax's description of it give equal names."""
    return {name: (jnp.dtype(x.dtype).name, tuple(x.shape)) for name, x in _named(tree).items()}


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "dtype"))
    return {"/".join(map(_name, path)): leaf for path, leaf in leaves}


def _name(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


# --- the record ------------------------------------------------------------------------------------------------------


def record(step: int, trees: dict[str, Any], validation_error: float | None) -> dict[str, Any]:
    """Return the record of the trees {item: tree}: their leaves with checksums, and the error that `best` compares."""
    items = {}
    for item, tree in trees.items():
        sums = checksums(tree)
        items[item] = {name: [*described, sums[name]] for name, described in describe(tree).items()}
    values = json.loads(json.dumps({"step": step, "validation_error": validation_error, "items": items}))
    return values | {"crc32": _crc32(values)}


def _crc32(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def read(step_folder: Path) -> dict[str, Any] | None:
    """Return the record of a checkpoint, None if it was written before records existed. Raises Damaged."""
    if not (step_folder / CHECKSUMS).is_dir():
        if CHECKSUMS in _json(step_folder, "_CHECKPOINT_METADATA").get("item_handlers", {}):
            raise Damaged(step_folder, f"its {CHECKSUMS} are missing")
        return None
    values = _json(step_folder, CHECKSUMS, FILE)
    crc32 = values.pop("crc32", None)
    if crc32 != _crc32(values):
        raise Damaged(step_folder, f"{CHECKSUMS}/{FILE} was changed")
    if step_folder.name.isdigit() and int(step_folder.name) != values["step"]:
        raise Damaged(step_folder, f"it is the checkpoint of step {values['step']} under another name")
    return values


def _json(step_folder: Path, *names: str) -> dict[str, Any]:
    try:
        values = json.loads(step_folder.joinpath(*names).read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise Damaged(step_folder, f"{'/'.join(names)} cannot be read ({problem})") from problem
    if not isinstance(values, dict):
        raise Damaged(step_folder, f"{'/'.join(names)} holds no JSON object")
    return values


def leaves_of(record: dict[str, Any], item: str) -> Leaves:
    """Return the recorded leaves of one tree; empty if the tree was not saved."""
    return {name: (dtype, tuple(shape)) for name, (dtype, shape, _) in record["items"].get(item, {}).items()}


def checksum_of(record: dict[str, Any], item: str) -> int:
    """Return one checksum of a whole recorded tree: its leaves with their types, shapes and checksums."""
    return _crc32(record["items"][item])


def verify(record: dict[str, Any], item: str, tree: Any, step_folder: Path) -> None:
    """Raise Damaged naming the leaves of a restored tree, or of a part of one, that differ from what was saved."""
    saved = record["items"][item]
    changed = [name for name, found in checksums(tree).items() if found != saved[name][2]]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise Damaged(step_folder, f"{item}: {', '.join(changed[:3])}{more} differs from what was saved (checksum)")


def validation_error(step_folder: Path) -> float | None:
    """Return the validation error that a checkpoint was saved with, None if it was not validated.

    Raises Damaged when orbax's metrics and the record disagree.
    """
    known, there = read(step_folder), (step_folder / "metrics").is_dir()
    noted = _json(step_folder, "metrics", "metrics").get(BEST) if there else None
    if known is not None and known["validation_error"] != noted:
        raise Damaged(step_folder, f"metrics/metrics says {noted}, the {CHECKSUMS} {known['validation_error']}")
    return noted
