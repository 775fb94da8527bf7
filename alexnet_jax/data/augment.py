"""What is done to images on the device: statistics of the training split, normalization, colour noise, crops, mirrors, views."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.experiment import Data


@dataclass(frozen=True)
class Statistics:
    """What is subtracted from and divided out of every image; measured on the training split alone."""

    mean: np.ndarray  # float32 [height, width, 3] (per pixel) or [1, 1, 3] (per channel), on the 0..255 scale
    scale: float  # one number; 1 keeps the 0..255 scale
    colour: np.ndarray | None = (
        None  # float32 [3, 3]: principal components of the colours, each as long as its deviation
    )


def statistics(images: np.ndarray, data: Data) -> Statistics:
    """Of the training images uint8 [n, height, width, 3]: their mean, the deviation around it, and what colour noise needs."""
    axes = (0,) if data.mean == "pixel" else (0, 1, 2)
    mean = images.mean(axes, dtype=np.float64)
    mean = mean if data.mean == "pixel" else mean[None, None]
    scale = 1.0 if data.scale == "none" else _deviation(images, mean)
    return Statistics(mean.astype(np.float32), scale, None if data.colour == "none" else _colours(images))


def _chunks(images: np.ndarray) -> list[np.ndarray]:
    """Whole sets do not fit as float64."""
    return np.array_split(images, max(1, len(images) // 1000))


def _deviation(images: np.ndarray, mean: np.ndarray) -> float:
    square = np.zeros(images.shape[1:])
    for chunk in _chunks(images):
        square += ((chunk - mean) ** 2).sum(0)
    return float(np.sqrt(square.sum() / images.size))


def _colours(images: np.ndarray) -> np.ndarray:
    """[channel, component] of the pixels' covariance over the set: eigenvectors times the roots of their eigenvalues."""
    centre, covariance = images.mean((0, 1, 2), dtype=np.float64), np.zeros((3, 3))
    for chunk in _chunks(images):
        pixels = chunk.reshape(-1, 3) - centre
        covariance += pixels.T @ pixels
    values, vectors = np.linalg.eigh(covariance / (images.size / 3))
    return (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)


def normalize(images: jax.Array, stats: Statistics) -> jax.Array:
    """uint8 [batch, height, width, 3] to float32, mean subtracted and scaled."""
    return (images.astype(jnp.float32) - stats.mean) / stats.scale


COLOUR = 0.1
"""Deviation of the noise along each principal component of the colours, in deviations of that component (section 4.1)."""


def augment(images: jax.Array, key: jax.Array, data: Data, stats: Statistics) -> jax.Array:
    """What training does to normalized images [batch, height, width, 3]: padded, cropped, mirrored, recoloured.

    Every draw is one per image, of global shape, so that it is the same on every mesh.
    """
    crop_key, mirror_key, colour_key = jax.random.split(key, 3)
    side = data.crop or images.shape[1]
    pad, free = data.crop_padding, images.shape[1] + 2 * data.crop_padding - side
    if free:
        corners = jax.random.randint(crop_key, (len(images), 2), 0, free + 1)
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        images = jax.vmap(lambda image, corner: _cut(image, corner, side))(padded, corners)
    if data.mirror:
        mirrored = jax.random.bernoulli(mirror_key, 0.5, (len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if data.colour == "original":
        draws = COLOUR * jax.random.normal(colour_key, (len(images), 3))
        shift = draws @ jnp.asarray(stats.colour).T / stats.scale
        images = (images + shift[:, None, None]) / (
            1 + COLOUR
        )  # as much more deviation as the noise adds, by its author
    return images


def _cut(image: jax.Array, corner: jax.Array, side: int) -> jax.Array:
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (side, side, image.shape[-1]))


def views(images: jax.Array, data: Data) -> list[jax.Array]:
    """The views of test images [batch, height, width, 3] whose softmax is averaged, each [batch, crop, crop, 3]."""
    side = data.crop or images.shape[1]
    free = images.shape[1] - side
    half = free // 2
    corners = {
        1: [(half, half)],
        9: [(top, left) for top in (0, half, free) for left in (0, half, free)],
        10: [(0, 0), (0, free), (free, 0), (free, free), (half, half)],
    }[data.views]
    cut = [images[:, top : top + side, left : left + side] for top, left in corners]
    return cut + [view[:, :, ::-1] for view in cut] if data.views == 10 else cut
