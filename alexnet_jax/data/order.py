"""Which examples a step or an evaluation takes: functions of seed and step alone. No jax: worker processes use this file."""

import functools
from collections.abc import Iterator

import numpy as np

from alexnet_jax.errors import UsageError


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


@functools.lru_cache(maxsize=2)  # drawn once per epoch, not per step; threads may stand at two epochs at once
def _order(epoch: int, examples: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples).astype(np.int32)


def evaluation_batches(examples: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices int32 [batch], counted bool [batch]) covering each example once; the last batch is filled up, not counted."""
    for start in range(0, examples, batch):
        indices = np.arange(start, start + batch, dtype=np.int32)
        yield np.minimum(indices, examples - 1), indices < examples
