"""Top-1 and top-5 error and mean loss of a split, every example counted exactly once."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh as DeviceMesh

from alexnet_jax import columns
from alexnet_jax.data.augment import Statistics, normalize, views
from alexnet_jax.data.pipeline import OnDevice, evaluation_batches
from alexnet_jax.errors import Diverged
from alexnet_jax.experiment import Data, Train
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

    Of `data` it reads the views of an image, whose softmax is averaged; of `train` the size of its batches and the type the
    network computes in, as in training.
    """

    def __init__(
        self, table: Table, mesh: DeviceMesh, stats: Statistics, data: Data | None = None, train: Train | None = None
    ):
        data, train = data or Data(), train or Train()
        replicas = columns.data_replicas(mesh)
        self.batch = -(-train.eval_batch // replicas) * replicas  # rounded up: the numbers do not depend on it
        batch_first = columns.place(mesh, columns.BATCH_FIRST)

        @jax.jit
        def step(parameters: Parameters, split: OnDevice, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
            images = jax.lax.with_sharding_constraint(split.images[indices], batch_first)
            cut = views(normalize(images, stats).astype(train.precision), data)
            scores = average([logits(table, mesh, parameters, view).T for view in cut])
            labels = split.labels[indices]
            return cross_entropy(scores, labels), rank(scores, labels)

        self._step = step

    def __call__(self, parameters: Parameters, split: OnDevice) -> Scores:
        """Raises Diverged when a loss is not finite."""
        return self.examine(parameters, split)[0]

    def examine(self, parameters: Parameters, split: OnDevice) -> tuple[Scores, np.ndarray]:
        """The scores, and for every image in order how many classes stood before the right one, uint16 [n].

        Raises Diverged when a loss is not finite.
        """
        losses, ranks = [], []
        for indices, counted in evaluation_batches(len(split), self.batch):
            loss, place = jax.device_get(self._step(parameters, split, indices))
            losses.append(loss[counted])
            ranks.append(place[counted])
        place = np.concatenate(ranks)
        loss = math.fsum(np.concatenate(losses)) / len(place)
        if not math.isfinite(loss):
            raise Diverged(f"The mean loss of an evaluation is {loss}: the parameters are not usable.")
        scores = Scores(loss, float((place >= 1).mean()), float((place >= 5).mean()), len(place))
        return scores, place.astype(np.uint16)


def average(scores: list[jax.Array]) -> jax.Array:
    """Logits [classes, batch] whose softmax is the mean of the softmax of those given (section 4.1); one stays as it is."""
    if len(scores) == 1:
        return scores[0]
    logs = jnp.stack([jax.nn.log_softmax(view, axis=0) for view in scores])
    return jax.nn.logsumexp(logs, axis=0) - math.log(len(scores))


def rank(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes stand before the right one, int32 [batch], for scores [classes, batch]; 0 is a top-1 hit.

    Of equal scores the lower class stands first, as in argmax, so that a network with constant outputs is no perfect one.
    """
    right = jnp.take_along_axis(scores, labels[None], axis=0)
    lower = jnp.arange(scores.shape[0])[:, None] < labels[None]
    return ((scores > right) | ((scores == right) & lower)).sum(0)
