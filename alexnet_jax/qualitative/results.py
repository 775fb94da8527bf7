"""The results that the modes print, draw and write: one frozen record for each kind of result."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np


@dataclass(frozen=True)
class ColumnKernels:
    """The colour selectivities of one column's kernels."""

    selectivity: np.ndarray  # float64 [living kernels]
    dead: int  # number of dead kernels

    @property
    def mean(self) -> float:
        """The mean selectivity; NaN if no kernel is alive."""
        return float(np.mean(self.selectivity)) if len(self.selectivity) else float("nan")


@dataclass(frozen=True)
class Comparison:
    """The difference between the mean selectivities of two columns."""

    difference: float
    """Second minus first."""
    interval: tuple[float, float]
    """The 95 % confidence interval of the difference, by Welch's method."""
    p: float
    """The share of random exchanges of kernels between the columns with at least this absolute difference."""


class ColumnEntry(TypedDict):
    """One column in kernels.json."""

    mean: float | None
    dead: int
    selectivity: list[float]


class KernelsFile(TypedDict):
    """The content of kernels.json."""

    checkpoint: str
    layer: str
    note: str
    columns: list[ColumnEntry]
    difference: float | None
    interval: list[float] | None
    p: float | None


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image."""

    name: str
    image: np.ndarray  # uint8 [height, width, 3]
    label: int  # UNKNOWN for a picture file
    classes: np.ndarray  # int [TOP] or [classes] if there are fewer, by falling probability
    probabilities: np.ndarray  # float32, the same shape


@dataclass(frozen=True)
class Neighbours:
    """The nearest training images of one image, by rising distance."""

    name: str
    image: np.ndarray  # uint8 [height, width, 3]
    label: int  # UNKNOWN for a picture file
    distances: np.ndarray  # float32 [neighbours]
    indices: np.ndarray  # int32 [neighbours], into the training split
    images: tuple[np.ndarray, ...]  # uint8 [height, width, 3] each
    labels: tuple[int, ...]
