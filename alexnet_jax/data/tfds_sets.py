"""Data sets that tensorflow-datasets prepared: where they are, their descriptions, and whether they are complete.

TensorFlow is never imported here.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from alexnet_jax.data.dataset import PictureSet, fingerprint
from alexnet_jax.data.records import TfdsRecords
from alexnet_jax.errors import RunError, UsageError


@dataclass(frozen=True)
class TfdsSpec:
    """What this program expects of a set."""

    name: str
    title: str
    splits: tuple[str, ...]
    """Names of the training split and of the split that is the test set here."""
    shape: tuple[int | None, ...] | None = None
    """Shape of an image, where None is any length; None: any shape."""
    validation: str | None = None
    """Name of the validation split; None: images of the training split are held out."""

    @property
    def read_splits(self) -> tuple[str, ...]:
        """The names of all splits that are read."""
        return (*self.splits, *([self.validation] if self.validation else []))


CIFAR10 = TfdsSpec("cifar10", "CIFAR-10", ("train", "test"), (32, 32, 3))
IMAGENET = TfdsSpec("imagenet2012", "ImageNet", ("train", "validation"), (None, None, 3))


@dataclass(frozen=True)
class TfdsSet:
    """A version folder whose description has been read; of its record files only sizes and ends have been read."""

    spec: TfdsSpec
    folder: Path
    builder: Any
    """tfds.core.DatasetBuilder of `folder`."""
    version: str
    classes: tuple[str, ...]
    jpeg: bool
    """Whether the images are encoded as JPEG."""
    counts: dict[str, int]
    """{split: number of examples}, from dataset_info.json."""
    fingerprint: str
    notes: tuple[str, ...] = ()
    """The sentences of `PictureSet.notes`."""

    def readable_format(self) -> str:
        """Return "array_record" or "tfrecord". Raises RunError for the other formats of tensorflow-datasets."""
        found = self.builder.info.file_format.value
        if found not in ("array_record", "tfrecord"):
            raise RunError(f"{self.folder} is in the format {found}; expected array_record or tfrecord.")
        return found

    def records(self, *splits: str) -> TfdsRecords:
        """Return the records of one split, or of several one after another."""
        infos = [self.builder.info.splits[split] for split in splits]
        files = tuple(os.fspath(file) for info in infos for file in info.filepaths)
        lengths = tuple(length for info in infos for length in info.shard_lengths)
        return TfdsRecords(files, lengths, self.readable_format())

    def pictures(self) -> PictureSet:
        """Return the set as encoded pictures."""
        spec = self.spec
        first, last = spec.splits
        held = 0 if spec.validation is None else self.counts[spec.validation]
        train, test = self.records(first, *spec.read_splits[2:]), self.records(last)
        counts = f"{len(train) - held:,} + {len(test):,} images" + (f", {held:,} of validation" if held else "")
        title = f"{spec.title} (tfds {spec.name} {self.version}, {counts})"
        return PictureSet(spec.name, title, self.classes, train, test, self.fingerprint, held, lambda: self.notes)


def data_folder(spec: TfdsSpec, data_dir: str | None) -> Path:
    """Return the tensorflow-datasets folder: `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises UsageError if the named folder does not exist or is a folder of the data set itself.
    """
    name = spec.name
    for origin, value in (("--data.dir", data_dir), ("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR"))):
        if not value:
            continue
        folder = Path(value).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"{origin}={value}: no such folder. Expected a folder of tensorflow-datasets.")
        if (folder / "dataset_info.json").exists() or (folder.name == name and not (folder / name).exists()):
            raise UsageError(f"{origin}={value}: expected the folder that contains {name}/, not {name} itself.")
        return folder
    return Path("~/tensorflow_datasets").expanduser()


def version_folder(spec: TfdsSpec, folder: Path) -> Path | None:
    """Return the folder of the version that tensorflow-datasets would read, None if the set is not prepared.

    Raises RunError for an incomplete version folder, which tensorflow-datasets would neither read nor replace.
    """
    import tensorflow_datasets as tfds

    with quiet(), no_traceback(f"The description of {spec.title} in {folder / spec.name} cannot be read"):
        builder = tfds.builder(spec.name, data_dir=folder)
        prepared, found = builder.is_prepared(), Path(builder.data_path)
    # is_prepared also accepts sets without features.json, which versions before 4 wrote and none can read.
    if prepared and (found / "features.json").exists():
        return found
    if found.exists():
        raise RunError(
            f"{found} is incomplete: dataset_info.json or features.json is missing. "
            f"Delete that folder and prepare {spec.title} again."
        )
    return None


def read_set(spec: TfdsSpec, folder: Path) -> TfdsSet:
    """Read the description in a version folder and check it against `spec` and the files of the folder.

    Raises RunError for a damaged description, a missing record file, or images of an unexpected shape.
    """
    import tensorflow_datasets as tfds

    with quiet(), no_traceback(f"The description of {spec.title} in {folder} cannot be read"):
        builder = tfds.builder_from_directory(folder)
        info, features = builder.info, cast("dict[str, Any]", builder.info.features)
        image, classes = features["image"], tuple(features["label"].names)
        formats = {available.value for available in info.available_file_formats()}
        if "array_record" in formats and info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            info.set_file_format("array_record", override=True, override_if_initialized=True)
        splits = cast("dict[str, Any]", info.splits)
        counts = {split: sum(splits[split].shard_lengths) for split in spec.read_splits}
        shape, dtype, encoding = tuple(image.shape), np.dtype(image.np_dtype), image.to_json_content().encoding_format
        files = _record_files(spec, info)
    if (shape, dtype) != (spec.shape or shape, np.uint8):
        raise RunError(f"{folder / 'features.json'} says images are {dtype} {shape}, expected uint8 {spec.shape}.")
    for split, count in counts.items():
        if count == 0:
            raise RunError(f"{folder / 'dataset_info.json'} says that the split {split!r} is empty.")
    return TfdsSet(
        spec=spec,
        folder=folder,
        builder=builder,
        version=str(info.version),
        classes=classes,
        jpeg=encoding == "jpeg",
        counts=counts,
        fingerprint=fingerprint(_parts(folder, files)),
    )


def read_any_set(folder: Path) -> TfdsSet:
    """Read the description of any set in a version folder.

    Its split `test` is the test set and `validation` the validation split; without `test`, `validation` is the test set.

    Raises RunError if the set is damaged, UsageError if it has no labelled images or lacks one of the two splits.
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
    validation = "validation" if test != "validation" and "validation" in splits else None
    spec = TfdsSpec(info.name, info.name, ("train", test), validation=validation)
    found, unused = read_set(spec, folder), sorted(set(splits) - set(spec.read_splits))
    used = f"train is used for training, {test} for the test" + (", validation for validation" if validation else "")
    left = f"; not used: {', '.join(unused)}" if unused else ""
    return dataclasses.replace(found, notes=(f"Splits of {info.name}: {used}{left}.",))


def _record_files(spec: TfdsSpec, info: Any) -> list[Path]:
    """Return the record files of all splits that dataset_info.json lists. Raises RunError if one is missing."""
    files = [Path(path) for split in spec.read_splits for path in info.splits[split].filepaths]
    for file in files:
        if not file.is_file():
            raise RunError(
                f"The record file {file} is missing, but dataset_info.json lists it. "
                f"Restore it, or delete {file.parent} to prepare {spec.title} again."
            )
    return files


def _parts(folder: Path, records: list[Path]) -> Iterator[bytes]:
    """Yield what identifies a set: its description, and of each record file the name, size, first and last 64 KiB."""
    for name in ("dataset_info.json", "features.json", "label.labels.txt"):
        file = folder / name
        yield name.encode() + (file.read_bytes() if file.exists() else b"")
    for file in records:
        size = file.stat().st_size
        yield f"{file.name} {size}".encode()
        with file.open("rb") as opened:
            yield opened.read(2**16)
            opened.seek(max(0, size - 2**16))
            yield opened.read()


@contextlib.contextmanager
def no_traceback(what: str) -> Iterator[None]:
    """Convert any exception of a library to a RunError whose message begins with `what`."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # tfds, array_record and the decoders raise nearly every type
        raise RunError(f"{what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of tensorflow-datasets (no OpenCV, no dataset_info.json yet) that our own messages replace."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
