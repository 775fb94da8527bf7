"""AlexNet as defined by two other programs, for weights trained there: Caffe's bvlc_alexnet and torchvision's alexnet.

Neither is the paper's. Caffe has the paper's layers in two groups, which are our columns, but its normalization divides
alpha by n, has k = 1 and crosses the border between the groups. torchvision follows "One weird trick" (2014): one column, no
normalization, fewer maps, dropout before fc6 and fc7. Both use inverted dropout. docs/weights.md describes how to import
their weights.
"""

from dataclasses import dataclass

from alexnet_jax.network.table import LRN, Conv, Dense, Dropout, MaxPool, ReLU, Table

DROPOUT = Dropout(0.5, inverted=True)


def _caffe(classes: int) -> Table:
    """models/bvlc_alexnet/train_val.prototxt of Caffe: 227x227 images, so that conv1 needs no padding; biases of 0.1."""
    norm = (ReLU(), LRN(size=5, k=1.0, alpha=1e-4 / 5, across=True), MaxPool())
    hidden = (ReLU(), DROPOUT)
    layers = (
        Conv("conv1", 96, 11, stride=4, after=norm),
        Conv("conv2", 256, 5, padding=(2, 2), bias=0.1, after=norm),
        Conv("conv3", 384, 3, padding=(1, 1), crossing="gather"),
        Conv("conv4", 384, 3, padding=(1, 1), bias=0.1),
        Conv("conv5", 256, 3, padding=(1, 1), bias=0.1, after=(ReLU(), MaxPool())),
        Dense("fc6", 4096, "gather", weight_std=0.005, bias=0.1, after=hidden),
        Dense("fc7", 4096, "gather", weight_std=0.005, bias=0.1, after=hidden),
        Dense("fc8", classes, "sum"),
    )
    return Table("caffe_alexnet", (227, 227, 3), 2, layers)


def _torchvision(classes: int) -> Table:
    """torchvision/models/alexnet.py. At 224x224 its pooling in floor mode gives the same sizes as ours: 55, 27, 13, 6."""
    pooled = (ReLU(), MaxPool())
    layers = (
        Conv("conv1", 64, 11, stride=4, padding=(2, 2), weight_std="he", after=pooled),
        Conv("conv2", 192, 5, padding=(2, 2), weight_std="he", after=pooled),
        Conv("conv3", 384, 3, padding=(1, 1), weight_std="he"),
        Conv("conv4", 256, 3, padding=(1, 1), weight_std="he"),
        Conv("conv5", 256, 3, padding=(1, 1), weight_std="he", after=(*pooled, DROPOUT)),
        Dense("fc6", 4096, weight_std="he", after=(ReLU(), DROPOUT)),
        Dense("fc7", 4096, weight_std="he", after=(ReLU(),)),
        Dense("fc8", classes, "sum", weight_std="he"),
    )
    return Table("torchvision_alexnet", (224, 224, 3), 1, layers)


FOREIGN = {"caffe_alexnet": _caffe, "torchvision_alexnet": _torchvision}
"""{network: function from a number of classes to its table}."""

NAMES = {
    "torchvision_alexnet": {
        "conv1": "features.0",
        "conv2": "features.3",
        "conv3": "features.6",
        "conv4": "features.8",
        "conv5": "features.10",
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "fc8": "classifier.6",
    }
}
"""{network: {layer: its name in that program}}. Caffe uses the paper's names."""


@dataclass(frozen=True)
class Inputs:
    """The inputs that a network was trained on: (pixel - mean) / scale per channel, RGB, for pixels from 0 to 255."""

    mean: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


INPUTS = {
    # The mean of imagenet_mean.binaryproto over its pixels, as in Caffe's classification example.
    "caffe_alexnet": Inputs((122.6789143406786, 116.66876761696767, 104.0069879317889)),
    # Mean and standard deviation of torchvision's transforms, times 255.
    "torchvision_alexnet": Inputs((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""{network: its inputs}."""
