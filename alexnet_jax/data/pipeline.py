"""Batches on the devices: a small split is copied to every device once, a large one is decoded batch by batch."""

import contextlib
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from alexnet_jax import columns
from alexnet_jax.data import loader
from alexnet_jax.data.dataset import DiskSplit, MemorySplit, Split
from alexnet_jax.data.order import evaluation_batches, training_batch
from alexnet_jax.network.placement import Placement
from alexnet_jax.processes import distributed


@dataclass(frozen=True)
class OnDevice:
    """Examples on the devices: a split replicated on each device, or a batch sharded over them."""

    images: jax.Array  # uint8 [n, height, width, 3]
    labels: jax.Array  # int32 [n]

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, indices: jax.Array | None) -> "OnDevice":
        """Return the examples with these indices, int32 [m]; all of them if `indices` is None."""
        return self if indices is None else OnDevice(self.images[indices], self.labels[indices])


jax.tree_util.register_dataclass(OnDevice, ["images", "labels"], [])


class TrainingBatch(NamedTuple):
    """The batch of a training step is `examples.take(indices)`, which belongs inside the compiled step."""

    examples: OnDevice
    indices: np.ndarray | None  # int32 [batch]


class EvaluationBatch(NamedTuple):
    """A batch of an evaluation is `examples.take(indices)`."""

    examples: OnDevice
    indices: np.ndarray | None  # int32 [batch]
    counted: np.ndarray  # bool [batch]; False for the rows that pad the last batch


class Feed(Protocol):
    """The batches of a split on the devices. Close a generator that is not exhausted, so that its workers end."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def training(self, first: int, stop: int, batch: int, seed: int) -> Generator[TrainingBatch]:
        """Yield the batches of the steps from `first` to `stop` - 1."""
        ...

    def evaluation(self, batch: int) -> Generator[EvaluationBatch]:
        """Yield batches that count every example once, in order."""
        ...


class MemoryFeed:
    """The feed of a split in memory, which is copied to every device once; a batch is a selection of indices."""

    def __init__(self, split: MemorySplit, placement: Placement):
        self._examples = put(split, placement)

    def __len__(self) -> int:
        return len(self._examples)

    def training(self, first: int, stop: int, batch: int, seed: int) -> Generator[TrainingBatch]:
        """See `Feed`."""
        for step in range(first, stop):
            yield TrainingBatch(self._examples, training_batch(step, len(self), batch, seed))

    def evaluation(self, batch: int) -> Generator[EvaluationBatch]:
        """See `Feed`."""
        for indices, counted in evaluation_batches(len(self), batch):
            yield EvaluationBatch(self._examples, indices, counted)


AHEAD = 1
"""Number of batches that are copied to the devices while these compute."""


class DiskFeed:
    """The feed of a split on disk. Each process of a run decodes the rows of a batch that its own devices need."""

    def __init__(self, split: DiskSplit, placement: Placement, workers: int | None = None):
        self._split, self._sharding = split, placement.sharding(columns.BATCH_FIRST)
        accelerated = placement.mesh.devices.flat[0].platform != "cpu"  # a CPU's cores are busy with the network
        self._workers = loader.cores() // 2 * accelerated if workers is None else workers

    def __len__(self) -> int:
        return len(self._split)

    def training(self, first: int, stop: int, batch: int, seed: int) -> Generator[TrainingBatch]:
        """See `Feed`."""
        steps = loader.Training(self._split, first, stop, batch, seed, local_rows(self._sharding, batch))
        for examples in self._ahead(steps):
            yield TrainingBatch(examples, None)

    def evaluation(self, batch: int) -> Generator[EvaluationBatch]:
        """See `Feed`."""
        steps = loader.Evaluation(self._split, batch, local_rows(self._sharding, batch))
        for number, examples in enumerate(self._ahead(steps)):
            yield EvaluationBatch(examples, None, steps.counted(number))

    def _ahead(self, steps: loader.Training | loader.Evaluation) -> Generator[OnDevice]:
        waiting: deque[OnDevice] = deque()
        with contextlib.closing(loader.batches(steps, self._workers)) as batches:
            for images, labels in batches:
                waiting.append(OnDevice(self._put(images, steps.batch), self._put(labels, steps.batch)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def _put(self, rows: np.ndarray, batch: int) -> jax.Array:
        return jax.make_array_from_process_local_data(self._sharding, rows, (batch, *rows.shape[1:]))


def local_rows(sharding: NamedSharding, batch: int) -> np.ndarray:
    """Return the rows of a batch, int64 and ascending, that are on devices of this process."""
    slices = sharding.addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in slices]))


def feed(split: Split, placement: Placement, workers: int | None = None) -> Feed:
    """Return the feed of a split. `workers` is the number of processes that decode a split on disk (see `Data.workers`)."""
    if isinstance(split, MemorySplit):
        return MemoryFeed(split, placement)
    return DiskFeed(split, placement, workers)


def put(split: MemorySplit, placement: Placement) -> OnDevice:
    """Copy a split to every device of the mesh."""
    whole = placement.sharding(columns.WHOLE)
    return OnDevice(distributed.to_global_array(split.images, whole), distributed.to_global_array(split.labels, whole))
