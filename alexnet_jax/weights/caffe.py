"""Caffe's protobuf files: the layers and blobs of a .caffemodel, and the mean image of a .binaryproto.

The fields described here are those of Caffe's caffe.proto with values, names and shapes; protobuf skips all other fields. Models
up to 2014 have the field `layers`, later models the field `layer`.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
ONE, MANY = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
TEXT, INTEGER = Field.TYPE_STRING, Field.TYPE_INT64
PACKED = Field.TYPE_BYTES
"""Packed numbers, read as bytes: one copy instead of sixty million Python objects."""

MESSAGES: dict[str, list[tuple[str, int, Any, Any]]] = {
    "BlobShape": [("dim", 1, MANY, INTEGER)],
    "BlobProto": [
        *[(name, number, ONE, INTEGER) for number, name in enumerate(("num", "channels", "height", "width"), 1)],
        ("data", 5, MANY, PACKED),
        ("shape", 7, ONE, "BlobShape"),
        ("double_data", 8, MANY, PACKED),
    ],
    "LayerParameter": [("name", 1, ONE, TEXT), ("blobs", 7, MANY, "BlobProto")],
    "V1LayerParameter": [("name", 4, ONE, TEXT), ("blobs", 6, MANY, "BlobProto")],
    "NetParameter": [("layers", 2, MANY, "V1LayerParameter"), ("layer", 100, MANY, "LayerParameter")],
}
"""{message: fields}; a field is (name, number, label, type or name of a message)."""


def read_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Return {layer: float32 blobs} of a .caffemodel in the network's order; layers without blobs have an empty list.

    Raises ValueError if the file has no layers or a blob does not fit its shape, protobuf's DecodeError if it is no such message.
    """
    net = _message("NetParameter")
    net.ParseFromString(path.read_bytes())
    layers = {layer.name: list(map(_numbers, layer.blobs)) for layer in (*net.layer, *net.layers)}
    if not layers:
        raise ValueError("it contains no layers")
    return layers


def read_mean(path: Path) -> np.ndarray:
    """Return the mean image of a .binaryproto, float32 [height, width, 3] in RGB; the file has [1, 3, height, width] in BGR.

    Raises ValueError if it is no image of three channels, protobuf's DecodeError if the file is no such message.
    """
    blob = _message("BlobProto")
    blob.ParseFromString(path.read_bytes())
    mean = _numbers(blob)
    if mean.ndim < 3 or mean.shape[-3] != 3 or mean.size != np.prod(mean.shape[-3:]):
        raise ValueError(f"a mean image has 3 channels, this array has the shape {list(mean.shape)}")
    return np.ascontiguousarray(mean.reshape(mean.shape[-3:])[::-1].transpose(1, 2, 0))


def _numbers(blob: Any) -> np.ndarray:
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    kind, data = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    return np.frombuffer(b"".join(data), kind).astype(np.float32).reshape(shape)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"caffe.{name}"))()


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    """Return a separate pool, which does not conflict with a complete caffe.proto in the same process."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, label, kind in fields:
            field = described.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
