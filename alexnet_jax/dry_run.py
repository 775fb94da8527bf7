"""`--dry_run`: what a training would need and how long it would take, measured on a few steps. `--mode=summary`."""

import contextlib
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from alexnet_jax import assembly, columns
from alexnet_jax.data import pipeline, registry
from alexnet_jax.data.cifar10 import SHAPE
from alexnet_jax.data.dataset import DataSet, DiskSplit, MemorySplit, Split
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.data.tfds_sets import CIFAR10, data_folder, read_set, version_folder
from alexnet_jax.errors import DataNotFoundError
from alexnet_jax.experiment import Data
from alexnet_jax.formatting import estimated_duration, size
from alexnet_jax.modes import Request
from alexnet_jax.network.summary import summary
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.run.restore import step_folders
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.train import Trainer
from alexnet_jax.training import check_request

STEPS = 4
"""Number of steps whose time is measured; the first, which may still wait for memory, is left out."""

EVALUATION = 1 / 3
"""Time of the forward pass of an image, relative to that of a training step."""


def show(request: Request) -> None:
    """Print the shapes, devices, data, memory, disk space and time of a training. Nothing is written or downloaded.

    Raises UsageError and RunError for every fault of the command that can be found without reading the data.
    """
    experiment = dataclasses.replace(
        request.experiment, train=dataclasses.replace(request.experiment.train, compile_cache=False)
    )
    request = dataclasses.replace(request, experiment=experiment)
    set_up_devices(experiment)
    origin = check_request(request)
    found, data_set = _data(experiment.data)
    assembly.report_validation(request.experiment.data, request.given, data_set)
    stats = _statistics(data_set.train.image)
    setup = assembly.assemble_training(experiment, data_set, stats)
    trainer, training, validation = setup.trainer(), setup.training, setup.validation
    done, folder = _folder(request, origin, trainer.total_steps)
    print(folder)
    summarize(request)
    print(f"\nDevices: {_devices(trainer)}")
    print(f"Data: {found}")
    print(f"  {len(training):,} images to train on, {len(validation):,} held out, {len(data_set.test):,} to test with")
    measured = measure(trainer, training, data_set.fingerprint != "")
    print(_memory(measured))
    print(_disk(measured, request))
    print(duration(measured, trainer, done, len(validation), len(data_set.test)))


# --- the folder and the data -----------------------------------------------------------------------------------------


def _folder(request: Request, origin: str | None, total: int) -> tuple[int, str]:
    """Return (number of steps done, a line about the folder)."""
    workdir = Workdir(request.workdir)
    if workdir.record() is None or request.overwrite:
        start = f" from the parameters of {origin}" if origin else ""
        return 0, f"Folder: {workdir.path}, a new run{start}"
    result = workdir.result()
    if result is not None and result.steps >= total:
        longer = "--restore starts a longer one from it"
        if request.experiment.optim.schedule not in ("linear", "cosine"):
            longer = "a larger --train.epochs would continue it"
        return total, f"Folder: {workdir.path}, a finished run; {longer}"
    saved = [int(step.name) for step in step_folders(workdir.path / "checkpoints")]
    return max(saved, default=0), f"Folder: {workdir.path}, a run to be continued at step {max(saved, default=0):,}"


def _data(data: Data) -> tuple[str, DataSet]:
    """Return (what was found, a data set of the right size).

    CIFAR-10 is replaced by noise, since reading it would fill the cache; a data set that is missing by empty records.
    """
    if data.name == "cifar10":
        folder = version_folder(CIFAR10, data_folder(CIFAR10, data.dir))
        found = "CIFAR-10 is not here; a start would download it (162 MiB)"
        if folder is not None:
            found = f"CIFAR-10 {read_set(CIFAR10, folder).version} in {folder}"
        return found, _stand_in(data, _noise)
    try:
        data_set = registry.load(data)
        return data_set.title, data_set
    except DataNotFoundError as problem:
        return str(problem).splitlines()[0], _stand_in(data, _absent)


def _stand_in(data: Data, split: Callable[[int, Data], Split]) -> DataSet:
    images, classes = registry.image_counts(data), tuple(map(str, range(registry.class_count(data))))
    return DataSet(data.name, data.name, classes, split(images.train, data), split(images.test, data), fingerprint="")


def _noise(count: int, _: Data) -> MemorySplit:
    random = np.random.default_rng(0)
    return MemorySplit(random.integers(0, 256, (count, *SHAPE), np.uint8), random.integers(0, 10, count, np.int32))


def _absent(count: int, data: Data) -> DiskSplit:
    records: Any = range(count)  # has the length of the missing records, and is never read
    return DiskSplit(records, data.side, registry.class_count(data), np.arange(count), "")


def _statistics(image: tuple[int, ...]) -> Statistics:
    """Return statistics in place of those that a training would measure."""
    return Statistics(np.full(image, 127.5, np.float32), 74.0, np.eye(3, dtype=np.float32))


