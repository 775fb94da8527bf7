"""Batches of pictures from disk, read and decoded by threads or worker processes of grain. No jax: workers start fast.

What grain numbers, shares out and prefetches is whole batches, so their order is the same whatever the number of workers,
and a start at any step needs nothing but the step.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from alexnet_jax.data.order import training_batch
from alexnet_jax.data.split import Stream
from alexnet_jax.errors import RunError
from alexnet_jax.processes.workers import initialize_worker, open_many_files

MOST_THREADS = 16

Batch = dict[str, np.ndarray]
"""{'images': uint8 [rows, side, side, 3], 'labels': int32 [rows]}"""


@dataclass(frozen=True)
class Training:
    """The batches of the steps first .. stop-1, of which this process needs some rows."""

    stream: Stream
    first: int
    stop: int
    batch: int
    seed: int
    rows: np.ndarray

    def __len__(self) -> int:
        return self.stop - self.first

    def __getitem__(self, number: int) -> Batch:
        indices = training_batch(self.first + number, len(self.stream), self.batch, self.seed)
        return _load(self.stream, indices[self.rows])


@dataclass(frozen=True)
class Evaluation:
    """All examples in their order; the rows that fill up the last batch are black."""

    stream: Stream
    batch: int
    rows: np.ndarray

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch)

    def __getitem__(self, number: int) -> Batch:
        return _load(self.stream, number * self.batch + self.rows)

    def counted(self, number: int) -> np.ndarray:
        """bool [batch]: which rows of a batch are examples."""
        return np.arange(number * self.batch, (number + 1) * self.batch) < len(self.stream)


def _load(stream: Stream, indices: np.ndarray) -> Batch:
    images = np.zeros((len(indices), *stream.image), np.uint8)
    labels = np.zeros(len(indices), np.int32)
    for row, index in enumerate(indices.tolist()):
        if index < len(stream):
            images[row], labels[row] = stream[index]
    return {"images": images, "labels": labels}


def batches(source: Training | Evaluation, workers: int) -> Generator[Batch]:
    """The batches in order, some of them decoded ahead: by `workers` processes, or where it is 0 by threads of this one.

    Close the generator to end the workers. Raises what reading a picture raises.
    """
    if not flags.FLAGS.is_parsed():  # grain's worker processes read a flag of their own
        flags.FLAGS.mark_as_parsed()
    open_many_files()
    threads = min(cores(), MOST_THREADS)  # each assembles a batch of its own
    ahead = grain.ReadOptions(num_threads=1 if workers else threads, prefetch_buffer_size=2 if workers else threads + 1)
    random_access: Any = source  # len() and [] are all grain needs
    dataset: Any = grain.MapDataset.source(random_access).to_iter_dataset(ahead)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1), initialize_worker)
    iterator = iter(dataset)
    try:
        yield from iterator
    except (RunError, GeneratorExit):
        raise
    except Exception as problem:  # grain's own, of several types: a worker was killed, or its memory is gone
        raise RunError(
            f"Reading pictures failed ({type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}). "
            "Is there enough memory, and in /dev/shm? Try --data.workers=0, threads of one process."
        ) from problem
    finally:
        iterator.close()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
