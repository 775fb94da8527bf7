"""Folders of classes (`--data.name=folder`): a subfolder of pictures for each class, or any set of tensorflow-datasets."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data import folder_layout, picture_files, tfds_sets
from alexnet_jax.data.copies import shared_pictures
from alexnet_jax.data.dataset import PictureSet, fingerprint
from alexnet_jax.data.picture_files import Found, counted, is_hidden, subfolders
from alexnet_jax.data.records import FolderRecords
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data

TEST_SHARE = 10
"""Without a folder of test pictures, one picture in TEST_SHARE is kept for the test."""


@dataclass(frozen=True)
class Picture:
    """A picture file and its label."""

    path: str
    """Relative to the folder that --data.dir names."""
    label: int


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder of classes."""

    pictures: list[Picture]
    found: Found
    loose: list[Path]
    """Files next to the folders of the classes, which belong to no class."""


def find(options: Data) -> PictureSet:
    """Find the pictures of every class.

    --data.dir names a folder with a subfolder for each class, or with such folders in train/, test/ and val/ (see
    folder_layout.py), or the version folder of a set of labelled images that tensorflow-datasets prepared. The notes of the
    result say what each folder is used for and what is not used.

    Raises UsageError if the folder or a class is missing, RunError if a set of tensorflow-datasets is damaged.
    """
    root = _root(options)
    if (root / "dataset_info.json").exists():
        return tfds_sets.read_any_set(root).pictures()
    layout, names = folder_layout.read(root), class_names(options)
    listings = {"train": _list_pictures(root, layout.train, names, every_class=True)}
    for split, folder in (("validation", layout.validation), ("test", layout.test)):
        if folder is not None:
            listings[split] = _list_pictures(root, folder, names)
    splits = {split: listing.pictures for split, listing in listings.items()}
    rule = f"test pictures from {layout.test.name}/" if layout.test else f"one in {TEST_SHARE} kept for the test"
    if layout.test is None:
        splits["train"], splits["test"] = _cut(splits["train"])
    for split, kept in splits.items():
        if not kept:
            where = getattr(layout, split) or layout.train
            raise UsageError(f"--data.dir={root}: {where} contains too few pictures. Expected at least one for each split.")
    held = splits.get("validation", [])
    ordered = [splits["train"], *([held] if held else []), splits["test"]]
    count = f"{len(splits['train']):,} + {len(splits['test']):,} pictures of {len(names)} classes, {rule}"
    title = f"{root.name} ({count})" if not held else f"{root.name} ({count}, {len(held):,} of validation)"
    return PictureSet(
        options.name,
        title,
        tuple(names),
        _records(root, splits["train"] + held),
        _records(root, splits["test"]),
        fingerprint(_parts(root, ordered)),
        validation=len(held),
        notes=lambda: (*_notes(root, layout, listings), *_copies(root, splits)),
    )


def _cut(pictures: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Return (training pictures, one in TEST_SHARE for the test), always the same ones."""
    held = np.zeros(len(pictures), bool)
    held[np.random.RandomState(0).permutation(len(pictures))[: max(1, len(pictures) // TEST_SHARE)]] = True
    train, test = (
        [one for one, out in zip(pictures, held, strict=True) if out == kept] for kept in (False, True)
    )
    return train, test


def _notes(root: Path, layout: folder_layout.Layout, listings: dict[str, Listing]) -> list[str]:
    """Return sentences on what each folder is used for, and on what is skipped."""
    used = [
        f"{_named(root, getattr(layout, split))}: {len({p.label for p in listing.pictures}):,} classes, "
        f"{len(listing.pictures):,} pictures, used for {PURPOSES[split]}"
        for split, listing in listings.items()
    ]
    if layout.test is None:
        used.append(f"test: one in {TEST_SHARE} of them")
    sentences = ["; ".join(used) + ".", *layout.sentences()]
    loose = [path for listing in listings.values() for path in listing.loose]
    hidden = [path for listing in listings.values() for path in listing.found.hidden]
    if layout.train != root:
        loose += _loose(root)
        hidden += _hidden(root)
    if loose:
        sentences.append(f"{counted(loose, 'file')} in no folder of a class, such as {loose[0].relative_to(root)}: not used.")
    skipped = [path for listing in listings.values() for path in listing.found.skipped]
    broken = [path for listing in listings.values() for path in listing.found.broken]
    return [*sentences, *picture_files.describe_skipped(Found((), tuple(skipped), tuple(hidden), tuple(broken)), root)]


def _loose(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))


def _hidden(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_hidden(path.name))


PURPOSES = {"train": "training", "validation": "validation", "test": "the test"}


def _named(root: Path, folder: Path) -> str:
    return f"{root.name if folder == root else folder.name}/"


def _copies(root: Path, splits: dict[str, list[Picture]]) -> list[str]:
    """Return a sentence on pictures of the training or validation split that are also in the test split."""
    paths = {split: [root / picture.path for picture in pictures] for split, pictures in splits.items()}
    seen = [path for split, several in paths.items() if split != "test" for path in several]
    return shared_pictures(seen, paths["test"], root)


def class_names(options: Data) -> list[str]:
    """Return the names of the classes, sorted; a label is an index into them. Raises UsageError for fewer than two."""
    root = _root(options)
    if (root / "dataset_info.json").exists():
        return list(tfds_sets.read_any_set(root).classes)
    where = folder_layout.read(root).train
    names = [path.name for path in subfolders(where)]
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


def _list_pictures(root: Path, folder: Path, names: list[str], *, every_class: bool = False) -> Listing:
    """Return every picture, class by class. Raises UsageError for an unknown class, with `every_class` also for an empty one."""
    unknown = sorted({path.name for path in subfolders(folder)} - set(names))
    if unknown:
        raise UsageError(f"--data.dir={root}: {folder} has a class {unknown[0]!r} that the training split does not have.")
    pictures, skipped, hidden, broken = [], [], _hidden(folder), []
    for label, name in enumerate(names):
        found = picture_files.find(folder / name)
        if every_class and not found.pictures:
            raise UsageError(
                f"--data.dir={root}: {folder / name} contains no pictures. Add some, or remove that folder."
                + "".join(f" {sentence}" for sentence in picture_files.describe_skipped(found, root))
            )
        pictures += [Picture(os.fspath(path.relative_to(root)), label) for path in found.pictures]
        skipped += found.skipped
        hidden += found.hidden
        broken += found.broken
    return Listing(pictures, Found((), tuple(skipped), tuple(hidden), tuple(broken)), _loose(folder))


def _records(root: Path, split: list[Picture]) -> FolderRecords:
    paths = np.array([os.fsencode(picture.path) for picture in split])
    return FolderRecords(os.fspath(root), paths, np.array([picture.label for picture in split], np.int32))


def _parts(root: Path, splits: list[list[Picture]]) -> Iterator[bytes]:
    """Yield what identifies the pictures: the path, label and size of each."""
    for split in splits:
        for picture in split:
            yield os.fsencode(f"{picture.path} {picture.label} {(root / picture.path).stat().st_size}\n")
        yield b"--\n"
