"""CIFAR-10 through tensorflow-datasets: it is downloaded and prepared if necessary, decoded completely, and cached."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import array_cache
from alexnet_jax.data.array_cache import Expected
from alexnet_jax.data.dataset import DataSet, MemorySplit, check_labels
from alexnet_jax.data.tfds_download import obtain, run_prepare_script
from alexnet_jax.data.tfds_sets import CIFAR10, TfdsSet, data_folder, no_traceback, quiet, read_set, version_folder
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Data
from alexnet_jax.files import cache_folder

SHAPE = (32, 32, 3)


def load(options: Data, log: Callable[[str], None] = print) -> DataSet:
    """Return CIFAR-10 from the cache of decoded images, or decode and cache it. Raises the errors of `find` and `decode`."""
    found = find(data_folder(CIFAR10, options.dir), log)
    path = cache_folder() / f"{options.name}-{found.fingerprint}.npz"
    expected = {}
    for split, count in found.counts.items():
        expected[f"{split}_images"] = Expected((count, *SHAPE), "uint8")
        expected[f"{split}_labels"] = Expected((count,), "int32")
    arrays = array_cache.read(path, expected, log)
    if arrays is None:
        log(f"CIFAR-10 is decoded from {found.folder}, which takes 10 to 20 s; later starts read {path}.")
        arrays = decode(found, log)
        for split in found.counts:
            labels = arrays[f"{split}_labels"]
            check_labels(labels, len(found.classes), f"the split {split!r} in {found.folder}")
            arrays[f"{split}_labels"] = labels.astype(np.int32)
        array_cache.write(path, arrays, log)
    for split in found.counts:
        check_labels(arrays[f"{split}_labels"], len(found.classes), f"the split {split!r} in {path}")
    jpeg = ", JPEG re-encoded" if found.jpeg else ""
    return DataSet(
        name=options.name,
        title=f"CIFAR-10 (tfds {options.name} {found.version}{jpeg})",
        classes=found.classes,
        train=MemorySplit(arrays["train_images"], arrays["train_labels"]),
        test=MemorySplit(arrays["test_images"], arrays["test_labels"]),
        fingerprint=found.fingerprint,
    )


def find(folder: Path, log: Callable[[str], None]) -> TfdsSet:
    """Return CIFAR-10 in a folder of tensorflow-datasets; download and prepare it there if it does not exist.

    Raises DataNotFoundError if it can be neither found nor downloaded, RunError if it is damaged.
    """
    version = version_folder(CIFAR10, folder)
    if version is None:
        try:
            obtain(folder, log)
        except RunError:
            # Another process of the same training may have prepared it in the meantime.
            if version_folder(CIFAR10, folder) is None:
                raise
        version = version_folder(CIFAR10, folder)
    if version is None:
        raise RunError(f"CIFAR-10 was prepared, but tensorflow-datasets does not find it in {folder}.")
    return read_set(CIFAR10, version)


def decode(found: TfdsSet, log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Decode every example: {'train_images': uint8 [n, 32, 32, 3], 'train_labels': int64 [n]}, and so for the test split.

    Raises RunError naming file, split and index of the first damaged example. Labels are not checked against the classes.
    """
    readable = _as_array_record(found, log)
    arrays = {}
    for split in CIFAR10.splits:
        _check_counts(readable, split)
        with quiet(), no_traceback(f"The split {split!r} of {readable.folder} cannot be opened"):
            records = readable.builder.as_data_source(split)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = _decode_split(records, split, readable)
    return arrays


def _decode_split(records: Any, split: str, found: TfdsSet) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 [n, 32, 32, 3], labels int64 [n]) of a data source of tensorflow-datasets."""
    count = found.counts[split]
    images, labels = np.empty((count, *SHAPE), np.uint8), np.empty(count, np.int64)
    with tqdm(total=count, desc=f"decode {split}", unit=" images", disable=None, leave=False) as bar:
        for start in range(0, count, 1000):
            indices = range(start, min(start + 1000, count))
            for index, example in zip(indices, examples(records, indices, split, found.folder), strict=True):
                image = np.asarray(example["image"])
                if image.shape != SHAPE or image.dtype != np.uint8:
                    where = f"Image {index} of the split {split!r} in {found.folder}"
                    raise RunError(f"{where} is {image.dtype} {image.shape}, expected uint8 {SHAPE}.")
                images[index], labels[index] = image, example["label"]
            bar.update(len(indices))
    return images, labels


def examples(records: Any, indices: range, split: str, folder: Path) -> list[dict[str, Any]]:
    """Return the decoded examples at `indices`. Raises RunError naming the first one that cannot be read or decoded."""
    try:
        with quiet():
            return records.__getitems__(indices)
    except Exception:  # noqa: BLE001 - one of a thousand is damaged; it raises again when they are read one by one
        found = []
        for index in indices:
            with quiet(), no_traceback(f"Example {index} of the split {split!r} in {folder} cannot be read"):
                found.append(records[index])
        return found


def _check_counts(found: TfdsSet, split: str) -> None:
    """Raise RunError for a record file that is damaged or whose number of examples is not that of dataset_info.json."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = found.builder.info.splits[split]
    for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
        with no_traceback(f"The record file {path} of the split {split!r} is damaged or truncated"):
            reader = ArrayRecordReader(os.fspath(path))
            number = reader.num_records()
            if number == 0 < expected:
                reader.read([0])  # a damaged file has 0 records; reading raises the reason
            reader.close()
        if number != expected:
            raise RunError(
                f"The record file {path} of the split {split!r} has {number:,} examples, "
                f"but dataset_info.json says {expected:,}. Delete {found.folder} to prepare CIFAR-10 again."
            )


def _as_array_record(found: TfdsSet, log: Callable[[str], None]) -> TfdsSet:
    """Return a set in array_record, the only format that is read without TensorFlow.

    A set in tfrecord is converted once, into a folder next to it, or into the cache folder if its folder cannot be written to.
    Raises RunError if the conversion fails.
    """
    if found.readable_format() == "array_record":
        return found
    name = f"{found.version}-array_record-{found.fingerprint}"
    neighbour, cached = found.folder.with_name(name), cache_folder() / f"{CIFAR10.name}-{name}"
    target = next((folder for folder in (neighbour, cached) if folder.is_dir()), None)
    if target is None:
        target = neighbour if os.access(neighbour.parent, os.W_OK) else cached
        log(f"CIFAR-10 in {found.folder} is in the format tfrecord; it is converted once to array_record in {target}.")
        run_prepare_script("convert", found.folder, target)
    return read_set(CIFAR10, target)
