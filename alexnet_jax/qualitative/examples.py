"""The images that a mode reads, in batches: a split of the data set, a sample of the test images, or picture files."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alexnet_jax.data import images, loader, picture_files
from alexnet_jax.data.dataset import MemorySplit, Split
from alexnet_jax.data.order import evaluation_batches
from alexnet_jax.errors import RunError, UsageError

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images uint8 [batch, height, width, 3], labels int32 [batch], and counted bool [batch], which is False for the images that pad
the last batch."""

UNKNOWN = -1
"""The label of a picture file."""


def batches(split: Split, size: int) -> Iterator[Batch]:
    """Yield the batches of a split, each example once and in order."""
    if isinstance(split, MemorySplit):
        for indices, counted in evaluation_batches(len(split), size):
            yield split.images[indices], split.labels[indices], counted
        return
    source = loader.Evaluation(split, size, np.arange(size))
    with contextlib.closing(loader.batches(source, workers=0)) as decoded:
        for number, batch in enumerate(decoded):
            yield batch.images, batch.labels, source.counted(number)


class Sample:
    """Images at equal distances in a split, chosen without looking at them."""

    unreadable = 0

    def __init__(self, split: Split, number: int):
        total = len(split)
        chosen = [i * total // number for i in range(number)] if total > number else list(range(total))
        self.split = split.take(np.array(chosen))
        self.names = [f"test image {i}" for i in chosen]

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the batches of all images."""
        return batches(self.split, size)


class Pictures:
    """Picture files: upright, with the shorter side scaled to `side` pixels and the central square cut out."""

    def __init__(self, paths: list[Path], side: int):
        self.paths, self.side = paths, side
        self.names: list[str] = []
        """Paths of the readable pictures, in the order of `batches`."""
        self.unreadable = 0

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the batches of readable pictures, unlabelled. Each unreadable picture is reported on stderr and skipped."""
        for start in range(0, len(self.paths), size):
            pixels = {str(path): self._read(path) for path in self.paths[start : start + size]}
            readable = {name: picture for name, picture in pixels.items() if picture is not None}
            self.names += readable
            self.unreadable += len(pixels) - len(readable)
            if readable:
                unlabelled = np.full(len(readable), UNKNOWN, np.int32)
                yield from batches(MemorySplit(np.stack(list(readable.values())), unlabelled), size)

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            return images.upright(path.read_bytes(), self.side, str(path))
        except (RunError, OSError) as problem:
            print(problem, file=sys.stderr)
            return None


def check_all_read(examples: Pictures | Sample) -> None:
    """Raise RunError if pictures were unreadable. Call this after all batches were used."""
    if examples.unreadable:
        raise RunError(
            f"{examples.unreadable} of {len(examples)} pictures could not be read; the messages above name them."
        )


def requested_files(given: tuple[Path, ...]) -> list[Path]:
    """Return the files that --image names and the pictures in its folders and their subfolders, each once.

    Raises UsageError for a missing path or a folder without pictures.
    """
    found: dict[Path, None] = {}
    for path in given:
        if not path.exists():
            raise UsageError(f"--image={path}: no such file or folder.")
        if not path.is_dir():
            found[path] = None
            continue
        listing = picture_files.find(path)
        skipped = picture_files.describe_skipped(listing, path)
        if not listing.pictures:
            reason = " ".join(skipped) or "The folder is empty."
            raise UsageError(f"--image={path}: no pictures in this folder. {reason}")
        for sentence in skipped:
            print(f"{path}: {sentence}")
        found |= dict.fromkeys(listing.pictures)
    return list(found)


def requested(files: list[Path], test: Split, number: int) -> Pictures | Sample:
    """Return the picture files, scaled to the size of the test images, or `number` test images if there are no files."""
    return Pictures(files, test.image[0]) if files else Sample(test, number)


def output_folder(given: Path | None, checkpoint: Path, name: str) -> Path:
    """Make and return the output folder: the one that --out names, or `name` in the run folder of the checkpoint.

    Raises UsageError if the checkpoint is not in a run folder or the output folder cannot be written to.
    """
    if given is None and checkpoint.parent.name != "checkpoints":
        raise UsageError(f"The checkpoint {checkpoint} is not in a run folder. Choose an output folder with --out.")
    folder = given or checkpoint.parents[1] / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"{folder} cannot be written to ({problem}). Choose another folder with --out.") from problem
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written to. Choose another folder with --out.")
    return folder
