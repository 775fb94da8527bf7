"""Top-1 and top-5 error and mean loss of a split, every example counted exactly once."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh as DeviceMesh

from alexnet_jax import columns
from alexnet_jax.data.augment import Statistics, normalize
from alexnet_jax.data.pipeline import OnDevice, evaluation_batches
from alexnet_jax.errors import RunError
from alexnet_jax.model import Parameters, cross_entropy, logits
from alexnet_jax.table import Table


@dataclass(frozen=True)
class Scores:
    """Of a whole split; errors are fractions."""

    loss: float  # mean cross-entropy, nats
    top1_error: float
    top5_error: float
    examples: int


class Evaluator:
    """Evaluates parameters on splits; compiled once per split, whatever its size.

    precision: the type the network computes in, as in training.
    """

    def __init__(self, table: Table, mesh: DeviceMesh, stats: Statistics, batch: int, precision: str = "float32"):
        replicas = columns.data_replicas(mesh)
        self.batch = -(-batch // replicas) * replicas  # rounded up: the numbers do not depend on it
        batch_first = columns.place(mesh, columns.BATCH_FIRST)

        @jax.jit
        def step(parameters: Parameters, split: OnDevice, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
            images = jax.lax.with_sharding_constraint(split.images[indices], batch_first)
            scores = logits(table, mesh, parameters, normalize(images, stats).astype(precision)).T
            labels = split.labels[indices]
            return cross_entropy(scores, labels), rank(scores, labels)

        self._step = step

    def __call__(self, parameters: Parameters, split: OnDevice) -> Scores:
        """Raises RunError when a loss is not finite."""
        losses, ranks = [], []
        for indices, counted in evaluation_batches(len(split), self.batch):
            loss, place = jax.device_get(self._step(parameters, split, indices))
            losses.append(loss[counted])
            ranks.append(place[counted])
        place = np.concatenate(ranks)
        loss = math.fsum(np.concatenate(losses)) / len(place)
        if not math.isfinite(loss):
            raise RunError(f"The mean loss of an evaluation is {loss}: the parameters are not usable.")
        return Scores(loss, float((place >= 1).mean()), float((place >= 5).mean()), len(place))


def rank(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes stand before the right one, int32 [batch], for scores [classes, batch]; 0 is a top-1 hit.

    Of equal scores the lower class stands first, as in argmax, so that a network with constant outputs is no perfect one.
    """
    right = jnp.take_along_axis(scores, labels[None], axis=0)
    lower = jnp.arange(scores.shape[0])[:, None] < labels[None]
    return ((scores > right) | ((scores == right) & lower)).sum(0)
