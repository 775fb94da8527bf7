"""Top-1 error, top-5 error and mean loss of a data split; every example counts exactly once."""

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import columns
from alexnet_jax.data.augment import View, cut_view, list_views, normalize
from alexnet_jax.data.pipeline import Feed, OnDevice
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import Diverged
from alexnet_jax.experiment import Data, Train
from alexnet_jax.model import Parameters, cross_entropy, logits
from alexnet_jax.network.placement import Placement
from alexnet_jax.network.table import Table
from alexnet_jax.processes.allocator import return_free_memory


@dataclass(frozen=True)
class Scores:
    """The scores of a data split; errors are fractions."""

    loss: float  # mean cross-entropy, nats
    top1_error: float
    top5_error: float
    examples: int


class Stopped(Exception):  # noqa: N818 - not an error
    """An evaluation was stopped between two batches at its caller's request."""


class Evaluator:
    """Evaluates parameters on data splits; compiles once per split.

    `data` determines the views of an image, whose softmax is averaged; `train` the batch size and the precision.
    """

    def __init__(
        self,
        table: Table,
        placement: Placement,
        stats: Statistics,
        data: Data | None = None,
        train: Train | None = None,
    ):
        data, train = data or Data(), train or Train()
        self.placement, replicas = placement, placement.replicas
        self.batch = -(-train.eval_batch // replicas) * replicas  # rounded up; scores do not depend on it
        batch_first = placement.sharding(columns.BATCH_FIRST)

        @functools.partial(jax.jit, compiler_options=placement.compiler_options)
        def see(parameters: Parameters, examples: OnDevice, indices: jax.Array | None, corner: View) -> jax.Array:
            images = jax.lax.with_sharding_constraint(examples.take(indices).images, batch_first)
            seen = cut_view(normalize(images, stats).astype(train.precision), corner, data)
            return logits(table, placement, parameters, seen).T

        # Replicated, since every process of a run counts all images.
        @functools.partial(jax.jit, out_shardings=placement.sharding(columns.WHOLE))
        def judge(scores: jax.Array, examples: OnDevice, indices: jax.Array | None) -> tuple[jax.Array, jax.Array]:
            labels = examples.take(indices).labels
            return cross_entropy(scores, labels), rank(scores, labels)

        self._data, self._see, self._average, self._judge = data, see, jax.jit(average), judge

    def scores(self, parameters: Parameters, examples: OnDevice, indices: np.ndarray | None = None) -> jax.Array:
        """Return logits [classes, batch] whose softmax is the mean over the views, which one program computes in turn."""
        corners = list_views(examples.images.shape[1], self._data)
        return self._average([self._see(parameters, examples, indices, corner) for corner in corners])

    def __call__(self, parameters: Parameters, split: Feed, stop: Callable[[], bool] = lambda: False) -> Scores:
        """Return the scores; raises as `examine`."""
        return self.examine(parameters, split, stop)[0]

    def examine(
        self, parameters: Parameters, split: Feed, stop: Callable[[], bool] = lambda: False
    ) -> tuple[Scores, np.ndarray]:
        """Return the scores and each image's `rank`, uint16 [n], in the order of the split.

        Raise Diverged when the mean loss is not finite, Stopped before a batch when `stop()` is true.
        """
        return_free_memory()  # compilation and training steps leave several hundred MiB, in pieces too small for an evaluation
        losses, ranks = [], []
        with contextlib.closing(split.evaluation(self.batch)) as batches:
            for examples, indices, counted in batches:
                if stop():
                    raise Stopped
                seen = self.scores(parameters, examples, indices)
                loss, found = jax.device_get(self._judge(seen, examples, indices))
                losses.append(loss[counted])
                ranks.append(found[counted])
        return_free_memory()
        all_ranks = np.concatenate(ranks)
        loss = math.fsum(np.concatenate(losses)) / len(all_ranks)
        if not math.isfinite(loss):
            raise Diverged(f"The mean loss of an evaluation is {loss}: the parameters are not usable.")
        scores = Scores(loss, float((all_ranks >= 1).mean()), float((all_ranks >= 5).mean()), len(all_ranks))
        return scores, all_ranks.astype(np.uint16)


def average(scores: list[jax.Array]) -> jax.Array:
    """Return logits [classes, batch] whose softmax is the mean of the given ones' softmax (section 4.1)."""
    if len(scores) == 1:
        return scores[0]
    logs = jnp.stack([jax.nn.log_softmax(view, axis=0) for view in scores])
    return jax.nn.logsumexp(logs, axis=0) - math.log(len(scores))


def rank(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the number of classes ranked before the right one, int32 [batch], of scores [classes, batch]; 0 is a top-1 hit.

    Among equal scores the lower class ranks first, as in argmax, so that a network with constant outputs is not perfect.
    """
    right = jnp.take_along_axis(scores, labels[None], axis=0)
    lower = jnp.arange(scores.shape[0])[:, None] < labels[None]
    return ((scores > right) | ((scores == right) & lower)).sum(0)
