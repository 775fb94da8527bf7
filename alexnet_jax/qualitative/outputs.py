"""What a trained network makes of images: probabilities of classes, and the vectors of a layer."""

from collections.abc import Callable

import jax
import numpy as np

from alexnet_jax import columns
from alexnet_jax.assembly import Trained, make_evaluator
from alexnet_jax.data.augment import normalize, view, views
from alexnet_jax.data.pipeline import OnDevice
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.model import Parameters, activations
from alexnet_jax.network.table import Table


def batch_size(trained: Trained, examples: int) -> int:
    """Images per batch: as in an evaluation, or the next power of two where there are fewer, so that few programs are compiled.

    A multiple of the devices that share them.
    """
    replicas = columns.data_replicas(trained.trainer.mesh)
    size = min(trained.trainer.experiment.train.eval_batch, 1 << (examples - 1).bit_length())
    return -(-size // replicas) * replicas


def probabilities(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images uint8 [batch, height, width, 3] to probabilities float32 [batch, classes].

    As in an evaluation: the softmax is averaged over the views that the experiment has of a test image.
    """
    evaluator, place = make_evaluator(trained.trainer), columns.place(trained.trainer.mesh, columns.BATCH_FIRST)

    def classify(images: np.ndarray) -> np.ndarray:
        unlabelled = np.zeros(len(images), np.int32)
        examples = OnDevice(*(jax.device_put(part, place) for part in (images, unlabelled)))
        return np.asarray(jax.nn.softmax(evaluator.scores(trained.parameters, examples), axis=0).T, np.float32)

    return classify


def vectors(trained: Trained, layer: str) -> Callable[[np.ndarray], jax.Array]:
    """A function from images uint8 [batch, height, width, 3] to what a layer hands on, float32 [batch, units].

    Of each image the network sees the centre alone, however many views an evaluation has.
    """
    trainer = trained.trainer
    centre = Data(crop=trainer.experiment.data.crop)

    @jax.jit
    def extract(parameters: Parameters, images: jax.Array) -> jax.Array:
        images = jax.lax.with_sharding_constraint(images, columns.place(trainer.mesh, columns.BATCH_FIRST))
        images = normalize(images, trainer.stats).astype(trainer.experiment.train.precision)
        (place,) = views(images.shape[1], centre)
        seen = view(images, place, centre)
        return activations(trainer.table, trainer.mesh, parameters, seen, layer).astype("float32")

    return lambda images: extract(trained.parameters, images)


def chosen_layer(table: Table, given: str | None) -> str:
    """The layer that --layer names, or the last but one (fc7). Raises UsageError when the table has none of this name."""
    names = [spec.name for spec in table.layers]
    if given is not None and given not in names:
        raise UsageError(f"--layer={given}: {table.name} has no such layer; it has {', '.join(names)}.")
    return given or names[-2]
