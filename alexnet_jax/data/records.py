"""Random access to encoded pictures with labels: tensorflow-datasets' files, a folder of classes, prepared files.

Each kind can be pickled for another process, which opens a file when it first reads from it.
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
    """The encoded pictures of one split on disk."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def read(self, index: int) -> tuple[bytes, int]:
        """Return one (encoded picture, label). Raises RunError naming its file if it cannot be read."""
        ...

    def where(self, index: int) -> str:
        """Return the location of a picture, for messages."""
        ...

    def parts(self) -> "Sequence[Records]":
        """Return consecutive parts, each of which one worker reads: a record file, or `PART` picture files."""
        ...


@dataclass(frozen=True)
class FileRecords:
    """The concatenated records of several files."""

    files: tuple[str, ...]
    lengths: tuple[int, ...]
    """Number of records in each file."""

    def __len__(self) -> int:
        return sum(self.lengths)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.lengths)

    def parts(self) -> Sequence[Self]:
        """Return one part per file."""
        each = zip(self.files, self.lengths, strict=True)
        return [dataclasses.replace(self, files=(file,), lengths=(length,)) for file, length in each]

    def where(self, index: int) -> str:
        """Return the number of the record and its file."""
        number, position = self._position(index)
        return f"Picture {position:,} of {self.files[number]}"

    def _position(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + self.lengths[number]

    def _bytes(self, index: int) -> bytes:
        number, position = self._position(index)
        try:
            return self._file(self.files[number])[position]
        except Exception as problem:  # array_record raises many types
            raise RunError(
                f"{self.where(index)} cannot be read ({type(problem).__name__}: {problem}). Is the file complete?"
            ) from problem

    def _file(self, path: str) -> "Sequence[bytes] | TfrecordFile":
        return array_record(path)


@dataclass(frozen=True)
class TfdsRecords(FileRecords):
    """A split that tensorflow-datasets prepared, as array_record or tfrecord, read without TensorFlow."""

    file_format: str = "array_record"

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        features = _example(self._bytes(index), self.where(index))
        return features["image"].bytes_list.value[0], features["label"].int64_list.value[0]

    def _file(self, path: str) -> "Sequence[bytes] | TfrecordFile":
        return array_record(path) if self.file_format == "array_record" else tfrecord(path)


def _example(serialized: bytes, where: str) -> Any:
    """Parse a tf.train.Example and return its features, the image still encoded.

    tensorflow-datasets' own reader takes 0.4 ms for each.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    kind: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 - protobuf defines it at import
    try:
        features = kind.FromString(serialized).features.feature
        if len(features["image"].bytes_list.value) == 1 and len(features["label"].int64_list.value) == 1:
            return features
    except Exception as problem:  # protobuf's DecodeError, whose module depends on its version
        raise RunError(f"{where} is damaged ({type(problem).__name__}: {problem}).") from problem
    raise RunError(f"{where} has no image or no label; expected one of each.")


LABEL = struct.Struct("<i")
"""A record of a prepared file is its label in this format, followed by the JPEG."""


@dataclass(frozen=True)
class PreparedRecords(FileRecords):
    """A split written by `--mode=prepare` (prepare.py)."""

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        record = self._bytes(index)
        return record[LABEL.size :], LABEL.unpack_from(record)[0]


PART = 1000
"""Number of picture files in a part."""


@dataclass(frozen=True)
class FolderRecords:
    """Picture files with their labels, in arrays, so that a million of them are pickled quickly for worker processes."""

    root: str
    paths: np.ndarray
    """bytes [n], relative to root, in the file system's encoding"""
    labels: np.ndarray
    """int32 [n]"""

    def __len__(self) -> int:
        return len(self.paths)

    def parts(self) -> "Sequence[FolderRecords]":
        """See `Records`."""
        pieces = (slice(start, start + PART) for start in range(0, len(self), PART))
        return [FolderRecords(self.root, self.paths[piece], self.labels[piece]) for piece in pieces]

    def where(self, index: int) -> str:
        """Return the path of the file."""
        return os.path.join(self.root, os.fsdecode(self.paths[index]))

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Records`."""
        try:
            return Path(self.where(index)).read_bytes(), int(self.labels[index])
        except OSError as problem:
            raise RunError(f"{self.where(index)} cannot be read ({problem}).") from problem


# --- record files, each opened once per process ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)  # ImageNet has 1,024 training files and 64 validation files
def array_record(path: str) -> Sequence[bytes]:
    """Open an array_record file for random access."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return cast(Sequence[bytes], ArrayRecordDataSource([path]))


@functools.lru_cache(maxsize=4096)
def tfrecord(path: str) -> "TfrecordFile":
    """Open a tfrecord file for random access."""
    return TfrecordFile(path)


class TfrecordFile:
    """Random access to a TFRecord file; checksums are not verified.

    A record is stored as its length (8 bytes), the length's checksum (4), the data, the data's checksum (4).
    """

    def __init__(self, path: str):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - open for the lifetime of this object
        self._descriptor = self._file.fileno()
        starts, start, size = array("q"), 0, os.fstat(self._descriptor).st_size
        while start < size:
            length = int.from_bytes(os.pread(self._descriptor, 8, start), "little")
            if start + 16 + length > size:
                raise ValueError(f"truncated at byte {start:,} of {size:,}")
            starts.append(start)
            start += 16 + length
        self._starts = starts  # an array: eight bytes per record, where a list takes forty

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:
        start = self._starts[index]
        length = int.from_bytes(os.pread(self._descriptor, 8, start), "little")
        return os.pread(self._descriptor, length, start + 12)
