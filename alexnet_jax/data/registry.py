"""The data sets by name: the classes of each, its number of images, and the module that loads it.

Modules are named, not imported, so that the classes are known without the libraries that read pictures.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexnet_jax.experiment import Data

if TYPE_CHECKING:
    from alexnet_jax.data.dataset import DataSet


@dataclass(frozen=True)
class ImageCounts:
    """Number of images in each split of a data set."""

    train: int
    """Including the images that a training holds out for validation."""
    test: int
    validation: int = 0
    """Number of the training images that are a validation split of the data set itself; 0: it has none."""


@dataclass(frozen=True)
class Entry:
    """A data set that `--data.name` can name."""

    module: str
    """Module of alexnet_jax.data with a function `load(options: Data, log) -> DataSet`."""
    classes: tuple[str, ...] | None = None
    """Names of the classes. None: the module has a function `class_names(options: Data)` that returns them."""
    images: ImageCounts | None = None
    """Number of images. None: known after loading only."""

    def function(self, name: str) -> Callable[..., Any]:
        """Import the module and return a function of it."""
        return getattr(importlib.import_module(f"alexnet_jax.data.{self.module}"), name)


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_CLASSES = tuple(map(str, range(1000)))
"""Numbers, since the names are known only where ImageNet is prepared."""

DATA_SETS = {
    "cifar10": Entry("cifar10", CIFAR10_CLASSES, ImageCounts(50_000, 10_000)),
    "digits": Entry("digits", tuple("0123456789"), ImageCounts(1_437, 360)),
    "imagenet2012": Entry("picture_sets", IMAGENET_CLASSES, ImageCounts(1_281_167, 50_000)),
    "folder": Entry("picture_sets"),
}
"""{value of --data.name: data set}"""


def load(options: Data, *, log: Callable[[str], None] | None = print) -> "DataSet":
    """Load the data set that `options` names. Work that takes long is reported by a line of `log`, if it is not None.

    Data in memory has been checked; pictures on disk are checked when they are read.

    Raises:
      DataNotFoundError: The data is neither on this machine nor can it be downloaded.
      UsageError: A folder that an option names does not exist or has the wrong structure.
      RunError: The data is damaged, or a label is out of range.
    """
    return DATA_SETS[options.name].function("load")(options, log)


def class_names(options: Data) -> tuple[str, ...]:
    """Return the names of the classes without reading an image. Raises UsageError if a folder of classes does not exist."""
    entry = DATA_SETS[options.name]
    return entry.function("class_names")(options) if entry.classes is None else entry.classes


def class_count(options: Data) -> int:
    """Return the number of classes. Raises UsageError if a folder of classes does not exist."""
    return len(class_names(options))


def image_counts(options: Data) -> ImageCounts:
    """Return the number of images of each split. A data set of unknown size is loaded, with the errors of `load`."""
    known = DATA_SETS[options.name].images
    if known is None:
        data_set = load(options, log=None)
        known = ImageCounts(len(data_set.train), len(data_set.test), data_set.validation)
    return known
