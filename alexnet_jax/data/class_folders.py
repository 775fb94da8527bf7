"""Folders of classes (`--data.name=folder`): a subfolder of pictures for each class, or any set of tensorflow-datasets."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data import tfds_sets
from alexnet_jax.data.dataset import PictureSet, fingerprint
from alexnet_jax.data.images import pictures
from alexnet_jax.data.records import FolderRecords
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data

TEST_NAMES = ("test", "val", "validation")
"""Names of the folder of test pictures next to `train`; the first one that exists is used."""

TEST_SHARE = 10
"""Without a folder of test pictures, one picture in TEST_SHARE is kept for the test."""


@dataclass(frozen=True)
class Picture:
    """A picture file and its label."""

    path: str
    """Relative to the folder that --data.dir names."""
    label: int


def find(options: Data) -> PictureSet:
    """Find the pictures of every class.

    --data.dir names a folder with a subfolder for each class, or with such folders in train/ and test/ (or val/), or the
    version folder of a set of labelled images that tensorflow-datasets prepared.

    Raises UsageError if the folder or a class is missing, RunError if a set of tensorflow-datasets is damaged.
    """
    root = _root(options)
    if (root / "dataset_info.json").exists():
        return tfds_sets.read_any_set(root).pictures()
    names, train_folder, test_folder = class_names(options), root, None
    if (root / "train").is_dir():
        train_folder = root / "train"
        test_folder = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    found = _list_pictures(root, train_folder, names, every_class=True)
    if test_folder is None:
        held = np.zeros(len(found), bool)
        held[np.random.RandomState(0).permutation(len(found))[: max(1, len(found) // TEST_SHARE)]] = True
        splits = [[one for one, out in zip(found, held, strict=True) if out == kept] for kept in (False, True)]
        rule = f"one in {TEST_SHARE} kept for the test"
    else:
        splits, rule = [found, _list_pictures(root, test_folder, names)], f"test pictures from {test_folder.name}/"
    for split, where in zip(splits, (train_folder, test_folder or train_folder), strict=True):
        if not split:
            raise UsageError(
                f"--data.dir={root}: {where} contains too few pictures. Expected at least one for training and one for the test."
            )
    count = f"{len(splits[0]):,} + {len(splits[1]):,} pictures of {len(names)} classes, {rule}"
    title, identity = f"{root.name} ({count})", fingerprint(_parts(root, splits))
    train, test = (_records(root, split) for split in splits)
    return PictureSet(options.name, title, tuple(names), train, test, identity)


def class_names(options: Data) -> list[str]:
    """Return the names of the classes, sorted; a label is an index into them. Raises UsageError for fewer than two."""
    root = _root(options)
    if (root / "dataset_info.json").exists():
        return list(tfds_sets.read_any_set(root).classes)
    where = root / "train" if (root / "train").is_dir() else root
    names = sorted(path.name for path in where.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UsageError(
            f"--data.dir={options.dir}: {len(names)} subfolders in {where}; expected at least two, one for each class, with "
            "the pictures of the class."
        )
    return names


def _root(options: Data) -> Path:
    if options.dir is None:
        raise UsageError(
            "--data.name=folder needs --data.dir=FOLDER, a folder with a subfolder of pictures for each class."
        )
    root = Path(options.dir).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(
            f"--data.dir={options.dir}: no such folder. Expected a folder with a subfolder for each class."
        )
    return root


def _list_pictures(root: Path, folder: Path, names: list[str], *, every_class: bool = False) -> list[Picture]:
    """Return every picture, class by class. Raises UsageError for an unknown class, with `every_class` also for an empty one."""
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."} - set(names))
    if unknown:
        raise UsageError(f"--data.dir={root}: {folder} has a class {unknown[0]!r} that train/ does not have.")
    found = []
    for label, name in enumerate(names):
        paths = pictures(folder / name) if (folder / name).is_dir() else []
        if every_class and not paths:
            raise UsageError(f"--data.dir={root}: {folder / name} contains no pictures. Add some, or remove that folder.")
        found += [Picture(os.fspath(path.relative_to(root)), label) for path in paths]
    return found


def _records(root: Path, split: list[Picture]) -> FolderRecords:
    paths = np.array([os.fsencode(picture.path) for picture in split])
    return FolderRecords(os.fspath(root), paths, np.array([picture.label for picture in split], np.int32))


def _parts(root: Path, splits: list[list[Picture]]) -> Iterator[bytes]:
    """Yield what identifies the pictures: the path, label and size of each."""
    for split in splits:
        for picture in split:
            yield os.fsencode(f"{picture.path} {picture.label} {(root / picture.path).stat().st_size}\n")
        yield b"--\n"
