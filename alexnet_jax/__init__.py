"""AlexNet in two columns, in JAX. `AlexNet`, its tables and its meshes are all a notebook needs."""

from alexnet_jax.columns import make_mesh
from alexnet_jax.model import AlexNet
from alexnet_jax.networks import ALEXNET, ALEXNET_CIFAR, ALEXNET_ONE_COLUMN, ALEXNET_ORIGINAL, ALEXNET_TUTORIAL

__all__ = [
    "ALEXNET",
    "ALEXNET_CIFAR",
    "ALEXNET_ONE_COLUMN",
    "ALEXNET_ORIGINAL",
    "ALEXNET_TUTORIAL",
    "AlexNet",
    "make_mesh",
]
