"""Measure the time from a start to the first step, and the time of the input alone: `python -m benchmarks.start`.

The first start compiles into an empty cache; the second start reads this cache. Both use the decoded images that an earlier run
has cached. If PyTorch is installed, tensorboardX imports it, which adds one or two seconds to both.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

import experiments
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.processes.allocator import keep_memory
from benchmarks.rivals import ROOT


@dataclass(frozen=True)
class Options:
    """Measure the time from a start to the first step, with an empty and a filled cache, and the time of the input."""

    exp: str = "alexnet_cifar"
    """The experiment; alexnet_digits needs no download."""


def main(options: Options) -> None:
    """Measure and print the times."""
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        for compiled in ("with an empty compilation cache", "with the compilation cache of the first start"):
            seconds = first_step(options.exp, Path(folder))
            print(f"{options.exp}: from start to first step {seconds:.1f} s, {compiled}", flush=True)
    seconds = input_seconds(options.exp)
    print(f"an epoch of 45,000 images without training (batches, normalization, crops, mirrors): {seconds:.1f} s")


def first_step(name: str, folder: Path) -> float:
    """Return the seconds until metrics.jsonl has its first line. Raises UsageError if the run ends before."""
    with tempfile.TemporaryDirectory() as run, tempfile.TemporaryFile("w+") as errors:
        options = [f"--exp={name}", f"--workdir={run}/run", "--train.log_every=1", "--data.fallback=error"]
        environment = {"JAX_COMPILATION_CACHE_DIR": str(folder)}
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "launch.py", *options],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        metrics = Path(run, "run", "metrics.jsonl")
        while not (metrics.exists() and b"\n" in metrics.read_bytes()):
            if process.poll() is not None:
                errors.seek(0)
                raise UsageError(errors.read().strip().removeprefix("Error: "))
            time.sleep(0.02)
        seconds = time.monotonic() - start
        process.kill()
        process.wait()
        assert json.loads(metrics.read_text().splitlines()[0])["step"] == 1
        return seconds


def input_seconds(name: str, images: int = 45_000) -> float:
    """Return the seconds that the device takes to select and augment an epoch of images, without training."""
    import jax

    from alexnet_jax.data import order, pipeline
    from alexnet_jax.data.dataset import MemorySplit
    from alexnet_jax.train import Trainer
    from benchmarks.ours import STATISTICS, random_images
    from benchmarks.sizes import Job

    experiment = experiments.experiment(name)
    batch = experiment.train.batch
    table = Job(name, batch).table
    pixels, labels = random_images(images, table.image, table.classes)
    split = pipeline.put(MemorySplit(pixels, labels), Columns.over())
    trainer = Trainer(experiment, table, Columns.over(), STATISTICS, steps_per_epoch=1)
    take = jax.jit(lambda split, indices, key: trainer.images(split.take(indices).images, key, jax.numpy.int32(0)))

    def epoch() -> None:
        for step in range(order.steps_per_epoch(images, batch)):
            taken = take(split, order.training_batch(step, images, batch, seed=0), jax.random.key(step))
        jax.block_until_ready(taken)

    epoch()  # compiles
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, prog="python -m benchmarks.start", description=__doc__, use_underscores=True))
    except UsageError as problem:
        sys.exit(f"Error: {problem}")
