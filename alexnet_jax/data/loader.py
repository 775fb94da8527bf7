"""Batches of pictures from disk, read and decoded by threads or by grain's worker processes, which start fast without jax.

grain numbers, distributes and prefetches complete batches. Their order therefore does not depend on the number of workers, and
a training resumes at any step from the number of the step alone.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from alexnet_jax.data.dataset import DiskSplit
from alexnet_jax.data.order import training_batch
from alexnet_jax.errors import RunError
from alexnet_jax.processes.workers import initialize_worker, open_many_files

MOST_THREADS = 16


class Batch(NamedTuple):
    """The rows of a batch that a process needs."""

    images: np.ndarray  # uint8 [rows, side, side, 3]
    labels: np.ndarray  # int32 [rows]


@dataclass(frozen=True)
class Training:
    """The batches of the steps from `first` to `stop` - 1, as a random-access sequence."""

    split: DiskSplit
    first: int
    stop: int
    batch: int
    """Number of images in a batch, over all processes."""
    seed: int
    rows: np.ndarray
    """int64: rows of a batch that this process reads."""

    def __len__(self) -> int:
        return self.stop - self.first

    def __getitem__(self, number: int) -> Batch:
        indices = training_batch(self.first + number, len(self.split), self.batch, self.seed)
        return _read(self.split, indices[self.rows])


@dataclass(frozen=True)
class Evaluation:
    """All examples in order, in batches; the rows that pad the last batch are zeros."""

    split: DiskSplit
    batch: int
    """Number of images in a batch, over all processes."""
    rows: np.ndarray
    """int64: rows of a batch that this process reads."""

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch)

    def __getitem__(self, number: int) -> Batch:
        return _read(self.split, number * self.batch + self.rows)

    def counted(self, number: int) -> np.ndarray:
        """Return bool [batch], True for the rows of a batch that are examples."""
        return np.arange(number * self.batch, (number + 1) * self.batch) < len(self.split)


def _read(split: DiskSplit, indices: np.ndarray) -> Batch:
    images = np.zeros((len(indices), *split.image), np.uint8)
    labels = np.zeros(len(indices), np.int32)
    for row, index in enumerate(indices.tolist()):
        if index < len(split):
            images[row], labels[row] = split[index]
    return Batch(images, labels)


def batches(steps: Training | Evaluation, workers: int) -> Generator[Batch]:
    """Yield the batches in order while later ones are decoded.

    Close the generator to end the workers.

    Args:
      steps: The batches.
      workers: Number of processes that decode; 0 for threads of this process.

    Raises:
      RunError: A picture is damaged or a label out of range, or a worker process died.
    """
    if not flags.FLAGS.is_parsed():  # grain's worker processes read a flag of their own
        flags.FLAGS.mark_as_parsed()
    open_many_files()
    threads = min(cores(), MOST_THREADS)  # each assembles its own batch
    ahead = grain.ReadOptions(num_threads=1 if workers else threads, prefetch_buffer_size=2 if workers else threads + 1)
    random_access: Any = steps  # grain needs only len() and []
    dataset: Any = grain.MapDataset.source(random_access).to_iter_dataset(ahead)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1), initialize_worker)
    iterator = iter(dataset)
    try:
        yield from iterator
    except (RunError, GeneratorExit):
        raise
    except Exception as problem:  # grain raises several types when a worker was killed or has no memory
        reason = str(problem).splitlines()[0] if str(problem) else ""
        raise RunError(
            f"Reading pictures failed ({type(problem).__name__}: {reason}). Check that memory and /dev/shm are not full, or try "
            "--data.workers=0, which uses threads of one process."
        ) from problem
    finally:
        iterator.close()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
