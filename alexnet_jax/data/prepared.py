"""Prepared pictures: squares stored once as JPEG, so that an epoch decodes 256x256 pixels instead of whole photographs.

The original program did the same. A folder holds array_record files of one part of a split each (a label, then the JPEG),
and prepared.json, written last, with counts and checksums. `prepare.py` makes it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data import source
from alexnet_jax.data.images import QUALITY
from alexnet_jax.data.records import PreparedRecords
from alexnet_jax.data.source import Source
from alexnet_jax.data.split import DataSet, Stream
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.files import cache_folder

MANIFEST = "prepared.json"
SPLITS = ("train", "test")
NONE = "none"
"""As --data.prepared: the pictures as they are, although prepared ones may be there."""


@dataclass(frozen=True)
class Manifest:
    """prepared.json: what a complete preparation says of itself."""

    folder: Path
    values: dict[str, Any]
    records: tuple[PreparedRecords, ...]
    """Of the splits, in the order of SPLITS."""
    classes: tuple[str, ...]
    side: int
    title: str
    fingerprint: str

    def missing(self) -> list[str]:
        """Files that it lists and that are not there."""
        return [file for records in self.records for file in records.files if not Path(file).is_file()]


def manifest(folder: Path) -> Manifest | None:
    """Of a folder of prepared pictures, None where nothing was completed. Raises RunError for a damaged one."""
    path = folder / MANIFEST
    try:
        text = path.read_text()
        values = json.loads(text)
        files = [[(str(folder / file), int(count)) for file, count, _ in values["files"][split]] for split in SPLITS]
        records = tuple(PreparedRecords(*zip(*listed, strict=True)) for listed in files)
        classes, side, title = tuple(values["classes"]), int(values["side"]), str(values["title"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunError(
            f"{path} is damaged ({type(problem).__name__}: {problem}). Delete {folder} and prepare anew."
        ) from problem
    return Manifest(folder, values, records, classes, side, title, hashlib.sha256(text.encode()).hexdigest()[:16])


def load(data: Data) -> DataSet:
    """Prepared pictures where there are some, else those of the source, decoded each time.

    Raises UsageError where --data.prepared names a folder without them, RunError where they are damaged, and as `source.find`.
    """
    folder = given(data)
    if folder is not None:  # the source need not be there any more
        return read(_manifest_given(folder), data)
    found = source.find(data)
    there = None if data.prepared == NONE else manifest(default_folder(data, found))
    return found.data_set(data.side) if there is None else read(there, data)


def given(data: Data) -> str | None:
    """The folder that --data.prepared names."""
    return None if data.prepared == NONE else data.prepared


def class_names(prepared: str) -> tuple[str, ...]:
    """Return the classes of the pictures in --data.prepared. Raise UsageError if there are none, RunError if damaged."""
    return _manifest_given(prepared).classes


def _manifest_given(prepared: str) -> Manifest:
    """What --data.prepared names. Raises UsageError when nothing was prepared there."""
    there = manifest(Path(prepared).expanduser().absolute())
    if there is None:
        raise UsageError(
            f"--data.prepared={prepared}: no prepared pictures there. Make them by the same command with "
            "--mode=prepare, or leave the option out."
        )
    return there


def default_folder(data: Data, found: Source) -> Path:
    """Where --mode=prepare writes to unless --data.prepared says another place."""
    return cache_folder() / "prepared" / f"{found.name}-{data.side}-{found.fingerprint}"


def describe(data: Data, found: Source) -> dict[str, Any]:
    """What identifies a preparation: another one must not go on in its folder."""
    return {
        "name": found.name,
        "title": found.title,
        "source": found.fingerprint,
        "side": data.side,
        "quality": QUALITY,
        "classes": list(found.classes),
    }


def whole(folder: Path, identity: dict[str, Any]) -> Manifest | None:
    """The manifest of this very preparation where it is complete; a damaged one, or one that lacks files, is dropped.

    Raises UsageError where another one is complete there.
    """
    try:
        there = manifest(folder)
    except RunError:
        there = None
    if there is not None and {key: there.values.get(key) for key in identity} != identity:
        raise UsageError(
            f"{folder} holds another preparation: {there.title} at side {there.side}. Choose another --data.prepared."
        )
    if there is not None and not there.missing():
        return there
    (folder / MANIFEST).unlink(missing_ok=True)  # the journal says which files are still to be made
    return None


def read(there: Manifest, data: Data) -> DataSet:
    """The prepared set. Raises RunError for a missing file, UsageError for another side or another set than ImageNet."""
    folder, side, title, missing = there.folder, there.side, there.title, there.missing()
    if side != data.side:
        raise UsageError(
            f"{folder} holds pictures of side {side}, but --data.side={data.side}. Give the same, or prepare others."
        )
    if data.name == "imagenet2012" != there.values["name"]:
        raise UsageError(
            f"{folder} holds {title}, not ImageNet. Choose another --data.prepared, or --data.name=folder."
        )
    if missing:
        listing = folder / MANIFEST
        raise RunError(
            f"{missing[0]} is missing, but {listing} lists it. The command with --mode=prepare makes it again."
        )
    streams = [
        Stream(split, side, len(there.classes), np.arange(len(split)), there.fingerprint) for split in there.records
    ]
    about = f"{title}, prepared at {side}x{side}"
    return DataSet(there.values["name"], about, there.classes, *streams, fingerprint=there.fingerprint)
