"""Pictures on disk before any of them is decoded: ImageNet, any set of tensorflow-datasets, or folders of classes."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data import tfds_sets
from alexnet_jax.data.images import pictures
from alexnet_jax.data.records import FolderRecords, Records, TfdsRecords
from alexnet_jax.data.split import DataSet, Stream
from alexnet_jax.data.tfds_sets import IMAGENET, Prepared
from alexnet_jax.errors import DataNotFoundError, UsageError
from alexnet_jax.experiment import Data


@dataclass(frozen=True)
class Source:
    """Encoded pictures in two splits."""

    name: str
    title: str
    classes: tuple[str, ...]
    train: Records
    test: Records
    fingerprint: str

    def data_set(self, side: int) -> DataSet:
        """Read from where they lie, decoded and cut to squares each time."""
        return DataSet(
            self.name,
            self.title,
            self.classes,
            *(
                Stream(records, side, len(self.classes), np.arange(len(records)), self.fingerprint)
                for records in (self.train, self.test)
            ),
            fingerprint=self.fingerprint,
        )


def find(data: Data) -> Source:
    """Raises DataNotFoundError, UsageError or RunError where it is not there, wrongly named, or damaged."""
    return find_imagenet(data) if data.name == "imagenet2012" else find_folder(data)


# --- tensorflow-datasets ---------------------------------------------------------------------------------------------


def find_imagenet(data: Data) -> Source:
    """ImageNet as tensorflow-datasets prepares it; its validation split, the 50,000 official images, is the test set.

    Raises DataNotFoundError where it is not prepared, with every way to get it, RunError where it is damaged.
    """
    folder = tfds_sets.data_folder(IMAGENET, data.dir)
    found = tfds_sets.version_folder(IMAGENET, folder)
    if found is None:
        raise DataNotFoundError(_imagenet_not_found(folder))
    return _from_tfds(tfds_sets.describe(IMAGENET, found))


def _from_tfds(prepared: Prepared) -> Source:
    file_format = prepared.readable_format()
    records = [TfdsRecords(*prepared.files(split), file_format) for split in prepared.kind.splits]
    count = f"{len(records[0]):,} + {len(records[1]):,} images"
    title = f"{prepared.kind.title} (tfds {prepared.kind.name} {prepared.version}, {count})"
    return Source(prepared.kind.name, title, prepared.classes, records[0], records[1], prepared.fingerprint)


def _imagenet_not_found(folder: Path) -> str:
    manual = folder / "downloads" / "manual"
    return "\n".join(
        (
            f"ImageNet is not prepared in {folder}, and it cannot be downloaded without an account. Any of these helps:",
            f"- prepared elsewhere: --data.dir=FOLDER or TFDS_DATA_DIR=FOLDER, where FOLDER contains {IMAGENET.name}/",
            "- ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org, put into "
            f"{manual}, then: tfds build {IMAGENET.name} --data_dir={folder} --file_format=array_record",
            "- pictures of your own, a folder for each class: --data.name=folder --data.dir=FOLDER",
            "- what --mode=prepare made elsewhere: --data.prepared=FOLDER",
            "- a smaller network and set: --exp=alexnet_cifar",
        )
    )


# --- folders of classes ----------------------------------------------------------------------------------------------

TEST_NAMES = ("test", "val", "validation")
"""Sub-folders that hold the test pictures beside `train`, the first that is there."""

TEST_SHARE = 10
"""Where there is no such folder one picture in so many is kept for the test."""


def find_folder(data: Data) -> Source:
    """Sub-folders for classes, or such folders in train/ and test/ (or val/); or any tensorflow-datasets set of labelled images.

    Raises UsageError where the folder, or any class in it, is missing, RunError for a damaged set.
    """
    root = _root(data)
    if (root / "dataset_info.json").exists():
        return _from_tfds(tfds_sets.describe_any(root))
    names, train, test = class_names(data), root, None
    if (root / "train").is_dir():
        train = root / "train"
        test = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    found = _listing(root, train, names, whole=True)
    if test is None:
        held = np.zeros(len(found), bool)
        held[np.random.RandomState(0).permutation(len(found))[: max(1, len(found) // TEST_SHARE)]] = True
        splits = [[one for one, out in zip(found, held, strict=True) if out == kept] for kept in (False, True)]
        rule = f"one in {TEST_SHARE} kept for the test"
    else:
        splits, rule = [found, _listing(root, test, names)], f"test pictures from {test.name}/"
    for split, where in zip(splits, (train, test or train), strict=True):
        if not split:
            raise UsageError(
                f"--data.dir={root}: {where} holds too few pictures. Expected some for training and for the test."
            )
    count = f"{len(splits[0]):,} + {len(splits[1]):,} pictures of {len(names)} classes, {rule}"
    records = [_folder_records(root, split) for split in splits]
    return Source(data.name, f"{root.name} ({count})", tuple(names), records[0], records[1], _fingerprint(root, splits))


def _root(data: Data) -> Path:
    if data.dir is None:
        raise UsageError(
            "--data.name=folder needs --data.dir=FOLDER, a folder with a sub-folder of pictures for each class."
        )
    root = Path(data.dir).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(
            f"--data.dir={data.dir}: there is no such folder. Expected one with a sub-folder for each class."
        )
    return root


def class_names(data: Data) -> list[str]:
    """Names of the classes of `--data.name=folder`, sorted: class number i is the i-th. Raises UsageError for fewer than two."""
    root = _root(data)
    if (root / "dataset_info.json").exists():
        return list(tfds_sets.describe_any(root).classes)
    where = root / "train" if (root / "train").is_dir() else root
    names = sorted(path.name for path in where.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UsageError(
            f"--data.dir={data.dir}: {len(names)} sub-folders in {where}; expected one for each class, at least two, with the "
            "pictures of the class in it."
        )
    return names


def _listing(root: Path, folder: Path, names: list[str], *, whole: bool = False) -> list[tuple[str, int]]:
    """(path below root, label) of every picture, by class. Raises UsageError for a class without pictures, or unknown."""
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."} - set(names))
    if unknown:
        raise UsageError(f"--data.dir={root}: {folder} has a class {unknown[0]!r} that train/ has not.")
    found = []
    for label, name in enumerate(names):
        paths = pictures(folder / name) if (folder / name).is_dir() else []
        if whole and not paths:
            raise UsageError(f"--data.dir={root}: {folder / name} holds no pictures. Add some, or remove that folder.")
        found += [(os.fspath(path.relative_to(root)), label) for path in paths]
    return found


def _folder_records(root: Path, split: list[tuple[str, int]]) -> FolderRecords:
    paths, labels = zip(*split, strict=True)
    return FolderRecords(os.fspath(root), np.array([os.fsencode(path) for path in paths]), np.array(labels, np.int32))


def _fingerprint(root: Path, splits: list[list[tuple[str, int]]]) -> str:
    """16 hexadecimal digits: a hash of each picture's path, label and size."""
    digest = hashlib.sha256()
    for split in splits:
        for path, label in split:
            digest.update(os.fsencode(f"{path} {label} {(root / path).stat().st_size}\n"))
        digest.update(b"--\n")
    return digest.hexdigest()[:16]
