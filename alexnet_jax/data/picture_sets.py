"""Data sets that are too large for memory: ImageNet, and folders of classes; prepared pictures are preferred."""

from collections.abc import Callable
from pathlib import Path

from alexnet_jax.data import class_folders, prepared_sets, tfds_sets
from alexnet_jax.data.dataset import DataSet, PictureSet
from alexnet_jax.data.tfds_sets import IMAGENET
from alexnet_jax.errors import DataNotFoundError
from alexnet_jax.experiment import Data


def load(options: Data, log: Callable[[str], None] | None = print) -> DataSet:
    """Return the prepared pictures if they exist, else the original ones, which are decoded from full size in every epoch.

    Raises UsageError if --data.prepared names a folder without prepared pictures, RunError if they are damaged, and the
    errors of `find`.
    """
    folder = prepared_sets.requested_folder(options)
    if folder is not None:  # the original pictures need not exist any more
        return prepared_sets.read(prepared_sets.requested(folder), options)
    originals = find(options)
    for sentence in originals.notes() if log else ():
        log(sentence)
    prepared = None
    if options.prepared != prepared_sets.NONE:
        prepared = prepared_sets.complete(prepared_sets.default_folder(options, originals))
    return originals.decoded(options.side) if prepared is None else prepared_sets.read(prepared, options)


def class_names(options: Data) -> tuple[str, ...]:
    """Return the names of the classes without reading a picture. Raises UsageError or RunError as `load` does."""
    folder = prepared_sets.requested_folder(options)
    if folder is not None and options.dir is None:  # the original pictures need not exist any more
        return prepared_sets.requested(folder).pictures.classes
    return tuple(class_folders.class_names(options))


def find(options: Data) -> PictureSet:
    """Return the original pictures.

    Raises:
      DataNotFoundError: ImageNet is not prepared; the message lists every way to obtain it.
      UsageError: The folder of classes does not exist or lacks pictures.
      RunError: The data set is damaged.
    """
    if options.name == "folder":
        return class_folders.find(options)
    folder = tfds_sets.data_folder(IMAGENET, options.dir)
    found = tfds_sets.version_folder(IMAGENET, folder)
    if found is None:
        raise DataNotFoundError(_imagenet_not_found(folder))
    return tfds_sets.read_set(IMAGENET, found).pictures()


def _imagenet_not_found(folder: Path) -> str:
    manual = folder / "downloads" / "manual"
    return "\n".join(
        (
            f"ImageNet is not prepared in {folder}, and downloading it needs an account. Do one of the following:",
            f"- prepared elsewhere: --data.dir=FOLDER or TFDS_DATA_DIR=FOLDER, where FOLDER contains {IMAGENET.name}/",
            "- download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org to "
            f"{manual}, then run: tfds build {IMAGENET.name} --data_dir={folder} --file_format=array_record",
            "- pictures of your own, in a folder for each class: --data.name=folder --data.dir=FOLDER",
            "- the output of --mode=prepare on another machine: --data.prepared=FOLDER",
            "- a smaller network and data set: --exp=alexnet_cifar",
        )
    )
