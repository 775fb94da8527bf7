"""Files of weights: read as named arrays, written as safetensors. Only torch unpickles, restricted to tensors."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    """The content of a file of weights."""

    tensors: Tensors  # float32
    channels: Literal["rgb", "bgr"] = "rgb"  # order of the input channels of conv1
    order: tuple[str, ...] = ()  # names of all layers of a .caffemodel, also those without weights
    unwrapped: tuple[str, ...] = ()  # keys and prefixes around the weights that were removed, the outermost first
    network: Mapping[str, Any] = field(default_factory=dict)  # of an exported file: its options


def read(path: Path) -> WeightFile:
    """Return the content of an .npz, .safetensors, .pt, .pth or .caffemodel file.

    Raises UsageError if the file is missing, damaged, of another kind or without weights, or has values that are not finite.
    """
    ending = next((ending for ending in READERS if path.name.endswith(ending)), None)
    if ending is None:
        raise UsageError(f"--weights={path}: expected a file ending in {', '.join(READERS)}.")
    if not path.is_file():
        raise UsageError(f"--weights={path}: no such file.")
    try:
        found = _without_prefixes(READERS[ending](path))
    except UsageError:
        raise
    except Exception as problem:  # zipfile, json, protobuf and torch have no common error
        raise _unreadable(path, problem) from problem
    if not found.tensors:
        raise _unreadable(path, ValueError("it contains no weights"))
    for name, tensor in found.tensors.items():
        if not np.isfinite(tensor).all():
            raise UsageError(f"--weights={path}: {name} has values that are not finite. Expected trained weights.")
    return found


def _unreadable(path: Path, problem: Exception) -> UsageError:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return UsageError(
        f"--weights={path} ({path.stat().st_size:,} bytes) cannot be read as {path.suffix}: {lines[0][:200]}. It may be "
        "truncated or another kind of file. Download it again or name another file."
    )


def _npz(path: Path) -> WeightFile:
    if not zipfile.is_zipfile(path):  # np.load would suggest allow_pickle
        raise ValueError("it is not a zip archive")
    with np.load(path, allow_pickle=False) as found:
        return WeightFile(_float32({name: found[name] for name in found.files}))


def _safetensors(path: Path) -> WeightFile:
    with safe_open(path, framework="np") as file:
        notes = file.metadata() or {}
        tensors = _float32({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - safe_open is no mapping
    exported = notes.get("program") == "alexnet_jax"
    return WeightFile(tensors, network=json.loads(notes["experiment"])["network"] if exported else {})


def _torch(path: Path) -> WeightFile:
    try:
        import torch
    except ImportError as missing:
        raise UsageError(
            f"--weights={path}: reading a state dict needs torch, which is not installed. Run `pip install torch`, or convert "
            "the file to .safetensors on a machine with torch."
        ) from missing
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:  # its message suggests weights_only=False
        raise ValueError(
            "it is no dictionary of tensors as returned by state_dict(); other objects are not loaded"
        ) from problem
    keys = []
    while isinstance(found, dict) and (key := next((key for key in WRAPPERS if isinstance(found.get(key), dict)), None)):
        keys.append(key)
        found = found[key]
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        listed = f" Its keys are {', '.join(map(str, list(found)[:8]))}." if isinstance(found, dict) else ""
        raise ValueError(f"it is no dictionary of tensors as returned by state_dict().{listed}")
    plain = {name: tensor.detach() for name, tensor in found.items()}  # nn.Parameter has no numpy()
    plain = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    return WeightFile(_float32({name: tensor.numpy() for name, tensor in plain.items()}), unwrapped=tuple(keys))


WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
"""Keys of training checkpoints under which the weights are, also one in another."""

MODULES = ("_orig_mod", "module")
"""Parts of names that torch.compile and DataParallel add, at the beginning or in the middle."""

PREFIXES = ("model.", "network.", "net.")
"""Prefixes of all names in modules that contain the network."""


def _without_prefixes(file: WeightFile) -> WeightFile:
    """Remove the parts of names that come from modules around the network, in any nesting."""
    parts = [part for name in file.tensors for part in name.split(".")]
    removed = [*file.unwrapped, *(f"{module}." for module in MODULES if module in parts)]
    tensors = {
        ".".join(part for part in name.split(".") if part not in MODULES): tensor for name, tensor in file.tensors.items()
    }
    if len(tensors) < len(file.tensors):
        raise ValueError(f"names are equal without {' and '.join(removed)}, so two networks may be in it")
    while tensors and (common := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(common): tensor for name, tensor in tensors.items()}
        removed.append(common)
    return replace(file, tensors=tensors, unwrapped=tuple(removed))


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
    ".pth.tar": _torch,
    ".caffemodel": _caffemodel,
}
"""{file extension: reader}"""


def _float32(tensors: dict[str, Any]) -> Tensors:
    for name, tensor in tensors.items():
        if not jnp.issubdtype(tensor.dtype, jnp.floating):  # np.issubdtype rejects bfloat16
            raise ValueError(f"{name} has the dtype {tensor.dtype}, not floating point")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def write(path: Path, tensors: Tensors, notes: dict[str, str], *, overwrite: bool = False) -> None:
    """Write a .safetensors file atomically, with `notes` as its metadata.

    Raises UsageError for another extension or an existing file, RunError if the file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"--weights={path}: expected a file ending in .safetensors.")
    if path.exists() and not overwrite:
        raise UsageError(f"--weights={path}: the file exists. Choose another name or use --overwrite.")
    try:
        with files.replacing(path) as temporary:
            save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, temporary, notes)
    except Exception as problem:  # safetensors has its own error for a full disk
        raise RunError(
            f"--weights={path} could not be written: {problem}. Check the free space and the permissions of the folder."
        ) from problem
