"""Check that a checksum depends on every bit and its position, is equal on every mesh, and needs no all-gather."""

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.run import checksums

TYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool"]


def numbers(dtype, shape=(3, 4, 5), seed=0):
    """Return an array of a type with random bits."""
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, (*shape, 8), np.uint8)
    width = np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    return np.ascontiguousarray(bits[..., :width]).view(getattr(ml_dtypes, dtype, dtype))[..., 0]


def of(x):
    return checksums.checksums({"x": jax.numpy.asarray(x)})["x"]


def by_hand(x):
    """Compute the definition in Python integers, element by element."""

    def mix(word):
        word = ((word ^ word >> 16) * 0x85EBCA6B) % 2**32
        word = ((word ^ word >> 13) * 0xC2B2AE35) % 2**32
        return word ^ word >> 16

    unsigned = x.view(f"uint{8 * x.dtype.itemsize}").ravel().tolist()
    return sum(mix(word ^ mix(place)) for place, word in enumerate(unsigned)) % 2**32


@pytest.mark.parametrize("dtype", TYPES)
def test_it_is_what_its_definition_says(dtype):
    x = numbers(dtype)
    assert of(x) == by_hand(x)
    assert of(x[0, 0, 0]) == by_hand(x[0, 0, 0].reshape(1))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_flipped_bit_changes_it(dtype):
    x = numbers(dtype)
    before, flat = of(x), x.view(np.uint8).reshape(-1)
    for byte in range(0, flat.size, 7):
        bit = 0 if dtype == "bool" else byte % 8
        flat[byte] ^= 1 << bit
        assert of(x) != before, (byte, bit)
        flat[byte] ^= 1 << bit
    assert of(x) == before


def test_other_damage_changes_it_too():
    x = numbers("float32", (64, 32))
    changed = [-x, np.zeros_like(x), x[::-1], x.T.reshape(x.shape), np.roll(x, 1), np.where(np.arange(32) < 16, x, 0)]
    assert len({of(each) for each in (x, *changed)}) == 1 + len(changed)


def test_float64_is_seen_whole(float64):
    x = np.arange(6.0).reshape(2, 3)
    before = of(x)
    for bit in (0, 31, 32, 63):
        assert of((x.view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64)) != before


@pytest.mark.parametrize("mesh", [(1, 1), (2, 1), (1, 2), (2, 2)], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_it_is_the_same_on_every_mesh_and_gathers_nothing(mesh):
    x = numbers("float32", (2, 8, 3))
    for spec in (columns.WHOLE, PartitionSpec("column"), PartitionSpec("column", "data"), PartitionSpec(None, "data")):
        placed = jax.device_put(x, Columns.over(*mesh).sharding(spec))
        assert of(placed) == by_hand(x), spec
        program = jax.jit(checksums.checksum).lower(placed).compile().as_text()
        assert "all-gather" not in program and "all-to-all" not in program


def test_names_are_those_of_the_path():
    tree = {"conv1": {"kernel": np.zeros((2, 3), np.float32)}, "count": (np.int32(3),)}
    assert checksums.describe(tree) == {"conv1/kernel": ("float32", (2, 3)), "count/0": ("int32", ())}
