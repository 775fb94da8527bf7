"""The images that a trained network is asked about, in batches: a split of its data set, a few of its test images, or files."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alexnet_jax.data import images, loader
from alexnet_jax.data.order import evaluation_batches
from alexnet_jax.data.split import Split, Stream
from alexnet_jax.errors import RunError, UsageError

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images uint8 [batch, height, width, 3], labels int32 [batch] (UNKNOWN where there is none), counted bool [batch]: the last
batch is filled up with images that do not count."""

UNKNOWN = -1


def batches(split: Split | Stream, size: int) -> Iterator[Batch]:
    """Each example of a split once, in its order."""
    if isinstance(split, Split):
        for indices, counted in evaluation_batches(len(split), size):
            yield split.images[indices], split.labels[indices], counted
        return
    source = loader.Evaluation(split, size, np.arange(size))
    with contextlib.closing(loader.batches(source, workers=0)) as decoded:
        for number, batch in enumerate(decoded):
            yield batch["images"], batch["labels"], source.counted(number)


class Sample:
    """So many images of a test split, chosen by a rule that looks at none of them: spread evenly over the split."""

    def __init__(self, split: Split | Stream, number: int):
        total = len(split)
        chosen = [i * total // number for i in range(number)] if total > number else list(range(total))
        self.split = split.take(np.array(chosen))
        self.names = [f"test image {i}" for i in chosen]

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, size: int) -> Iterator[Batch]:
        """All of them."""
        return batches(self.split, size)

    def close(self) -> None:
        """Nothing can be wrong with them."""


class Pictures:
    """Picture files as the network's data has them: upright, the shorter side scaled to `side`, the centre cut out."""

    def __init__(self, paths: list[Path], side: int):
        self.paths, self.side = paths, side
        self.names: list[str] = []
        """Of the pictures that could be read, filled by `batches`."""

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int) -> Iterator[Batch]:
        """Those that can be read, without labels; of each other one a line on stderr says why it cannot."""
        for start in range(0, len(self.paths), size):
            found = {str(path): self._read(path) for path in self.paths[start : start + size]}
            read = {name: pixels for name, pixels in found.items() if pixels is not None}
            self.names += read
            if read:
                unlabelled = np.full(len(read), UNKNOWN, np.int32)
                yield from batches(Split(np.stack(list(read.values())), unlabelled), size)

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            return images.upright(path.read_bytes(), self.side, str(path))
        except (RunError, OSError) as problem:
            print(problem, file=sys.stderr)
            return None

    def close(self) -> None:
        """Raises RunError when some could not be read."""
        lost = len(self.paths) - len(self.names)
        if lost:
            raise RunError(f"{lost} of {len(self.paths)} pictures could not be read; they are named above.")


def picture_files(given: tuple[Path, ...]) -> list[Path]:
    """The files that --image names, each once, and all pictures below its folders.

    Raises UsageError for a path that is not there and a folder without pictures.
    """
    found: dict[Path, None] = {}
    for path in given:
        if not path.exists():
            raise UsageError(f"--image={path}: there is no such file or folder.")
        below = images.pictures(path) if path.is_dir() else [path]
        if not below:
            known = ", ".join(sorted(images.EXTENSIONS))
            raise UsageError(f"--image={path}: no pictures in this folder or below (files that end in {known}).")
        found |= dict.fromkeys(below)
    return list(found)


def asked_for(files: list[Path], test: Split | Stream, number: int) -> Pictures | Sample:
    """The files, made as large as the images of the network's data; without any, so many test images."""
    return Pictures(files, test.image[0]) if files else Sample(test, number)


def output_folder(given: Path | None, checkpoint: Path, name: str) -> Path:
    """Where to write: the folder that --out names, or `name` in the folder of the checkpoint's run. It is made.

    Raises UsageError when the checkpoint lies in no run's folder, or nothing can be written there.
    """
    if given is None and checkpoint.parent.name != "checkpoints":
        raise UsageError(f"The checkpoint {checkpoint} belongs to no run's folder. Say with --out where to write.")
    folder = given or checkpoint.parents[1] / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"{folder} cannot be written to ({problem}). Say with --out where to write.") from problem
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written to. Say with --out where to write.")
    return folder
