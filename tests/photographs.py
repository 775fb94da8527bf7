"""A pytest plugin: pictures of several sizes in folders of classes, or in the layout of tfds' ImageNet."""

import io

import numpy as np
import pytest
import tfds_files
from PIL import Image

SIDE = 40
KINDS = ("cat", "dog", "eel")
TRAIN, TEST = 23, 9
OPTIONS = {
    "exp": "alexnet_imagenet_debug",
    "network.name": "alexnet_cifar",
    "data.name": "folder",
    "data.side": SIDE,
    "data.crop": 32,
    "data.validation": 5,
    "data.colour_epochs": 3,
    "data.fallback": "error",
    "optim.schedule": "plateau",
    "optim.patience": 1,
    "optim.learning_rate": 0.005,
    "train.batch": 4,
    "train.eval_batch": 4,
    "train.epochs": 5,
}
"""Options of a training on these pictures, to be added to running.NARROW."""


def photograph(number):
    """Return the JPEG bytes of a smooth picture whose size depends on `number`; every fifth picture is grey."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(20, 90, 2)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = rng.uniform(0.02, 0.2, (3, 2))
    pixels = np.stack([127 + 100 * np.sin(a * rows + b * columns) for a, b in waves], -1)
    picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
    file = io.BytesIO()
    (picture.convert("L") if number % 5 == 4 else picture).save(file, "JPEG", quality=92)
    return file.getvalue()


def write_folder(root, train=TRAIN, test=TEST):
    """Write root/train/<class>/<number>.jpg and root/val/..., with picture i in class i % 3."""
    for split, numbers in (("train", range(train)), ("val", range(100, 100 + test))):
        for number in numbers:
            folder = root / split / KINDS[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03d}.jpg").write_bytes(photograph(number))
    return root


def write_imagenet(root, file_format="array_record", train=TRAIN, test=TEST):
    """Write a version folder of imagenet2012 with three classes; picture i has label i % 3."""
    splits = [
        [tfds_files.example(photograph(i), i % 3) for i in numbers]
        for numbers in (range(train), range(100, 100 + test))
    ]
    return lay_out(root, *splits, file_format=file_format)


def lay_out(root, train, test, **options):
    """Write serialized examples as a version folder of imagenet2012."""
    return tfds_files.prepare(
        root,
        train,
        test,
        encoding="jpeg",
        shape=(None, None, 3),
        title="imagenet2012",
        version="5.1.0",
        test_name="validation",
        classes=KINDS,
        **options,
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Return a separate cache folder for the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path / "cache"
