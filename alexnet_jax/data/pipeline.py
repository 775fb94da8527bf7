"""Small data sets: the whole set on the device once, and every batch a list of indices into it."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh as DeviceMesh

from alexnet_jax import columns
from alexnet_jax.data.sources import DataSet, Split
from alexnet_jax.errors import UsageError

HELD_OUT = 2012
"""Seed of the fixed validation split; no option changes it, so every run of a data set holds out the same images."""


@dataclass(frozen=True)
class OnDevice:
    """A split on the devices, whole on each of them."""

    images: jax.Array  # uint8 [n, height, width, 3]
    labels: jax.Array  # int32 [n]

    def __len__(self) -> int:
        return self.images.shape[0]


jax.tree_util.register_dataclass(OnDevice, ["images", "labels"], [])


def hold_out(data_set: DataSet, validation: int, *, fold_in: bool = False) -> tuple[Split, Split]:
    """(training, validation) splits of the training images, the same ones in every run, in their original order.

    With fold_in the training split has all of them, those of the validation split too.
    """
    n = len(data_set.train.labels)
    if validation >= n:
        raise UsageError(
            f"--data.validation={validation}: expected fewer than the {n} training images of {data_set.title}."
        )
    held = np.zeros(n, bool)
    held[np.random.Generator(np.random.Philox(HELD_OUT)).permutation(n)[:validation]] = True
    train, labels = data_set.train.images, data_set.train.labels
    training = data_set.train if fold_in else Split(train[~held], labels[~held])
    return training, Split(train[held], labels[held])


def put(split: Split, mesh: DeviceMesh) -> OnDevice:
    """Copy a split to every device of the mesh."""
    whole = columns.place(mesh, columns.WHOLE)
    return OnDevice(jax.device_put(split.images, whole), jax.device_put(split.labels, whole))


def steps_per_epoch(examples: int, batch: int) -> int:
    """Whole batches in an epoch. Raises UsageError when there is none."""
    if batch > examples:
        raise UsageError(f"--train.batch={batch}: expected at most the {examples} training images.")
    return examples // batch


def training_batch(step: int, examples: int, batch: int, seed: int) -> np.ndarray:
    """Indices int32 [batch] of step number `step` (from 0): a function of seed and step alone, so nothing needs saving.

    Each epoch is a fresh permutation; its last examples % batch are left out of that epoch.
    """
    epoch, place = divmod(step, examples // batch)
    return _order(epoch, examples, seed)[place * batch : (place + 1) * batch]


@functools.lru_cache(maxsize=1)  # drawn once per epoch rather than once per step
def _order(epoch: int, examples: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples).astype(np.int32)


def evaluation_batches(examples: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices int32 [batch], counted bool [batch]) covering each example once; the last batch is filled up, not counted."""
    for start in range(0, examples, batch):
        indices = np.arange(start, start + batch, dtype=np.int32)
        yield np.minimum(indices, examples - 1), indices < examples