# --- measurements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Measurements of the compiled step."""

    compilation: float
    """Seconds of compilation, without the cache of compiled programs."""
    step: float
    """Seconds of a step."""
    reading: float
    """Seconds in which the pictures of a step are read and decoded; 0 for data sets in memory or missing ones."""
    memory: int
    """Bytes that the step needs on each device."""
    state: int
    """Bytes of parameters and velocities, over all devices."""


def measure(trainer: Trainer, training: Split, found: bool) -> Measured:
    """Compile the training step and time a few steps on random images."""
    options, state = trainer.experiment.train, trainer.initial_state()
    examples, indices = _examples(trainer, training)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((state.parameters, state.optimizer)))
    start = time.perf_counter()
    step = trainer.step().lower(state, examples, indices, np.uint32(options.seed)).compile()
    compilation = time.perf_counter() - start
    needed: Any = step.memory_analysis()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        state, result = step(state, examples, indices, np.uint32(options.seed))
        jax.block_until_ready(result)
        seconds.append(time.perf_counter() - start)
    memory = needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes
    reading = _reading(trainer, training) if found and isinstance(training, DiskSplit) else 0.0
    memory -= needed.alias_size_in_bytes
    return Measured(compilation, min(seconds[1:]), reading, memory, size)


def _examples(trainer: Trainer, training: Split) -> tuple[pipeline.OnDevice, np.ndarray | None]:
    """Return (examples, indices) as `Feed.training` yields them."""
    batch = trainer.experiment.train.batch
    if isinstance(training, MemorySplit):
        return pipeline.put(training, trainer.placement), np.arange(batch, dtype=np.int32)
    random, sharding = np.random.default_rng(0), trainer.placement.sharding(columns.BATCH_FIRST)
    images = random.integers(0, 256, (batch, *training.image), np.uint8)
    return pipeline.OnDevice(*(jax.device_put(x, sharding) for x in (images, np.zeros(batch, np.int32)))), None


def _reading(trainer: Trainer, training: DiskSplit) -> float:
    options = trainer.experiment.train
    feed = pipeline.feed(training, trainer.placement, trainer.experiment.data.workers)
    with contextlib.closing(feed.training(0, STEPS, options.batch, options.seed)) as batches:
        start = time.perf_counter()
        for _ in batches:
            pass
        return (time.perf_counter() - start) / STEPS


# --- text ------------------------------------------------------------------------------------------------------------


def _devices(trainer: Trainer) -> str:
    return f"{trainer.placement.mesh.size} of {len(jax.devices())}, {assembly.describe(trainer.placement)}"


def _memory(measured: Measured) -> str:
    available = _available_memory()
    total = "" if available is None else f" of {size(available)}"
    warning = "" if available is None or measured.memory < available else "; TOO LITTLE, try a smaller --train.batch"
    return f"Memory of each device: {size(measured.memory)}{total} for a step, as XLA plans it{warning}"


def _available_memory() -> int | None:
    limits = jax.devices()[0].memory_stats()
    if limits is not None:
        return limits.get("bytes_limit")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(jax.devices())


def _disk(measured: Measured, request: Request) -> str:
    kept = request.experiment.train.keep + 2  # with the best, and the one that is being written
    folder = next(path for path in (request.workdir.absolute(), *request.workdir.absolute().parents) if path.is_dir())
    needed, free = kept * measured.state, shutil.disk_usage(folder).free
    warning = "; TOO LITTLE, choose another --workdir" if free < needed else ""
    return f"Disk: {size(needed)} for up to {kept} checkpoints, {size(free)} free{warning}"


def duration(measured: Measured, trainer: Trainer, done: int, validation: int, test: int) -> str:
    """Return the line about the time. A CPU reads and computes with the same cores; an accelerator computes as the CPU reads."""
    options, step = trainer.experiment.train, measured.step + measured.reading
    if trainer.placement.mesh.devices.flat[0].platform != "cpu":
        step = max(measured.step, measured.reading)
    views = trainer.experiment.data.views
    left = trainer.total_steps - done
    epochs = math.ceil(options.epochs * left / trainer.total_steps)
    evaluated = (epochs * validation + test * views) * EVALUATION / options.batch
    total = left * step + evaluated * measured.step
    read = f", {measured.reading:.3g} s to read its pictures" if measured.reading else ""
    return (
        f"Time: {left:,} steps of {options.batch} images, {measured.step:.3g} s each{read}: about "
        f"{estimated_duration(total)} with evaluations, measured on {STEPS} steps, after "
        f"{estimated_duration(measured.compilation)} of compilation"
    )


def summarize(request: Request) -> None:
    """Print the table of layers of an experiment."""
    print(summary(assembly.build_table(request.experiment)))
