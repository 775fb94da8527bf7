"""The training step of this program, the parts of the network, and the plain step in jax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax import optim
from alexnet_jax.columns import Columns
from alexnet_jax.data.augment import normalize
from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.data.pipeline import put
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.experiment import Experiment
from alexnet_jax.model import dropout_masks, initialize
from alexnet_jax.network import layers
from alexnet_jax.network.table import LRN, AvgPool, LayerShape, MapNorm, MaxPool, shapes
from alexnet_jax.train import State, Trainer
from benchmarks import plain
from benchmarks.shares import shares
from benchmarks.sizes import COPIED, Job, product_rows

IMAGES = 1024
"""Number of random images on the device, from which each step takes its batch."""

SEED = np.uint32(0)

STATISTICS = Statistics(np.full((1, 1, 3), 120.0, np.float32), 64.0, np.diag([100.0, 20.0, 10.0]).astype(np.float32))
"""Mean, scale and principal components of the colours, similar to those of photographs."""


class TrainingStep:
    """The step of launch.py, including augmentation, on a mesh of one or two devices."""

    def __init__(self, job: Job, data: int = 1, column: int = 1):
        experiment, table = _with_precision(job), job.table
        trainer = Trainer(experiment, table, Columns.over(data, column), STATISTICS, steps_per_epoch=1000)
        images, labels = random_images(IMAGES, table.image, table.classes)
        self.split = put(MemorySplit(images, labels), trainer.placement)
        self.batches = np.random.default_rng(0).integers(IMAGES, size=(16, job.batch), dtype=np.int32)
        self.scopes = [spec.name for spec in table.layers] + ["update"]
        self.state: State = trainer.initial_state()
        self.program = trainer.step().lower(self.state, self.split, self.batches[0], SEED).compile()
        self.steps = 0

    def __call__(self) -> Any:
        """Dispatch a step and return its loss without waiting."""
        self.state, result = self.program(self.state, self.split, self.batches[self.steps % 16], SEED)
        self.steps += 1
        return result.loss

    def shares(self) -> dict[str, float]:
        """Return {layer, 'update' or 'rest': fraction of the time of a step}."""
        return shares(self, self.program.as_text(), self.scopes)


def _with_precision(job: Job) -> Experiment:
    experiment = job.experiment
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, precision=job.precision))


def random_images(number: int, image: tuple[int, int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images [number, height, width, channels] and int32 labels [number]."""
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(number, *image), dtype=np.uint8)
    return images, generator.integers(classes, size=number).astype(np.int32)


class PlainStep:
    """The same step in plain jax, on a fixed batch of normalized images."""

    def __init__(self, job: Job):
        table = job.table
        rule = optim.optimizer(job.experiment.optim, table, 1000, 100_000)
        images, labels = random_images(job.batch, table.image, table.classes)
        self.examples = (normalize(jnp.asarray(images), STATISTICS).astype(job.precision), labels)

        def step(parameters: Any, velocities: Any, key: jax.Array, examples: Any) -> Any:
            masks = dropout_masks(table, key, job.batch)
            narrow = lambda parameters: jax.tree.map(lambda x: x.astype(job.precision), parameters)  # noqa: E731
            loss = lambda parameters: plain.loss(table, narrow(parameters), *examples, masks=masks)  # noqa: E731
            value, gradients = jax.value_and_grad(loss)(parameters)
            updates, velocities = rule.update(gradients, velocities, parameters)
            return optax.apply_updates(parameters, updates), velocities, value

        self.parameters = initialize(table, jax.random.key(0), Columns.over())
        self.velocities = rule.init(self.parameters)
        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.steps = 0

    def __call__(self) -> Any:
        """Dispatch a step and return its loss without waiting."""
        key = jax.random.key(self.steps)
        self.parameters, self.velocities, loss = self.step(self.parameters, self.velocities, key, self.examples)
        self.steps += 1
        return loss


def wait(result: Any) -> None:
    """Wait until a dispatched result has been computed."""
    jax.block_until_ready(result)


def parts(job: Job) -> dict[str, Callable[[], Any]]:
    """Return {name: function that computes one part of the network, for both columns, and its gradients}."""
    found: dict[str, Callable[[], Any]] = {}
    shared = True
    for shape in shapes(job.table):
        shared = shared or shape.spec.crossing == "gather"
        found[shape.spec.name] = _linear(job, shape, shared)
        size = shape.convolved
        for part in shape.spec.after:
            if isinstance(part, LRN | MapNorm):
                found[f"{shape.spec.name} LRN"] = _part(job, size, lambda x, part=part: layers.lrn(x, part))
            elif isinstance(part, MaxPool | AvgPool):
                found[f"{shape.spec.name} pool"] = _part(job, size, lambda x, part=part: layers.apply_part(part, x, None))
                size = (size[0], *shape.outputs[1:])
        shared = shape.spec.crossing == "sum"
    return found


def _linear(job: Job, shape: LayerShape, shared: bool) -> Callable[[], Any]:
    """Return a function that computes a convolution or matrix product and its gradients, except that of the images."""
    spec, number = shape.spec, shape.kernel[0]

    def run(kernel: jax.Array, x: jax.Array) -> jax.Array:
        sums = layers.linear_columns(spec, x, kernel, shared)
        return sums.sum(0) if spec.crossing == "sum" else sums

    kernel = jnp.asarray(_normal(shape.kernel), job.precision)
    inputs = shape.inputs if shared else (number, *shape.inputs)
    x = jnp.asarray(_normal((*inputs, job.batch)), job.precision)
    return _with_gradients(run, (kernel, x), by=1 if spec == job.table.layers[0] else 2)


def _part(job: Job, size: tuple[int, ...], function: Callable) -> Callable[[], Any]:
    x = jnp.asarray(_normal((job.table.columns, *size, job.batch)), job.precision)
    return _with_gradients(function, (x,), by=1)


def _with_gradients(function: Callable, arguments: tuple[jax.Array, ...], by: int) -> Callable[[], Any]:
    """Return a function that computes `function` and its gradients with respect to the first `by` arguments."""

    @jax.jit
    def run(g: jax.Array, arguments: tuple[jax.Array, ...]) -> Any:
        y, pull = jax.vjp(lambda *first: function(*first, *arguments[by:]), *arguments[:by])
        return y, pull(g)

    g = jnp.ones_like(jax.eval_shape(function, *arguments))
    return lambda: run(g, arguments)


def _normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


class Product:
    """The product of two square matrices."""

    def __init__(self, job: Job):
        self.rows = product_rows(jax.default_backend())
        self.a, self.b = (jnp.asarray(_normal((self.rows, self.rows)), job.precision) for _ in range(2))
        self.run = jax.jit(jnp.matmul)

    @property
    def operations(self) -> int:
        """The number of multiplications and additions."""
        return 2 * self.rows**3

    def __call__(self) -> Any:
        """Dispatch the product and return it without waiting."""
        return self.run(self.a, self.b)


class Copy:
    """A pass over an array that does not fit into a CPU's caches: the speed of its memory."""

    def __init__(self) -> None:
        self.x = jnp.zeros(COPIED // 4, jnp.float32)
        self.run = jax.jit(lambda x: x + 1)

    def __call__(self) -> Any:
        """Dispatch the pass and return its result without waiting."""
        return self.run(self.x)
