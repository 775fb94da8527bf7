"""Small data sets in the format of tensorflow-datasets, written without tensorflow-datasets and TensorFlow."""

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def example(image: bytes, label: int, identity: str = "x") -> bytes:
    """Return one serialized tf.Example, as tensorflow-datasets writes it."""
    from tensorflow_datasets.proto import tf_example_pb2

    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(image)
    record.features.feature["label"].int64_list.value.append(label)
    record.features.feature["id"].bytes_list.value.append(identity.encode())
    return record.SerializeToString()


def encode(image: np.ndarray, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format)
    return stream.getvalue()


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


TRAIN, TEST = pictures(23, 1), pictures(11, 2)
TRAIN_LABELS, TEST_LABELS = [i % 10 for i in range(23)], [9 - i % 10 for i in range(11)]


def records(images: np.ndarray, labels: list[int]) -> list[bytes]:
    return [example(encode(image), label) for image, label in zip(images, labels, strict=True)]


def write_array_record(path: Path, values: list[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for value in values:
        writer.write(value)
    writer.close()


def crc32c(data: bytes) -> int:
    """Return the masked checksum of the TFRecord format."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path: Path, values: list[bytes]) -> None:
    with path.open("wb") as file:
        for value in values:
            length = struct.pack("<Q", len(value))
            file.write(length + struct.pack("<I", crc32c(length)) + value + struct.pack("<I", crc32c(value)))


WRITERS = {"array_record": write_array_record, "tfrecord": write_tfrecord}


def prepare(
    folder: Path,
    train: list[bytes] | None = None,
    test: list[bytes] | None = None,
    *,
    file_format: str = "array_record",
    shards: int = 2,
    encoding: str = "png",
    shape: tuple[int | None, ...] = (32, 32, 3),
    title: str = "cifar10",
    version: str = "3.0.2",
    test_name: str = "test",
    classes: tuple[str, ...] = CLASSES,
    extra: dict[str, int] | None = None,
) -> Path:
    """Write a small data set to `folder` in the format of tensorflow-datasets, and return the version folder."""
    version_folder = folder / title / version
    version_folder.mkdir(parents=True)
    splits = []
    for name, values in (
        ("train", train or records(TRAIN, TRAIN_LABELS)),
        (test_name, test or records(TEST, TEST_LABELS)),
        *((name, records(TRAIN, TRAIN_LABELS)[:count]) for name, count in (extra or {}).items()),
    ):
        parts = [values[: len(values) // 2], values[len(values) // 2 :]] if shards == 2 else [values]
        for i, part in enumerate(parts):
            file = version_folder / f"{title}-{name}.{file_format}-{i:05d}-of-{shards:05d}"
            WRITERS[file_format](file, part)
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(part)) for part in parts]
        splits.append({"name": name, "shardLengths": lengths, "numBytes": "1", "filepathTemplate": template})
    info = {"name": title, "version": version, "fileFormat": file_format, "splits": splits}
    (version_folder / "dataset_info.json").write_text(json.dumps(info))
    package = "tensorflow_datasets.core.features"
    image = {"dtype": "uint8", "encodingFormat": encoding, "shape": {"dimensions": [str(n or -1) for n in shape]}}
    labels = {"numClasses": str(len(classes))}
    features = {
        "id": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "label": {"pythonClassName": f"{package}.class_label_feature.ClassLabel", "classLabel": labels},
    }
    whole = {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (version_folder / "features.json").write_text(json.dumps(whole))
    (version_folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
    return version_folder
