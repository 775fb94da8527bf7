"""Report pictures that are in the training split and in the test split, by their content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

MOST = 20_000
"""Largest number of files that are read in search of copies."""


def shared_pictures(seen: Sequence[Path], test: Sequence[Path], root: Path) -> list[str]:
    """Return a sentence on the test pictures that are copies of pictures in `seen`, with one pair; nothing if none are.

    Only files whose size occurs on both sides are read. If there are more than MOST of them, the sentence says that the
    pictures were not compared.
    """
    sizes = [[_size(path) for path in paths] for paths in (seen, test)]
    common = set(sizes[0]) & set(sizes[1])
    ours, theirs = (
        [path for path, size in zip(paths, each, strict=True) if size in common]
        for paths, each in zip((seen, test), sizes, strict=True)
    )
    if len(ours) + len(theirs) > MOST:
        return [f"The splits were not searched for copies: {len(ours) + len(theirs):,} files have equal sizes."]
    originals = {_digest(path): path for path in ours}
    copies = [(path, originals[digest]) for path in theirs if (digest := _digest(path)) in originals]
    if not copies:
        return []
    copy, original = (path.relative_to(root) for path in copies[0])
    count = f"{len(copies):,} test picture{' is a copy' if len(copies) == 1 else 's are copies'} of"
    return [f"{count} pictures in the training or validation split, such as {copy} of {original}."]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported when the picture is read
        return -1


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return str(path)
