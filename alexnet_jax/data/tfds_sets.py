"""Data sets that tensorflow-datasets prepared: where they are, what they say of themselves, whether all of it is there.

TensorFlow is never imported here.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from alexnet_jax.errors import RunError, UsageError


@dataclass(frozen=True)
class TfdsSet:
    """What this program expects of a set."""

    name: str
    title: str
    splits: tuple[str, ...]
    shape: tuple[int | None, ...] | None = None
    """Of an image; None: any."""


CIFAR10 = TfdsSet("cifar10", "CIFAR-10", ("train", "test"), (32, 32, 3))
IMAGENET = TfdsSet("imagenet2012", "ImageNet", ("train", "validation"), (None, None, 3))


@dataclass(frozen=True)
class Prepared:
    """A prepared version folder whose description was read; its records were not, but for their sizes and ends."""

    kind: TfdsSet
    folder: Path
    builder: Any
    """tfds.core.DatasetBuilder of `folder`."""
    version: str
    classes: tuple[str, ...]
    jpeg: bool
    """The images were encoded as JPEG."""
    counts: dict[str, int]
    """Examples of each split, as dataset_info.json has them."""
    fingerprint: str

    def readable_format(self) -> str:
        """array_record or tfrecord. Raises RunError for any other of tensorflow-datasets' formats."""
        found = self.builder.info.file_format.value
        if found not in ("array_record", "tfrecord"):
            raise RunError(f"{self.folder} is in the format {found}; expected array_record or tfrecord.")
        return found

    def files(self, split: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """(record files, examples in each) of a split."""
        info = self.builder.info.splits[split]
        return tuple(map(os.fspath, info.filepaths)), tuple(info.shard_lengths)


def data_folder(kind: TfdsSet, data_dir: str | None) -> Path:
    """The tensorflow-datasets folder: `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises UsageError where a folder was named that does not exist, or that lies inside the data set.
    """
    name = kind.name
    for origin, value in (("--data.dir", data_dir), ("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR"))):
        if not value:
            continue
        folder = Path(value).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"{origin}={value}: expected a tensorflow-datasets folder, but there is no such folder.")
        if (folder / "dataset_info.json").exists() or (folder.name == name and not (folder / name).exists()):
            raise UsageError(f"{origin}={value}: expected the folder that contains {name}/, not {name} itself.")
        return folder
    return Path("~/tensorflow_datasets").expanduser()


def version_folder(kind: TfdsSet, folder: Path) -> Path | None:
    """The folder of the version that tensorflow-datasets would read, None where nothing is prepared.

    Raises RunError for a half-written one, which tensorflow-datasets would neither read nor replace.
    """
    import tensorflow_datasets as tfds

    with quiet(), no_traceback(f"The description of {kind.title} in {folder / kind.name} cannot be read"):
        builder = tfds.builder(kind.name, data_dir=folder)
        prepared, found = builder.is_prepared(), Path(builder.data_path)
    # is_prepared also takes sets without features.json, which versions before 4 wrote and none can read.
    if prepared and (found / "features.json").exists():
        return found
    if found.exists():
        raise RunError(
            f"{found} is only half written: dataset_info.json or features.json is missing. "
            f"Delete that folder and prepare {kind.title} anew."
        )
    return None


def describe(kind: TfdsSet, folder: Path) -> Prepared:
    """Read the description in the version folder `folder` and check it against what lies beside it.

    Raises RunError for a damaged description, a missing record file, images of another shape than the set's.
    """
    import tensorflow_datasets as tfds

    with quiet(), no_traceback(f"The description of {kind.title} in {folder} cannot be read"):
        builder = tfds.builder_from_directory(folder)
        info, features = builder.info, cast("dict[str, Any]", builder.info.features)
        image, classes = features["image"], tuple(features["label"].names)
        formats = {available.value for available in info.available_file_formats()}
        if "array_record" in formats and info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            info.set_file_format("array_record", override=True, override_if_initialized=True)
        splits = cast("dict[str, Any]", info.splits)
        counts = {split: sum(splits[split].shard_lengths) for split in kind.splits}
        shape, dtype, encoding = tuple(image.shape), np.dtype(image.np_dtype), image.to_json_content().encoding_format
        records = _record_files(kind, info)
    if (shape, dtype) != (kind.shape or shape, np.uint8):
        raise RunError(f"{folder / 'features.json'} says images are {dtype} {shape}, expected uint8 {kind.shape}.")
    for split, count in counts.items():
        if count == 0:
            raise RunError(f"{folder / 'dataset_info.json'} says that the split {split!r} is empty.")
    return Prepared(
        kind=kind,
        folder=folder,
        builder=builder,
        version=str(info.version),
        classes=classes,
        jpeg=encoding == "jpeg",
        counts=counts,
        fingerprint=_fingerprint(folder, records),
    )


def describe_any(folder: Path) -> Prepared:
    """The set in the version folder `folder`, whichever it is; test, else validation, are its test images.

    Raises RunError where it is damaged, UsageError where it has no labelled images or not both splits.
    """
    import tensorflow_datasets as tfds

    with quiet(), no_traceback(f"The description in {folder} cannot be read"):
        info = tfds.builder_from_directory(folder).info
    splits, features = cast("dict[str, Any]", info.splits), cast("dict[str, Any]", info.features)
    test = next((name for name in ("test", "validation") if name in splits), None)
    if "train" not in splits or test is None or not {"image", "label"} <= set(features):
        raise UsageError(
            f"{folder}: expected a set with image and label and the splits train and test (or validation), found "
            f"{', '.join(features)} and the splits {', '.join(splits)}."
        )
    return describe(TfdsSet(info.name, info.name, ("train", test)), folder)


def _record_files(kind: TfdsSet, info: Any) -> list[Path]:
    """The record files of all splits, as dataset_info.json lists them. Raises RunError for one that is missing."""
    files = [Path(path) for split in kind.splits for path in info.splits[split].filepaths]
    for file in files:
        if not file.is_file():
            raise RunError(
                f"The record file {file} is missing, but dataset_info.json lists it. "
                f"Put it back, or delete {file.parent} to prepare {kind.title} anew."
            )
    return files


def _fingerprint(folder: Path, records: list[Path]) -> str:
    """16 hexadecimal digits: a hash of the description and of each record file's name, size, first and last 64 KiB."""
    digest = hashlib.sha256()
    for name in ("dataset_info.json", "features.json", "label.labels.txt"):
        file = folder / name
        digest.update(name.encode() + (file.read_bytes() if file.exists() else b""))
    for file in records:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(2**16))
            opened.seek(max(0, size - 2**16))
            digest.update(opened.read())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def no_traceback(what: str) -> Iterator[None]:
    """Turn any exception of a library into a RunError that begins with `what`."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # tfds, array_record and the decoders raise nearly everything
        raise RunError(f"{what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings of tensorflow-datasets (no OpenCV, no dataset_info.json yet) that our own messages replace."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
