"""Decoded images kept between two starts: one uncompressed .npz file per data set, named by the data's fingerprint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_jax import files

Expected = dict[str, tuple[tuple[int, ...], str]]
"""{name of an array: (shape, name of its dtype)}"""


def read(path: Path, expected: Expected, log: Callable[[str], None]) -> dict[str, np.ndarray] | None:
    """The arrays of the cache file `path`, or None where there is none, or a damaged one, which `log` is told.

    An .npz file carries a CRC-32 of each array, which is checked while reading.
    """
    if not path.exists():
        return None
    try:
        # Opened here: np.load would leave a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in expected}
    except Exception as error:  # noqa: BLE001 - a damaged zip file raises nearly everything, NotImplementedError too
        log(f"The cache file {path} is damaged ({error}); the images are decoded again.")
        return None
    for name, (shape, dtype) in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != dtype:
            log(
                f"The cache file {path} is damaged ({name} is {found.dtype} {found.shape}, expected {dtype} {shape}); "
                "the images are decoded again."
            )
            return None
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray], log: Callable[[str], None]) -> None:
    """Replace the cache file `path` atomically. A folder that cannot be written to is reported by a line of `log`."""
    try:
        files.write_arrays(path, arrays)
    except OSError as error:
        log(f"The decoded images could not be kept in {path} ({error}); they will be decoded again at the next start.")
