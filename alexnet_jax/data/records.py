"""Encoded pictures with their labels, read at random: tensorflow-datasets' files, a folder of classes, prepared files.

Each kind can be sent to another process; files are opened there when they are first read.
"""

import dataclasses
import functools
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np

from alexnet_jax.errors import RunError


class Records(Protocol):
    """A split on disk."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def read(self, index: int) -> tuple[bytes, int]:
        """(encoded picture, label) of one. Raises RunError naming where it lies when it cannot be read."""
        ...

    def where(self, index: int) -> str:
        """Where it lies, for messages."""
        ...

    def parts(self) -> "Sequence[Records]":
        """All of them in order, in pieces that are read together: one per file, or some thousand pictures."""
        ...


@dataclass(frozen=True)
class FileRecords:
    """Several record files, one after another."""

    files: tuple[str, ...]
    lengths: tuple[int, ...]
    """Records of each file."""

    def __len__(self) -> int:
        return sum(self.lengths)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.lengths)

    def parts(self) -> Sequence[Self]:
        """One per file."""
        each = zip(self.files, self.lengths, strict=True)
        return [dataclasses.replace(self, files=(file,), lengths=(length,)) for file, length in each]

    def where(self, index: int) -> str:
        """Record and file."""
        number, position = self._place(index)
        return f"Picture {position:,} of {self.files[number]}"

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + self.lengths[number]

    def _bytes(self, index: int) -> bytes:
        number, position = self._place(index)
        try:
            return self._file(self.files[number])[position]
        except Exception as problem:  # array_record raises of many types
            raise RunError(
                f"{self.where(index)} cannot be read ({type(problem).__name__}: {problem}). Is the file complete?"
            ) from problem

    def _file(self, path: str) -> "Sequence[bytes] | TfrecordFile":
        return array_record(path)


@dataclass(frozen=True)
class TfdsRecords(FileRecords):
    """A split that tensorflow-datasets prepared, as array_record or tfrecord; neither needs TensorFlow here."""

    file_format: str = "array_record"

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        features = _example(self._bytes(index), self.where(index))
        return features["image"].bytes_list.value[0], features["label"].int64_list.value[0]

    def _file(self, path: str) -> "Sequence[bytes] | TfrecordFile":
        return array_record(path) if self.file_format == "array_record" else tfrecord(path)


def _example(serialized: bytes, where: str) -> Any:
    """The features of a tf.train.Example; the image still encoded (tensorflow-datasets' own reader takes 0.4 ms)."""
    from tensorflow_datasets.proto import tf_example_pb2

    kind: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 - protobuf makes it when the module is imported
    try:
        features = kind.FromString(serialized).features.feature
        if len(features["image"].bytes_list.value) == 1 and len(features["label"].int64_list.value) == 1:
            return features
    except Exception as problem:  # protobuf's DecodeError, whose place depends on its version
        raise RunError(f"{where} is damaged ({type(problem).__name__}: {problem}).") from problem
    raise RunError(f"{where} has no image or no label; expected one of each.")


LABEL = struct.Struct("<i")
"""A record of a prepared file begins with its label; the JPEG follows."""


@dataclass(frozen=True)
class PreparedRecords(FileRecords):
    """A split that `--mode=prepare` wrote (prepare.py)."""

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        record = self._bytes(index)
        return record[LABEL.size :], LABEL.unpack_from(record)[0]


PART = 1000
"""Picture files that are read together."""


@dataclass(frozen=True)
class FolderRecords:
    """Picture files with the label of each, in arrays: worker processes are sent a million of them as they are."""

    root: str
    paths: np.ndarray
    """bytes [n], below root, in the file system's encoding"""
    labels: np.ndarray
    """int32 [n]"""

    def __len__(self) -> int:
        return len(self.paths)

    def parts(self) -> "Sequence[FolderRecords]":
        """See `Records`."""
        pieces = (slice(start, start + PART) for start in range(0, len(self), PART))
        return [FolderRecords(self.root, self.paths[piece], self.labels[piece]) for piece in pieces]

    def where(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self.root, os.fsdecode(self.paths[index]))

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        try:
            return Path(self.where(index)).read_bytes(), int(self.labels[index])
        except OSError as problem:
            raise RunError(f"{self.where(index)} cannot be read ({problem}).") from problem


# --- record files, opened once per process ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)  # ImageNet has 1,024 files and 64
def array_record(path: str) -> Sequence[bytes]:
    """The records of one array_record file, read at random."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return cast(Sequence[bytes], ArrayRecordDataSource([path]))


@functools.lru_cache(maxsize=4096)
def tfrecord(path: str) -> "TfrecordFile":
    """The records of one tfrecord file, read at random."""
    return TfrecordFile(path)


class TfrecordFile:
    """TensorFlow's record file: length (8 bytes), its checksum (4), the record, its checksum (4); checksums are not verified."""

    def __init__(self, path: str):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as this lives
        self._descriptor = self._file.fileno()
        starts, place, size = array("q"), 0, os.fstat(self._descriptor).st_size
        while place < size:
            length = int.from_bytes(os.pread(self._descriptor, 8, place), "little")
            if place + 16 + length > size:
                raise ValueError(f"cut short at byte {place:,} of {size:,}")
            starts.append(place)
            place += 16 + length
        self._starts = starts  # eight bytes each

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:
        start = self._starts[index]
        length = int.from_bytes(os.pread(self._descriptor, 8, start), "little")
        return os.pread(self._descriptor, length, start + 12)
