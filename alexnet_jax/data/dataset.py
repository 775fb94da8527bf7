"""Data sets and their splits: images in memory, or encoded pictures on disk that are decoded when they are needed."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from alexnet_jax.data.images import square
from alexnet_jax.data.records import Records
from alexnet_jax.errors import RunError


@dataclass(frozen=True)
class MemorySplit:
    """A split whose images are in memory, in the order of the data set."""

    images: np.ndarray
    """uint8 [n, height, width, 3]"""
    labels: np.ndarray
    """int32 [n]"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of an image: (height, width, 3)."""
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> "MemorySplit":
        """Return the examples that `indices` selects: int [m] or bool [n]."""
        return MemorySplit(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class DiskSplit:
    """A split whose pictures are on disk. Indexing reads a picture, decodes it and cuts out its central square."""

    records: Records
    side: int
    """Height and width of an image."""
    classes: int
    """Number of classes."""
    indices: np.ndarray
    """int64 [n]: the records of this split."""
    fingerprint: str
    """Fingerprint of the records' data set."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of an image: (side, side, 3)."""
        return self.side, self.side, 3

    def take(self, indices: np.ndarray) -> "DiskSplit":
        """Return the examples that `indices` selects: int [m] or bool [n]."""
        return replace(self, indices=self.indices[indices])

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return (image uint8 [side, side, 3], label). Raises RunError for a damaged picture or a label out of range."""
        record = int(self.indices[index])
        encoded, label = self.records.read(record)
        if not 0 <= label < self.classes:
            raise RunError(f"The label of {self.records.where(record)} is {label}, expected 0 to {self.classes - 1}.")
        return square(encoded, self.side, self.records.where(record)), label


Split = MemorySplit | DiskSplit


@dataclass(frozen=True)
class DataSet:
    """A data set as the rest of the program sees it."""

    name: str
    title: str
    """One line for reports: the data and its origin."""
    classes: tuple[str, ...]
    """Names of the classes; a label is an index into them."""
    train: Split
    test: Split
    fingerprint: str
    """See `fingerprint`."""
    validation: int = 0
    """Number of last examples of `train` that are a validation split of the data set itself; 0: it has none."""


@dataclass(frozen=True)
class PictureSet:
    """A data set of encoded pictures on disk, none of which has been decoded."""

    name: str
    title: str
    classes: tuple[str, ...]
    train: Records
    test: Records
    fingerprint: str
    validation: int = 0
    """Number of last pictures of `train` that are a validation split of the data set itself; 0: it has none."""
    notes: Callable[[], tuple[str, ...]] = tuple
    """Returns sentences on what the files are used for and what is skipped, for which files may have to be read."""

    def decoded(self, side: int) -> DataSet:
        """Return the data set of images uint8 [side, side, 3]; each is decoded whenever it is read."""
        train, test = (
            DiskSplit(records, side, len(self.classes), np.arange(len(records)), self.fingerprint)
            for records in (self.train, self.test)
        )
        return DataSet(self.name, self.title, self.classes, train, test, self.fingerprint, self.validation)


def fingerprint(parts: Iterable[bytes]) -> str:
    """Return 16 hexadecimal digits that identify data: the beginning of the SHA-256 of the concatenated parts.

    A run is not continued on data with another fingerprint, so the parts of a data set must never change.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raise RunError unless every label is an integer from 0 to classes - 1. `where` names the labels in the message.

    jax would turn a label out of range into NaN or a silent zero loss, and -1 into the last class.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise RunError(f"The labels of {where} are {labels.dtype}, expected integers.")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        index = int(wrong[0])
        raise RunError(
            f"Label {index} of {where} is {labels[index]}, expected 0 to {classes - 1} "
            f"({wrong.size:,} of {labels.size:,} labels are out of range)."
        )
