"""The measured networks, by the names of their experiments, and their batch sizes."""

from dataclasses import dataclass

import experiments
from alexnet_jax.data.registry import class_count
from alexnet_jax.experiment import Experiment
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table, shapes

BATCHES = {
    "alexnet_cifar": {"cpu": (128,), "gpu": (128, 512)},
    "alexnet_cifar_full": {"cpu": (128,), "gpu": (128, 512)},
    "alexnet_imagenet": {"cpu": (32,), "gpu": (128, 512)},
}
"""{experiment: {device: batch sizes}}."""


@dataclass(frozen=True)
class Job:
    """A network with a batch size and a precision."""

    size: str
    batch: int
    precision: str = "float32"

    @property
    def experiment(self) -> Experiment:
        """The experiment with its default options."""
        return experiments.experiment(self.size)

    @property
    def table(self) -> Table:
        """The table of layers."""
        return networks.build(self.experiment.network, class_count(self.experiment.data))

    @property
    def operations(self) -> int:
        """Operations of one training step: three times the forward pass, without the gradient of the images."""
        first, *rest = (shape.operations for shape in shapes(self.table))
        return self.batch * (2 * first + 3 * sum(rest))
