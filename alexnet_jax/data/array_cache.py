"""Arrays that are cheaper to read than to compute again, such as decoded images: one uncompressed .npz file for each data set."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_jax import files


class Expected(NamedTuple):
    """The shape and the name of the dtype that a cached array must have."""

    shape: tuple[int, ...]
    dtype: str


def read(path: Path, expected: dict[str, Expected], log: Callable[[str], None]) -> dict[str, np.ndarray] | None:
    """Return the arrays {name: array} of a cache file, None if it does not exist or is damaged; damage is reported to `log`.

    An .npz file has a CRC-32 of each array, which NumPy verifies while reading.
    """
    if not path.exists():
        return None
    try:
        # Opened here, since np.load would leave a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in expected}
    except Exception as error:  # noqa: BLE001 - a damaged zip file raises nearly every type, even NotImplementedError
        log(f"The cache file {path} is damaged ({error}); its content is computed again.")
        return None
    for name, (shape, dtype) in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != dtype:
            log(
                f"The cache file {path} is damaged ({name} is {found.dtype} {found.shape}, expected {dtype} {shape}); "
                "its content is computed again."
            )
            return None
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray], log: Callable[[str], None]) -> None:
    """Replace a cache file atomically. A folder that cannot be written to is reported to `log`."""
    try:
        files.write_arrays(path, arrays)
    except OSError as error:
        log(f"The cache file {path} could not be written ({error}); its content will be computed again at the next start.")
