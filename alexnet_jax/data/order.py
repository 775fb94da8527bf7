"""Which examples are held out, and which ones each step and each evaluation sees.

All are functions of the seed and the step alone, so that nothing has to be saved. Worker processes use this module, which does
not import jax.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from alexnet_jax.data.dataset import DataSet, Split
from alexnet_jax.errors import UsageError

HELD_OUT = 2012
"""Seed of the validation split. No option changes it, so every run on a data set holds out the same images."""


def hold_out(data_set: DataSet, validation: int, *, fold_in: bool = False) -> tuple[Split, Split]:
    """Return (training, validation): the training images split in two, each part in its original order.

    The validation split is the data set's own if it has one, else `held_out` images chosen at random.
    With `fold_in` the training split keeps all images, including those of the validation split. Raises UsageError unless at
    least one training image remains.
    """
    n = len(data_set.train)
    if n < 2:
        raise UsageError(f"{data_set.title} has {n} training images; expected one to train on and one for validation.")
    held = np.zeros(n, bool)
    if data_set.validation:
        held[n - data_set.validation :] = True
    else:
        order = np.random.Generator(np.random.Philox(HELD_OUT)).permutation(n)
        held[order[: held_out(n, validation)]] = True
    training = data_set.train if fold_in else data_set.train.take(~held)
    return training, data_set.train.take(held)


def held_out(images: int, validation: int) -> int:
    """Return how many of the training images are held out: `validation`, or one in ten if there are too few for that."""
    return validation if validation < images else max(1, images // 10)


def steps_per_epoch(examples: int, batch: int) -> int:
    """Return the number of complete batches in an epoch. Raises UsageError if it is zero."""
    if batch > examples:
        raise UsageError(f"--train.batch={batch}: expected at most the {examples} training images.")
    return examples // batch


def training_batch(step: int, examples: int, batch: int, seed: int) -> np.ndarray:
    """Return the indices int32 [batch] of a step, counted from 0.

    Each epoch is another permutation of the examples; the last `examples % batch` of it are left out of the epoch.
    """
    epoch, number = divmod(step, examples // batch)
    return _permutation(epoch, examples, seed)[number * batch : (number + 1) * batch]


@functools.lru_cache(maxsize=2)  # drawn once per epoch; near its end, threads read batches of two epochs at once
def _permutation(epoch: int, examples: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples).astype(np.int32)


class EvaluationIndices(NamedTuple):
    """The examples of one batch of an evaluation."""

    indices: np.ndarray  # int32 [batch]
    counted: np.ndarray  # bool [batch]; False for the rows that pad the last batch


def evaluation_batches(examples: int, batch: int) -> Iterator[EvaluationIndices]:
    """Yield batches that count each example once, in order. The last batch is padded to the size of the others."""
    for start in range(0, examples, batch):
        indices = np.arange(start, start + batch, dtype=np.int32)
        yield EvaluationIndices(np.minimum(indices, examples - 1), indices < examples)
