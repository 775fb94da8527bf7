"""Prepared pictures: squares that were stored once as JPEG, so that an epoch decodes 256x256 pixels instead of photographs.

The original program did the same. A folder holds array_record files, each with a part of a split (records of a label and a
JPEG), and prepared.json with counts and checksums, which is written last. prepare.py writes it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_jax.data.dataset import DataSet, PictureSet, fingerprint
from alexnet_jax.data.images import QUALITY
from alexnet_jax.data.records import PreparedRecords
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.files import cache_folder

MANIFEST = "prepared.json"
SPLITS = ("train", "test")
NONE = "none"
"""Value of --data.prepared that selects the original pictures although prepared ones exist."""


@dataclass(frozen=True)
class Preparation:
    """What a folder of prepared pictures was made from. The order of the fields is that of prepared.json."""

    name: str
    title: str
    source: str
    """Fingerprint of the original pictures."""
    side: int
    quality: int
    """JPEG quality."""
    classes: tuple[str, ...]
    validation: int = 0
    """See `PictureSet.validation`."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields for prepared.json, without a `validation` of 0, so that earlier fingerprints stay valid."""
        values = dataclasses.asdict(self)
        return values if self.validation else {k: v for k, v in values.items() if k != "validation"}


@dataclass(frozen=True)
class PreparedSet:
    """A complete folder of prepared pictures."""

    folder: Path
    preparation: Preparation
    pictures: PictureSet
    files: tuple[str, ...]

    def missing(self) -> list[str]:
        """Return the files that prepared.json lists and that do not exist."""
        return [file for file in self.files if not Path(file).is_file()]


def preparation(options: Data, originals: PictureSet) -> Preparation:
    """Return what prepared pictures with these options are made from."""
    return Preparation(
        originals.name,
        originals.title,
        originals.fingerprint,
        options.side,
        QUALITY,
        originals.classes,
        originals.validation,
    )


def default_folder(options: Data, originals: PictureSet) -> Path:
    """Return the folder of prepared pictures when --data.prepared is omitted."""
    return cache_folder() / "prepared" / f"{originals.name}-{options.side}-{originals.fingerprint}"


def complete(folder: Path) -> PreparedSet | None:
    """Return the prepared pictures of a folder, None if no preparation was completed. Raises RunError if it is damaged."""
    path = folder / MANIFEST
    try:
        text = path.read_text()
        values = json.loads(text)
        listed = [[(str(folder / file), int(count)) for file, count, _ in values["files"][split]] for split in SPLITS]
        train, test = (PreparedRecords(*zip(*files, strict=True)) for files in listed)
        made = Preparation(
            str(values["name"]),
            str(values["title"]),
            values["source"],
            int(values["side"]),
            values["quality"],
            tuple(values["classes"]),
            int(values.get("validation", 0)),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunError(
            f"{path} is damaged ({type(problem).__name__}: {problem}). Delete {folder} and prepare the pictures again."
        ) from problem
    title = f"{made.title}, prepared at {made.side}x{made.side}"
    pictures = PictureSet(made.name, title, made.classes, train, test, fingerprint([text.encode()]), made.validation)
    return PreparedSet(folder, made, pictures, train.files + test.files)


def requested_folder(options: Data) -> str | None:
    """Return the folder that --data.prepared names, None if it names no folder."""
    return None if options.prepared == NONE else options.prepared


def requested(folder: str) -> PreparedSet:
    """Return the prepared pictures that --data.prepared names. Raises UsageError if none exist, RunError if damaged."""
    found = complete(Path(folder).expanduser().absolute())
    if found is None:
        raise UsageError(
            f"--data.prepared={folder}: no prepared pictures in this folder. Run the same command with --mode=prepare, or "
            "omit the option."
        )
    return found


def finished(folder: Path, wanted: Preparation) -> PreparedSet | None:
    """Return the prepared pictures of a folder if they are `wanted` and no file is missing.

    Otherwise prepared.json is deleted, and the journal tells which files remain to be written. Raises UsageError if the
    folder holds a complete preparation of something else.
    """
    try:
        found = complete(folder)
    except RunError:
        found = None
    if found is not None and found.preparation != wanted:
        other = found.preparation
        raise UsageError(
            f"{folder} holds another preparation: {other.title} at side {other.side}. Choose another --data.prepared."
        )
    if found is not None and not found.missing():
        return found
    (folder / MANIFEST).unlink(missing_ok=True)
    return None


def read(found: PreparedSet, options: Data) -> DataSet:
    """Return the data set of prepared pictures.

    Raises RunError if a file is missing, UsageError if the pictures have another side or are not ImageNet's but should be.
    """
    folder, made, missing = found.folder, found.preparation, found.missing()
    if made.side != options.side:
        raise UsageError(
            f"{folder} holds pictures of side {made.side}, but --data.side={options.side}. Give the same side, or prepare the "
            "pictures in another folder."
        )
    if options.name == "imagenet2012" != made.name:
        raise UsageError(
            f"{folder} holds {made.title}, not ImageNet. Choose another --data.prepared, or --data.name=folder."
        )
    if missing:
        raise RunError(
            f"{missing[0]} is missing, but {folder / MANIFEST} lists it. Write it again with --mode=prepare."
        )
    return found.pictures.decoded(options.side)
