"""CIFAR-10 through tensorflow-datasets: find it, have it prepared where it is not, decode it whole."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import cache
from alexnet_jax.data.split import DataSet, Split, check_labels
from alexnet_jax.data.tfds_download import obtain, run_prepare_script
from alexnet_jax.data.tfds_sets import CIFAR10, Prepared, data_folder, describe, no_traceback, quiet, version_folder
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Data
from alexnet_jax.files import cache_folder

SHAPE = (32, 32, 3)


def load(data: Data, log: Callable[[str], None]) -> DataSet:
    """CIFAR-10 from the cache of decoded images, else decoded from its records and cached. Raises as `find` and `decode` do."""
    prepared = find(data_folder(CIFAR10, data.dir), log)
    path = cache_folder() / f"{data.name}-{prepared.fingerprint}.npz"
    expected = {}
    for split, count in prepared.counts.items():
        expected |= {f"{split}_images": ((count, *SHAPE), "uint8"), f"{split}_labels": ((count,), "int32")}
    arrays = cache.read(path, expected, log)
    if arrays is None:
        log(f"CIFAR-10 is decoded from {prepared.folder}, 10 to 20 s; later starts read {path}.")
        arrays = decode(prepared, log)
        for split in prepared.counts:
            labels = arrays[f"{split}_labels"]
            check_labels(labels, len(prepared.classes), f"the split {split!r} in {prepared.folder}")
            arrays[f"{split}_labels"] = labels.astype(np.int32)
        cache.write(path, arrays, log)
    for split in prepared.counts:
        check_labels(arrays[f"{split}_labels"], len(prepared.classes), f"the split {split!r} in {path}")
    jpeg = ", JPEG re-encoded" if prepared.jpeg else ""
    return DataSet(
        name=data.name,
        title=f"CIFAR-10 (tfds {data.name} {prepared.version}{jpeg})",
        classes=prepared.classes,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        fingerprint=prepared.fingerprint,
    )


def find(folder: Path, log: Callable[[str], None]) -> Prepared:
    """The prepared CIFAR-10 of the tensorflow-datasets folder `folder`, downloaded and prepared if need be.

    Raises DataNotFoundError where it is neither there nor downloadable, RunError where it is damaged.
    """
    found = version_folder(CIFAR10, folder)
    if found is None:
        try:
            obtain(folder, log)
        except RunError:
            # Another process of the same training may have prepared it in the meantime.
            if version_folder(CIFAR10, folder) is None:
                raise
        found = version_folder(CIFAR10, folder)
    if found is None:
        raise RunError(f"CIFAR-10 was prepared, but tensorflow-datasets does not find it in {folder}.")
    return describe(CIFAR10, found)


def decode(prepared: Prepared, log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Every example, decoded: {'train_images': uint8 [n, 32, 32, 3], 'train_labels': int64 [n], and so for test}.

    Raises RunError naming file, split and index for whatever is damaged. Labels are not checked against the classes.
    """
    readable = _as_array_record(prepared, log)
    arrays = {}
    for split in CIFAR10.splits:
        _check_counts(readable, split)
        with quiet(), no_traceback(f"The split {split!r} of {readable.folder} cannot be opened"):
            source = readable.builder.as_data_source(split)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = _decode_split(source, split, readable)
    return arrays


def _decode_split(source: Any, split: str, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [n, 32, 32, 3], labels int64 [n]) of a tfds data source."""
    count = prepared.counts[split]
    images, labels = np.empty((count, *SHAPE), np.uint8), np.empty(count, np.int64)
    with tqdm(total=count, desc=f"decode {split}", unit=" images", disable=None, leave=False) as bar:
        for start in range(0, count, 1000):
            indices = range(start, min(start + 1000, count))
            for index, example in zip(indices, _examples(source, indices, split, prepared.folder), strict=True):
                image = np.asarray(example["image"])
                if image.shape != SHAPE or image.dtype != np.uint8:
                    where = f"Image {index} of the split {split!r} in {prepared.folder}"
                    raise RunError(f"{where} is {image.dtype} {image.shape}, expected uint8 {SHAPE}.")
                images[index], labels[index] = image, example["label"]
            bar.update(len(indices))
    return images, labels


def _examples(source: Any, indices: range, split: str, folder: Path) -> list[dict[str, Any]]:
    """The decoded examples at `indices`. Raises RunError naming the first one that cannot be read or decoded."""
    try:
        with quiet():
            return source.__getitems__(indices)
    except Exception:  # noqa: BLE001 - one of a thousand is damaged; read one by one, it raises again and is named
        examples = []
        for index in indices:
            with quiet(), no_traceback(f"Example {index} of the split {split!r} in {folder} cannot be read"):
                examples.append(source[index])
        return examples


def _check_counts(prepared: Prepared, split: str) -> None:
    """Raise RunError for a record file that is damaged or whose number of examples is not dataset_info.json's."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = prepared.builder.info.splits[split]
    for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
        with no_traceback(f"The record file {path} of the split {split!r} is damaged or truncated"):
            reader = ArrayRecordReader(os.fspath(path))
            found = reader.num_records()
            if found == 0 < expected:
                reader.read([0])  # a damaged file has 0 records, and reading says why
            reader.close()
        if found != expected:
            raise RunError(
                f"The record file {path} of the split {split!r} has {found:,} examples, "
                f"but dataset_info.json says {expected:,}. Delete {prepared.folder} to prepare CIFAR-10 anew."
            )


def _as_array_record(prepared: Prepared, log: Callable[[str], None]) -> Prepared:
    """`prepared` itself, or its copy in array_record, made once, beside it or else in the cache folder.

    Only array_record can be read without TensorFlow. Raises RunError where the conversion fails.
    """
    if prepared.readable_format() == "array_record":
        return prepared
    name = f"{prepared.version}-array_record-{prepared.fingerprint}"
    beside, cached = prepared.folder.with_name(name), cache_folder() / f"{CIFAR10.name}-{name}"
    target = next((place for place in (beside, cached) if place.is_dir()), None)
    if target is None:
        target = beside if os.access(beside.parent, os.W_OK) else cached
        log(f"CIFAR-10 in {prepared.folder} is tfrecord; it is converted once to array_record in {target}.")
        run_prepare_script("convert", prepared.folder, target)
    return describe(CIFAR10, target)
