"""How many classes a data set has and what they are called, without reading a picture or importing what reads them."""

from alexnet_jax.experiment import CLASSES, Data

NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "digits": tuple("0123456789"),
}
"""{data set: names of its classes}, as `sources.load` returns them."""


def class_count(data: Data) -> int:
    """Return the number of classes. Raise UsageError if a folder of classes is missing."""
    return CLASSES[data.name] if data.name in CLASSES else len(_folder_names(data))


def class_names(data: Data) -> tuple[str, ...]:
    """Return the names of the classes, for ImageNet their numbers. Raise UsageError if a folder of classes is missing."""
    if data.name == "folder":
        return _folder_names(data)
    return NAMES.get(data.name) or tuple(map(str, range(CLASSES[data.name])))


def _folder_names(data: Data) -> tuple[str, ...]:
    from alexnet_jax.data import prepared, source

    folder = prepared.given(data)
    if folder is not None and data.dir is None:  # the source may be gone
        return prepared.class_names(folder)
    return tuple(source.class_names(data))
