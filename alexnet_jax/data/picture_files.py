"""Find the picture files below a folder: what counts as a picture, and which folders are not looked into."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from alexnet_jax.errors import UsageError

NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow identifies but cannot decode without another program."""

DERIVED = frozenset({"@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "__pycache__", "lost+found"})
"""Folders that other programs make, besides those whose names begin with a dot, such as .ipynb_checkpoints."""


@functools.cache
def extensions() -> frozenset[str]:
    """Return the extensions of the formats that Pillow decodes, in lower case with their dot."""
    known = Image.registered_extensions().items()
    return frozenset(name for name, kind in known if kind in Image.OPEN and kind not in NOT_DECODED)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was derived from others by a program such as Jupyter or a NAS."""
    return name.startswith(".") or name in DERIVED


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


@dataclass(frozen=True)
class Found:
    """The files below a folder."""

    pictures: tuple[Path, ...]
    """Sorted by path."""
    skipped: tuple[Path, ...]
    """Visible files whose extension is not that of a picture, sorted."""
    hidden: tuple[Path, ...] = ()
    """Hidden and derived folders, which were not looked into, sorted."""
    broken: tuple[Path, ...] = ()
    """Symbolic links to files that do not exist, sorted."""


def find(folder: Path) -> Found:
    """Find the picture files in a folder and below. Symbolic links are followed, each folder once.

    Raises UsageError for a folder that cannot be read.
    """
    pictures, skipped, hidden, broken = [], [], [], []
    for where, folders, files in _walk(folder):
        hidden += [where / name for name in folders if is_hidden(name)]
        for name in files:
            if is_hidden(name):
                continue
            known = os.path.splitext(name)[1].lower() in extensions()
            exists = not os.path.islink(where / name) or os.path.exists(where / name)
            (broken if not exists else pictures if known else skipped).append(where / name)
    return Found(*(tuple(sorted(paths)) for paths in (pictures, skipped, hidden, broken)))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, its folders, its files), without hidden folders and without a folder that was seen before."""
    def unreadable(problem: OSError) -> None:
        raise UsageError(f"{problem.filename} cannot be read: {problem.strerror}. Make it readable, or remove it.")

    seen = set()
    for where, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        yield Path(where), list(folders), files
        folders[:] = [name for name in folders if not is_hidden(name)]


def describe_skipped(found: Found, root: Path) -> list[str]:
    """Return sentences on the files and folders that are not used, with an example of each kind; paths relative to `root`."""
    lines = []
    kinds: dict[str, list[Path]] = {}
    for path in found.skipped:
        kinds.setdefault(path.suffix.lower() or "no extension", []).append(path)
    if kinds:
        each = (f"{len(paths):,} {kind} ({paths[0].relative_to(root)})" for kind, paths in sorted(kinds.items()))
        lines.append(f"{counted(found.skipped, 'file')} skipped, not in a format that Pillow reads: {', '.join(each)}.")
    if found.hidden:
        lines.append(f"{counted(found.hidden, 'hidden folder')} skipped, such as {found.hidden[0].relative_to(root)}.")
    if found.broken:
        lines.append(f"{counted(found.broken, 'broken link')} skipped, such as {found.broken[0].relative_to(root)}.")
    return lines


def counted(things: Sequence[object], noun: str) -> str:
    """Return '1 file' or '1,200 files'."""
    return f"{len(things):,} {noun}{'s' * (len(things) != 1)}"
