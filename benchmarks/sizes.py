"""The measured networks, most of them by the names of their experiments, and their batch sizes."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import experiments
from alexnet_jax.assembly import build_table
from alexnet_jax.experiment import Experiment, Network
from alexnet_jax.network.table import Table, shapes

Size = Literal[
    "alexnet_cifar",
    "alexnet_cifar_quarter",
    "alexnet_cifar_eighth",
    "alexnet_cifar_full",
    "alexnet_imagenet",
    "lenet5_cifar",
    "simple_cnn_cifar",
    "cuda_convnet_26pct",
    "cuda_convnet_18pct",
    "cuda_convnet_13pct",
    "cuda_convnet_11pct",
]

SIZES: tuple[Size, ...] = get_args(Size)

NARROWER = {"alexnet_cifar_quarter": 0.25, "alexnet_cifar_eighth": 0.125}
"""alexnet_cifar at other widths, those of the sweeps in RESULTS.md: {size: width}."""


COPIED = 2**28
"""Bytes of the array whose copy measures the speed of memory."""


def product_rows(backend: str) -> int:
    """Return the rows of the square matrices whose product measures the peak rate of a device."""
    return 2048 if backend == "cpu" else 8192


def batches(size: str, kind: str) -> tuple[int, ...]:
    """Return the batch sizes to measure on a kind of device."""
    if kind == "gpu":
        return (128, 512)
    return (32,) if size == "alexnet_imagenet" else (128,)


@dataclass(frozen=True)
class Job:
    """A network with a batch size and a precision."""

    size: str
    batch: int
    precision: str = "float32"

    @property
    def experiment(self) -> Experiment:
        """The experiment with its default options; a narrower alexnet_cifar has fully connected layers in proportion."""
        width = NARROWER.get(self.size)
        if width is None:
            return experiments.experiment(self.size)
        base = experiments.experiment("alexnet_cifar")
        narrow: Network = dataclasses.replace(base.network, width=width, fc_units=int(2048 * width))
        return dataclasses.replace(base, network=narrow)

    @property
    def table(self) -> Table:
        """The table of layers."""
        return build_table(self.experiment)

    @property
    def operations(self) -> int:
        """Operations of one training step: three times the forward pass, without the gradient of the images."""
        first, *rest = (shape.operations for shape in shapes(self.table))
        return self.batch * (2 * first + 3 * sum(rest))
