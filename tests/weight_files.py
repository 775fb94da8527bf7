"""Weights of one small network, in a file of every kind that --mode=import reads."""

import numpy as np
import other_programs
import pytest
from safetensors.numpy import save_file

from alexnet_jax.weights import formats

WEIGHTS = other_programs.random_weights("torchvision_alexnet", 5)
NAMED = other_programs.state_dict(WEIGHTS)


def written(folder, kind):
    """Write a file of a kind and return its path."""
    path = folder / f"alexnet{kind}"
    match kind:
        case ".npz":
            np.savez(path, **NAMED)
        case ".safetensors":
            save_file(NAMED, path)
        case ".pt" | ".pth" | ".pth.tar":
            torch = pytest.importorskip("torch")
            torch.save({name: torch.from_numpy(tensor) for name, tensor in NAMED.items()}, path)
        case ".caffemodel":
            path.write_bytes(other_programs.caffemodel(WEIGHTS))
    return path


KINDS = list(formats.READERS)
