"""What reaches the devices: a small split as a whole, of which a batch is a list of indices; a large one batch by batch."""

import contextlib
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from alexnet_jax import columns
from alexnet_jax.data import loader
from alexnet_jax.data.order import evaluation_batches, training_batch
from alexnet_jax.data.split import DataSet, Split, Stream
from alexnet_jax.errors import UsageError
from alexnet_jax.network.placement import Placement
from alexnet_jax.processes import distributed

HELD_OUT = 2012
"""Seed of the fixed validation split; no option changes it, so every run of a data set holds out the same images."""


@dataclass(frozen=True)
class OnDevice:
    """Examples on the devices: a split, whole on each of them, or one batch, spread over them."""

    images: jax.Array  # uint8 [n, height, width, 3]
    labels: jax.Array  # int32 [n]

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, indices: jax.Array | None) -> "OnDevice":
        """A batch: those of the split with these indices; all of them, for a batch is itself, without."""
        return self if indices is None else OnDevice(self.images[indices], self.labels[indices])


jax.tree_util.register_dataclass(OnDevice, ["images", "labels"], [])

TrainingBatches = Generator[tuple[OnDevice, np.ndarray | None]]
"""(examples, indices int32 [batch] or None)"""
EvaluationBatches = Generator[tuple[OnDevice, np.ndarray | None, np.ndarray]]
"""(examples, indices, counted bool [batch]): each example of a split once; what fills up the last batch is not counted."""


class Feed(Protocol):
    """A split as batches on the devices; what `OnDevice.take` is given."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def training(self, first: int, stop: int, batch: int, seed: int) -> TrainingBatches:
        """The batches of the steps first .. stop-1."""
        ...

    def evaluation(self, batch: int) -> EvaluationBatches:
        """All examples in their order."""
        ...


class Whole:
    """A small split, copied to every device once."""

    def __init__(self, split: Split, placement: Placement):
        self._examples = put(split, placement)

    def __len__(self) -> int:
        return len(self._examples)

    def training(self, first: int, stop: int, batch: int, seed: int) -> TrainingBatches:
        """See `Feed`."""
        for step in range(first, stop):
            yield self._examples, training_batch(step, len(self), batch, seed)

    def evaluation(self, batch: int) -> EvaluationBatches:
        """See `Feed`."""
        for indices, counted in evaluation_batches(len(self), batch):
            yield self._examples, indices, counted


AHEAD = 1
"""Batches on their way to the devices while these work at the one before."""


class Streamed:
    """A large split, decoded batch by batch (loader.py); each process of a run decodes what its own devices need."""

    def __init__(self, stream: Stream, placement: Placement, workers: int | None = None):
        self._stream, self._sharding = stream, placement.sharding(columns.BATCH_FIRST)
        accelerated = placement.mesh.devices.flat[0].platform != "cpu"  # a CPU's cores are busy with the network
        self._workers = loader.cores() // 2 * accelerated if workers is None else workers

    def __len__(self) -> int:
        return len(self._stream)

    def training(self, first: int, stop: int, batch: int, seed: int) -> TrainingBatches:
        """See `Feed`."""
        source = loader.Training(self._stream, first, stop, batch, seed, rows_of(self._sharding, batch))
        for examples in self._ahead(source):
            yield examples, None

    def evaluation(self, batch: int) -> EvaluationBatches:
        """See `Feed`."""
        source = loader.Evaluation(self._stream, batch, rows_of(self._sharding, batch))
        for number, examples in enumerate(self._ahead(source)):
            yield examples, None, source.counted(number)

    def _ahead(self, source: loader.Training | loader.Evaluation) -> Generator[OnDevice]:
        waiting: deque[OnDevice] = deque()
        with contextlib.closing(loader.batches(source, self._workers)) as batches:
            for batch in batches:
                waiting.append(OnDevice(*(self._put(batch[name], source.batch) for name in ("images", "labels"))))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def _put(self, rows: np.ndarray, batch: int) -> jax.Array:
        return jax.make_array_from_process_local_data(self._sharding, rows, (batch, *rows.shape[1:]))


def rows_of(sharding: NamedSharding, batch: int) -> np.ndarray:
    """Rows of a batch, int64, that live on devices of this process."""
    slices = sharding.addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in slices]))


def feed(split: Split | Stream, placement: Placement, workers: int | None = None) -> Feed:
    """The split for this mesh; `workers` processes decode what is read from disk (see `Data.workers`)."""
    return Whole(split, placement) if isinstance(split, Split) else Streamed(split, placement, workers)


def hold_out(data_set: DataSet, validation: int, *, fold_in: bool = False) -> tuple[Split | Stream, Split | Stream]:
    """(training, validation) splits of the training images, the same ones in every run, in their original order.

    With fold_in the training split has all of them, those of the validation split too.
    """
    n = len(data_set.train)
    if validation >= n:
        raise UsageError(
            f"--data.validation={validation}: expected fewer than the {n} training images of {data_set.title}."
        )
    held = np.zeros(n, bool)
    held[np.random.Generator(np.random.Philox(HELD_OUT)).permutation(n)[:validation]] = True
    training = data_set.train if fold_in else data_set.train.take(~held)
    return training, data_set.train.take(held)


def put(split: Split, placement: Placement) -> OnDevice:
    """Copy a split to every device of the mesh."""
    whole = placement.sharding(columns.WHOLE)
    return OnDevice(distributed.to_global_array(split.images, whole), distributed.to_global_array(split.labels, whole))
