"""Files that are replaced atomically, and the folder for files that can be made again.

A reader finds a file with its old content or with its new content, never with a part of either, even after a power cut.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def cache_folder() -> Path:
    """Return the folder of files that can be made again: `alexnet_jax` in XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "alexnet_jax"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; the file written there replaces `path` when the block ends.

    Missing parent folders are made. When the block raises, or writes no file, `path` keeps its content. The temporary file
    never remains. Raises OSError when the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if temporary.exists():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Replace a file atomically. Text is encoded as UTF-8. Raises OSError when the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically. Raises OSError when it cannot be written."""
    write(path, json.dumps(values, indent=2) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace an .npy file atomically. Raises OSError when it cannot be written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace an uncompressed .npz file atomically. Raises OSError when it cannot be written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
