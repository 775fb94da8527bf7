"""The networks that are measured, by the names of their experiments, and the batches they are measured at."""

from dataclasses import dataclass

import experiments
from alexnet_jax.experiment import CLASSES, Experiment
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table, shapes

BATCHES = {
    "alexnet_cifar": {"cpu": (128,), "gpu": (128, 512)},
    "alexnet_cifar_full": {"cpu": (128,), "gpu": (128, 512)},
    "alexnet_imagenet": {"cpu": (32,), "gpu": (128, 512)},
}
"""{size: {device: batches}}"""


@dataclass(frozen=True)
class Job:
    """One network at one batch, in one type of number."""

    size: str
    batch: int
    precision: str = "float32"

    @property
    def experiment(self) -> Experiment:
        """The experiment of that name, as it is shipped."""
        return experiments.experiment(self.size)

    @property
    def table(self) -> Table:
        """Its layers."""
        return networks.build(self.experiment.network, CLASSES[self.experiment.data.name])

    @property
    def operations(self) -> int:
        """Of one training step, as usually counted: three times those of the forward pass, but the first layer's input."""
        first, *rest = (shape.operations for shape in shapes(self.table))
        return self.batch * (2 * first + 3 * sum(rest))
