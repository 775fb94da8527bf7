"""A separate program, run as a subprocess: the only module that imports TensorFlow.

    python -m alexnet_jax.data.tfds_prepare download DATA_FOLDER         download CIFAR-10 if necessary and prepare it
    python -m alexnet_jax.data.tfds_prepare convert VERSION_FOLDER NEW   rewrite a tfrecord set as array_record in NEW

The exit status is 0 after success, 1 after a failure, 2 for wrong arguments and 3 if a package is missing. The reason is
one message on stdout; progress goes to stderr. The module imports nothing from alexnet_jax, so that it starts fast.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

NAME = "cifar10"
MISSING_PACKAGE = 3


class PrepareError(Exception):
    """A failure that ends the program, with the arguments (exit status, message)."""


def download(data_folder: Path) -> None:
    """Prepare CIFAR-10 as array_record in `data_folder`, from an archive placed there or downloaded.

    Raises PrepareError if the checksum of the archive is not the expected one.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    builder = tfds.builder(NAME, data_dir=data_folder)
    # Prepared sets in Google's bucket are tfrecord, and the search for them needs a connection.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except NonMatchingChecksumError as error:
        details = str(error).partition("\nTo debug")[0]
        message = (
            f"The archive is not the one that tensorflow-datasets expects. Delete it and download it again. {details}"
        )
        raise PrepareError(1, message) from error


def convert(source: Path, target: Path) -> None:
    """Copy the records of the version folder `source` byte for byte to array_record files in `target`.

    `target` appears only when it is complete. Raises PrepareError naming a record file that is damaged or whose number
    of examples differs from dataset_info.json.
    """
    import tensorflow_datasets as tfds

    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        info = tfds.builder_from_directory(source).info
        for split in info.splits.values():
            for index, length in enumerate(split.shard_lengths):
                _convert_shard(split.filename_template, index, length, split.num_shards, unfinished)
        _copy_description(source, unfinished)
        unfinished.chmod(0o755)
        if not target.exists():
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert_shard(template, index: int, length: int, shards: int, folder: Path) -> None:
    """Convert one record file of `length` examples, writing to `folder`."""
    import tensorflow as tf
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    source = template.sharded_filepath(shard_index=index, num_shards=shards)
    target = template.replace(data_dir=folder, filetype_suffix="array_record")
    target = target.sharded_filepath(shard_index=index, num_shards=shards)
    try:
        records = [record.numpy() for record in tf.data.TFRecordDataset(os.fspath(source))]
    except tf.errors.OpError as error:
        raise PrepareError(1, f"The record file {source} is damaged or missing: {error.message}") from error
    if len(records) != length:
        message = f"The record file {source} has {len(records)} examples, but dataset_info.json lists {length}."
        raise PrepareError(1, message)
    ArrayRecordFileAdapter.write_examples(target, enumerate(records))  # pyright: ignore[reportArgumentType]


def _copy_description(source: Path, target: Path) -> None:
    """Copy features.json, the class names and dataset_info.json, which gets the new format."""
    for file in [*source.glob("*.json"), *source.glob("*.txt")]:
        (target / file.name).write_bytes(file.read_bytes())
    description = target / "dataset_info.json"
    values = json.loads(description.read_text())
    values.pop("alternativeFileFormats", None)
    description.write_text(json.dumps(values | {"fileFormat": "array_record"}, indent=2))


def _import_tensorflow() -> None:
    """Import TensorFlow without its messages and without GPU memory. Raises PrepareError if it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import importlib_resources  # noqa: F401 - imported by tensorflow-datasets' code for cifar10
        import tensorflow as tf
    except ImportError as error:
        message = (
            f"Preparing CIFAR-10 needs TensorFlow once ({error}); training does not need it. "
            "Install it with: pip install tensorflow-cpu importlib_resources"
        )
        raise PrepareError(MISSING_PACKAGE, message) from error
    tf.config.set_visible_devices([], "GPU")


def main(arguments: list[str]) -> int:
    """Run the command in `arguments` and return the exit status."""
    tasks = {("download", 1): download, ("convert", 2): convert}
    task = tasks.get((arguments[0] if arguments else "", len(arguments) - 1))
    if task is None:
        print(__doc__)
        return 2
    answer, sys.stdout = sys.stdout, sys.stderr
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        _import_tensorflow()
        if not sys.stderr.isatty():
            import tensorflow_datasets as tfds

            tfds.disable_progress_bar()
        task(*(Path(folder).absolute() for folder in arguments[1:]))
    except PrepareError as error:
        status, message = error.args
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - tfds raises many types; the parent prints one message
        status, message = 1, f"{type(error).__name__}: {error}"
    else:
        return 0
    print(message, file=answer, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
