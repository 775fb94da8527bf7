"""AlexNet in two columns, in JAX: the flax module `AlexNet`, its tables and meshes, and `load` for trained networks.

Names are imported on first use: the command line reports a mistyped option without waiting for jax, and
`allocator.keep_memory` must run before jax starts its threads.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.columns import make_mesh
    from alexnet_jax.model import AlexNet
    from alexnet_jax.network.networks import (
        ALEXNET,
        ALEXNET_CIFAR,
        ALEXNET_MERGED,
        ALEXNET_ONE_COLUMN,
        ALEXNET_ORIGINAL,
        ALEXNET_TUTORIAL,
    )
    from alexnet_jax.weights.load import load

__all__ = [
    "ALEXNET",
    "ALEXNET_CIFAR",
    "ALEXNET_MERGED",
    "ALEXNET_ONE_COLUMN",
    "ALEXNET_ORIGINAL",
    "ALEXNET_TUTORIAL",
    "AlexNet",
    "load",
    "make_mesh",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"AlexNet": "model", "load": "weights.load", "make_mesh": "columns"}.get(name, "network.networks")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
