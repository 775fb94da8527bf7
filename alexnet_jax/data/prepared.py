"""Prepared pictures: squares stored once as JPEG, so that an epoch decodes 256x256 pixels instead of whole photographs.

The original program did the same. A folder holds array_record files of one part of a split each (a label, then the JPEG),
and prepared.json, written last, with counts and checksums. `prepare.py` makes it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data import source
from alexnet_jax.data.cache import cache_folder
from alexnet_jax.data.images import QUALITY
from alexnet_jax.data.records import PreparedRecords
from alexnet_jax.data.source import Source
from alexnet_jax.data.split import DataSet, Stream
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data

MANIFEST = "prepared.json"
SPLITS = ("train", "test")


def load(data: Data) -> DataSet:
    """Prepared pictures where there are some, else those of the source, decoded each time.

    Raises UsageError where --data.prepared names a folder without them, RunError where they are damaged, and as `source.find`.
    """
    if data.prepared is not None:  # the source need not be there any more
        folder = Path(data.prepared).expanduser().absolute()
        if not (folder / MANIFEST).exists():
            raise UsageError(
                f"--data.prepared={data.prepared}: no prepared pictures there. Make them by the same command with "
                "--mode=prepare, or leave the option out."
            )
        return read(folder, data)
    found = source.find(data)
    folder = default_folder(data, found)
    return read(folder, data) if (folder / MANIFEST).exists() else found.data_set(data.side)


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


def is_whole(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether this very preparation is complete in the folder; a manifest whose files are not all there is dropped.

    Raises UsageError where another one is complete there.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text())
        files = [folder / file for split in SPLITS for file, *_ in values["files"][split]]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        files = [folder / "nothing"]
    else:
        if {key: values.get(key) for key in identity} != identity:
            raise UsageError(
                f"{folder} holds another preparation: {values.get('title')} at side {values.get('side')}. "
                "Choose another --data.prepared."
            )
    if all(file.is_file() for file in files):
        return True
    path.unlink()  # the journal says which files are still to be made
    return False


def class_count(folder: str) -> int:
    """Of the prepared pictures in --data.prepared. Raises UsageError when there are none, RunError when damaged."""
    path = Path(folder).expanduser() / MANIFEST
    try:
        return len(json.loads(path.read_text())["classes"])
    except FileNotFoundError as problem:
        raise UsageError(
            f"--data.prepared={folder}: no prepared pictures there. Make them with --mode=prepare."
        ) from problem
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunError(f"{path} is damaged ({type(problem).__name__}: {problem}). Prepare anew.") from problem


def read(folder: Path, data: Data) -> DataSet:
    """The prepared set of a folder. Raises RunError for a missing file or a damaged manifest, UsageError for another side."""
    path = folder / MANIFEST
    try:
        text = path.read_text()
        values = json.loads(text)
        files = {
            split: [(str(folder / file), int(count)) for file, count, _ in values["files"][split]] for split in SPLITS
        }
        classes, side, title = tuple(values["classes"]), int(values["side"]), str(values["title"])
        records = [PreparedRecords(*zip(*files[split], strict=True)) for split in SPLITS]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunError(
            f"{path} is damaged ({type(problem).__name__}: {problem}). Delete {folder} and prepare anew."
        ) from problem
    if side != data.side:
        raise UsageError(
            f"{folder} holds pictures of side {side}, but --data.side={data.side}. Give the same, or prepare others."
        )
    if data.name == "imagenet2012" != values["name"]:
        raise UsageError(
            f"{folder} holds {title}, not ImageNet. Choose another --data.prepared, or --data.name=folder."
        )
    missing = [file for split in SPLITS for file, _ in files[split] if not Path(file).is_file()]
    if missing:
        raise RunError(f"{missing[0]} is missing, but {path} lists it. The command with --mode=prepare makes it again.")
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    streams = [Stream(split, side, len(classes), np.arange(len(split)), fingerprint) for split in records]
    return DataSet(values["name"], f"{title}, prepared at {side}x{side}", classes, *streams, fingerprint=fingerprint)
