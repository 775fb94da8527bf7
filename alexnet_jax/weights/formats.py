"""Files of weights, read as named arrays and written as safetensors. Only torch unpickles anything, and it weights only."""

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from alexnet_jax import files
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.weights import caffe

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class WeightFile:
    """What a file holds."""

    tensors: Tensors  # float32
    channels: Literal["rgb", "bgr"] = "rgb"  # the order of conv1's inputs
    order: tuple[str, ...] = ()  # names of all layers of a .caffemodel, those without weights too
    network: dict[str, Any] = field(default_factory=dict)  # of a file that we wrote: options of its network


def read(path: Path) -> WeightFile:
    """A .npz, .safetensors, .pt, .pth or .caffemodel file.

    Raises UsageError when it is missing, of another kind, truncated, or holds what is not finite or no weight.
    """
    if path.suffix not in READERS:
        raise UsageError(f"--weights={path}: expected a file ending in {', '.join(READERS)}.")
    if not path.is_file():
        raise UsageError(f"--weights={path}: there is no such file.")
    try:
        found = READERS[path.suffix](path)
    except UsageError:
        raise
    except Exception as problem:  # zip, json, protobuf and torch each raise errors of their own
        raise _unreadable(path, problem) from problem
    if not found.tensors:
        raise _unreadable(path, ValueError("it holds no weights"))
    for name, tensor in found.tensors.items():
        if not np.isfinite(tensor).all():
            raise UsageError(f"--weights={path}: {name} holds numbers that are not finite. Expected trained weights.")
    return found


def _unreadable(path: Path, problem: Exception) -> UsageError:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return UsageError(
        f"--weights={path} ({path.stat().st_size:,} bytes) cannot be read as {path.suffix}: {lines[0][:200]}. It may be "
        "truncated or another kind of file; get it again, or give another."
    )


def _npz(path: Path) -> WeightFile:
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say how to load it all the same
        raise ValueError("it is no zip archive")
    with np.load(path, allow_pickle=False) as found:
        return WeightFile(_float32({name: found[name] for name in found.files}))


def _safetensors(path: Path) -> WeightFile:
    with safe_open(path, framework="np") as file:
        notes = file.metadata() or {}
        tensors = _float32({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dictionary
    ours = notes.get("program") == "alexnet_jax"
    return WeightFile(tensors, network=json.loads(notes["experiment"])["network"] if ours else {})


def _torch(path: Path) -> WeightFile:
    try:
        import torch
    except ImportError as missing:
        raise UsageError(
            f"--weights={path}: a torch state dict is read by torch, which is not installed. pip install torch, or save the "
            "weights as .safetensors where torch is."
        ) from missing
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:  # whose message says how to load it all the same
        raise ValueError(
            "it is no dictionary of tensors, as state_dict() gives, and nothing else is loaded"
        ) from problem
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):  # a training checkpoint
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ValueError("it is no dictionary of tensors, as state_dict() gives")
    plain = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    return WeightFile(_float32({name.replace("module.", ""): tensor.numpy() for name, tensor in plain.items()}))


def _caffemodel(path: Path) -> WeightFile:
    layers = caffe.read_layers(path)
    kinds = ("weight", "bias")
    tensors = {
        f"{layer}.{kind}": blob for layer, blobs in layers.items() for kind, blob in zip(kinds, blobs, strict=False)
    }
    return WeightFile(tensors, "bgr", tuple(layers))


READERS: dict[str, Callable[[Path], WeightFile]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".caffemodel": _caffemodel,
}
"""{ending: reader}"""


def _float32(tensors: dict[str, Any]) -> Tensors:
    for name, tensor in tensors.items():
        if not jnp.issubdtype(tensor.dtype, jnp.floating):  # numpy does not count bfloat16
            raise ValueError(f"{name} is {tensor.dtype}, not floating point")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def write(path: Path, tensors: Tensors, notes: dict[str, str], *, overwrite: bool = False) -> None:
    """Write a .safetensors file whole or not at all; `notes` become its metadata.

    Raises UsageError for another ending or a file that is there already, RunError when it cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"--weights={path}: expected a file ending in .safetensors to write to.")
    if path.exists() and not overwrite:
        raise UsageError(f"--weights={path}: the file is there already. Choose another name, or give --overwrite.")
    try:
        with files.replacing(path) as temporary:
            save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, temporary, notes)
    except Exception as problem:  # safetensors raises its own for a full disk
        raise RunError(
            f"--weights={path} could not be written: {problem}. Is the disk full, or the folder closed?"
        ) from problem
