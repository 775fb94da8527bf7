"""What a data set is to the rest of the program: splits, in memory or read from disk as they are needed."""

from dataclasses import dataclass

import numpy as np

from alexnet_jax.data.images import square
from alexnet_jax.data.records import Records
from alexnet_jax.errors import RunError


@dataclass(frozen=True)
class Split:
    """The examples of one split in memory, in the data set's own order."""

    images: np.ndarray
    """uint8 [n, height, width, 3]"""
    labels: np.ndarray
    """int32 [n]"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of one image: height, width, 3."""
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> "Split":
        """Some of them."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Stream:
    """The examples of one split on disk: each is read, decoded and cut to a square whenever it is asked for."""

    records: Records
    side: int
    classes: int
    indices: np.ndarray
    """int64 [n]: which records these are."""
    fingerprint: str
    """Of the records."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of one image: height, width, 3."""
        return self.side, self.side, 3

    def take(self, indices: np.ndarray) -> "Stream":
        """Some of them."""
        return Stream(self.records, self.side, self.classes, self.indices[indices], self.fingerprint)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """(image uint8 [side, side, 3], label). Raises RunError naming a damaged picture or a label out of range."""
        record = int(self.indices[index])
        encoded, label = self.records.read(record)
        if not 0 <= label < self.classes:
            raise RunError(f"The label of {self.records.where(record)} is {label}, expected 0 to {self.classes - 1}.")
        return square(encoded, self.side, self.records.where(record)), label


@dataclass(frozen=True)
class DataSet:
    """A whole data set."""

    name: str
    title: str
    """A line for reports: what the data is and where it comes from."""
    classes: tuple[str, ...]
    train: Split | Stream
    test: Split | Stream
    fingerprint: str
    """Hexadecimal; differs where the data differs."""


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raise RunError unless every label is an integer of 0 .. classes-1; `where` names the labels in the message.

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
