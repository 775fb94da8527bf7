"""Outputs of a trained network for images: the probabilities of classes and the vectors of a layer."""

from collections.abc import Callable

import jax
import numpy as np

from alexnet_jax import columns
from alexnet_jax.assembly import Trained
from alexnet_jax.data.augment import cut_view, list_views, normalize
from alexnet_jax.data.pipeline import OnDevice
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.model import Parameters, activations
from alexnet_jax.network.table import Table


def batch_size(trained: Trained, examples: int) -> int:
    """Return the images per batch: those of an evaluation, or for fewer examples the next power of two, to compile less often.

    The result is a multiple of the data replicas.
    """
    replicas = trained.setup.placement.replicas
    size = min(trained.setup.experiment.train.eval_batch, 1 << (examples - 1).bit_length())
    return -(-size // replicas) * replicas


def probabilities(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images uint8 [batch, height, width, 3] to probabilities float32 [batch, classes].

    As in an evaluation, the softmax is averaged over the experiment's views of a test image.
    """
    evaluator, sharding = trained.setup.evaluator(), trained.setup.placement.sharding(columns.BATCH_FIRST)

    def classify(images: np.ndarray) -> np.ndarray:
        unlabelled = np.zeros(len(images), np.int32)
        examples = OnDevice(*(jax.device_put(part, sharding) for part in (images, unlabelled)))
        return np.asarray(jax.nn.softmax(evaluator.scores(trained.parameters, examples), axis=0).T, np.float32)

    return classify


def vectors(trained: Trained, layer: str) -> Callable[[np.ndarray], jax.Array]:
    """Return a function from images uint8 [batch, height, width, 3] to the flattened outputs of a layer, float32 [batch, units].

    The network reads the central crop of each image, whatever the number of views in an evaluation.
    """
    setup = trained.setup
    centre = Data(crop=setup.experiment.data.crop)

    @jax.jit
    def extract(parameters: Parameters, images: jax.Array) -> jax.Array:
        images = jax.lax.with_sharding_constraint(images, setup.placement.sharding(columns.BATCH_FIRST))
        images = normalize(images, setup.stats).astype(setup.experiment.train.precision)
        (central,) = list_views(images.shape[1], centre)
        crop = cut_view(images, central, centre)
        return activations(setup.table, setup.placement, parameters, crop, layer).astype("float32")

    return lambda images: extract(trained.parameters, images)


def chosen_layer(table: Table, given: str | None) -> str:
    """Return the layer that --layer names, by default the last but one (fc7). Raises UsageError if there is no such layer."""
    names = [spec.name for spec in table.layers]
    if given is not None and given not in names:
        raise UsageError(f"--layer={given}: {table.name} has no such layer. Its layers are {', '.join(names)}.")
    return given or names[-2]
