"""CIFAR-10 through tensorflow-datasets: find it, have it prepared in a subprocess, check it, decode it.

TensorFlow is never imported here; tfds_prepare.py does that in a process of its own.
"""

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from alexnet_jax.data import tfds_prepare
from alexnet_jax.data.cache import cache_folder
from alexnet_jax.errors import DataNotFoundError, RunError, UsageError

NAME = tfds_prepare.NAME
SHAPE = (32, 32, 3)
SPLITS = ("train", "test")
ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
PROBE_SECONDS = 5.0
"""With the import of tensorflow-datasets (1 to 2 s) a machine without network gets its answer within ten seconds."""
PREPARE_SCRIPT = Path(tfds_prepare.__file__)


@dataclass(frozen=True)
class Prepared:
    """A prepared version folder whose description was read; its records were not, but for their sizes and ends."""

    folder: Path
    builder: Any
    """tfds.core.DatasetBuilder of `folder`."""
    version: str
    classes: tuple[str, ...]
    jpeg: bool
    """The images were encoded as JPEG; the originals are PNG."""
    counts: dict[str, int]
    """Examples of each split, as dataset_info.json has them."""
    fingerprint: str


def data_folder(data_dir: str | None) -> Path:
    """The tensorflow-datasets folder: `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises UsageError where a folder was named that does not exist, or that lies inside the data set.
    """
    for origin, value in (("--data.dir", data_dir), ("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR"))):
        if not value:
            continue
        folder = Path(value).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"{origin}={value}: expected a tensorflow-datasets folder, but there is no such folder.")
        if (folder / "dataset_info.json").exists() or (folder.name == NAME and not (folder / NAME).exists()):
            raise UsageError(f"{origin}={value}: expected the folder that contains {NAME}/, not {NAME} itself.")
        return folder
    return Path("~/tensorflow_datasets").expanduser()


def find(folder: Path, log: Callable[[str], None]) -> Prepared:
    """The prepared CIFAR-10 of the tensorflow-datasets folder `folder`, downloaded and prepared if need be.

    Raises DataNotFoundError where it is neither there nor downloadable, RunError where it is damaged.
    """
    version_folder = _version_folder(folder)
    if version_folder is None:
        try:
            _obtain(folder, log)
        except RunError:
            # Another process of the same training may have prepared it in the meantime.
            if _version_folder(folder) is None:
                raise
        version_folder = _version_folder(folder)
    if version_folder is None:
        raise RunError(f"CIFAR-10 was prepared, but tensorflow-datasets does not find it in {folder}.")
    return describe(version_folder)


def _version_folder(folder: Path) -> Path | None:
    """The folder of the version that tensorflow-datasets would read, None where nothing is prepared.

    Raises RunError for a half-written one, which tensorflow-datasets would neither read nor replace.
    """
    import tensorflow_datasets as tfds

    with _quiet(), _no_traceback(f"The description of CIFAR-10 in {folder / NAME} cannot be read"):
        builder = tfds.builder(NAME, data_dir=folder)
        prepared, version_folder = builder.is_prepared(), Path(builder.data_path)
    # is_prepared also takes sets without features.json, which versions before 4 wrote and none can read.
    if prepared and (version_folder / "features.json").exists():
        return version_folder
    if version_folder.exists():
        raise RunError(
            f"{version_folder} is only half written: dataset_info.json or features.json is missing. "
            "Delete that folder, and CIFAR-10 is prepared anew."
        )
    return None


def describe(version_folder: Path) -> Prepared:
    """Read the description in `version_folder` and check it against what lies beside it.

    Raises RunError for a damaged description, a missing record file, other images than uint8 32x32x3.
    """
    import tensorflow_datasets as tfds

    with _quiet(), _no_traceback(f"The description of CIFAR-10 in {version_folder} cannot be read"):
        builder = tfds.builder_from_directory(version_folder)
        info, features = builder.info, cast("dict[str, Any]", builder.info.features)
        image, classes = features["image"], tuple(features["label"].names)
        formats = {available.value for available in info.available_file_formats()}
        if "array_record" in formats and info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            info.set_file_format("array_record", override=True, override_if_initialized=True)
        splits = cast("dict[str, Any]", info.splits)
        counts = {split: sum(splits[split].shard_lengths) for split in SPLITS}
        shape, dtype, encoding = tuple(image.shape), np.dtype(image.np_dtype), image.to_json_content().encoding_format
    if (shape, dtype) != (SHAPE, np.uint8):
        raise RunError(f"{version_folder / 'features.json'} says images are {dtype} {shape}, expected uint8 {SHAPE}.")
    for split, count in counts.items():
        if count == 0:
            raise RunError(f"{version_folder / 'dataset_info.json'} says that the split {split!r} is empty.")
    return Prepared(
        folder=version_folder,
        builder=builder,
        version=str(info.version),
        classes=classes,
        jpeg=encoding == "jpeg",
        counts=counts,
        fingerprint=_fingerprint(version_folder, _record_files(info)),
    )


def _record_files(info: Any) -> list[Path]:
    """The record files of all splits, as dataset_info.json lists them. Raises RunError for one that is missing."""
    files = [Path(path) for split in SPLITS for path in info.splits[split].filepaths]
    for file in files:
        if not file.is_file():
            raise RunError(
                f"The record file {file} is missing, but dataset_info.json lists it. "
                f"Put it back, or delete {file.parent} to prepare CIFAR-10 anew."
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


def decode(prepared: Prepared, log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Every example, decoded: {'train_images': uint8 [n, 32, 32, 3], 'train_labels': int64 [n], and so for test}.

    Raises RunError naming file, split and index for whatever is damaged. Labels are not checked against the classes.
    """
    readable = _as_array_record(prepared, log)
    arrays = {}
    for split in SPLITS:
        _check_counts(readable, split)
        with _quiet(), _no_traceback(f"The split {split!r} of {readable.folder} cannot be opened"):
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
        with _quiet():
            return source.__getitems__(indices)
    except Exception:  # noqa: BLE001 - one of a thousand is damaged; read one by one, it raises again and is named
        examples = []
        for index in indices:
            with _quiet(), _no_traceback(f"Example {index} of the split {split!r} in {folder} cannot be read"):
                examples.append(source[index])
        return examples


def _check_counts(prepared: Prepared, split: str) -> None:
    """Raise RunError for a record file that is damaged or whose number of examples is not dataset_info.json's."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = prepared.builder.info.splits[split]
    for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
        with _no_traceback(f"The record file {path} of the split {split!r} is damaged or truncated"):
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
    file_format = prepared.builder.info.file_format.value
    if file_format == "array_record":
        return prepared
    if file_format != "tfrecord":
        raise RunError(f"{prepared.folder} is in the format {file_format}; expected array_record or tfrecord.")
    name = f"{prepared.version}-array_record-{prepared.fingerprint}"
    beside, cached = prepared.folder.with_name(name), cache_folder() / f"{NAME}-{name}"
    target = next((place for place in (beside, cached) if place.is_dir()), None)
    if target is None:
        target = beside if os.access(beside.parent, os.W_OK) else cached
        log(f"CIFAR-10 in {prepared.folder} is tfrecord; it is converted once to array_record in {target}.")
        _run_prepare_script("convert", prepared.folder, target)
    return describe(target)


def _obtain(folder: Path, log: Callable[[str], None]) -> None:
    """Download (or find the archive placed by hand) and prepare CIFAR-10 in `folder`, in a subprocess.

    Raises DataNotFoundError within ten seconds where there is neither network nor archive, or no TensorFlow.
    """
    manual = folder / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    if manual.exists():
        log(f"CIFAR-10 is prepared from {manual} in {folder}.")
    else:
        # tensorflow-datasets itself tries for 205 s before it says that there is no network.
        trouble = unreachable(ARCHIVE, PROBE_SECONDS)
        if trouble is not None:
            raise DataNotFoundError(_not_found(folder, manual, trouble))
        log(f"CIFAR-10 is downloaded (162 MiB) from {ARCHIVE} and prepared in {folder}.")
    _run_prepare_script("download", folder)


def _not_found(folder: Path, manual: Path, trouble: str) -> str:
    """The message of a first start without data: what was tried, and every way out."""
    elsewhere = (
        f"python -m {tfds_prepare.__name__} download FOLDER (pip install tensorflow-datasets array_record "
        "tensorflow-cpu importlib_resources)"
    )
    return "\n".join(
        (
            f"CIFAR-10 is neither prepared in {folder} nor downloadable ({trouble}). Any of these helps:",
            f"- prepared elsewhere: --data.dir=FOLDER or TFDS_DATA_DIR=FOLDER, where FOLDER contains {NAME}/",
            f"- the archive {ARCHIVE}, put at {manual} (then also: pip install tensorflow-cpu importlib_resources)",
            f"- once on a machine with network: {elsewhere}, then copy FOLDER/{NAME} to {folder / NAME}",
            "- other data, installed already: --data.name=digits",
        )
    )


def unreachable(url: str, seconds: float) -> str | None:
    """None if `url` answers within `seconds`, else the reason why it cannot be downloaded.

    Asks as tensorflow-datasets would (requests: the same proxies and certificates), but in a thread, because a name
    server that does not answer holds the caller for longer than any timeout.
    """
    host, outcome = urlsplit(url).hostname, []

    def ask() -> None:
        import requests

        try:
            with requests.get(url, stream=True, timeout=seconds) as response:
                outcome.append(None if response.ok else f"{host} answers {response.status_code} {response.reason}")
        except requests.exceptions.Timeout:
            outcome.append(f"{host} does not answer within {seconds:g} s")
        except (requests.exceptions.RequestException, OSError) as error:
            outcome.append(f"no connection to {host}: {type(error).__name__}")

    thread = threading.Thread(target=ask, daemon=True, name="network probe")
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{host} does not answer within {seconds:g} s"


def _run_prepare_script(*arguments: Any) -> None:
    """Run tfds_prepare.py; its progress is seen on stderr. Raises DataNotFoundError or RunError with its message."""
    # -P: the script's own folder holds modules whose names must not shadow anyone's.
    command = [sys.executable, "-P", os.fspath(PREPARE_SCRIPT), *map(os.fspath, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    message = done.stdout.strip() or "it gave no reason; see the lines above"
    if done.returncode == tfds_prepare.MISSING_PACKAGE:
        raise DataNotFoundError(message)
    if done.returncode != 0:
        raise RunError(f"Preparing CIFAR-10 failed (exit status {done.returncode}): {message}")


@contextlib.contextmanager
def _no_traceback(what: str) -> Iterator[None]:
    """Turn any exception of a library into a RunError that begins with `what`."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # tfds, array_record and the decoders raise nearly everything
        raise RunError(f"{what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back warnings of tensorflow-datasets (no OpenCV, no dataset_info.json yet) that our own messages replace."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
