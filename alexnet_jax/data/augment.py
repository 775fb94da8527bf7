"""What is done to images on the device: statistics of the training split, normalization, shifted crops and mirrors."""

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


def statistics(images: np.ndarray, data: Data) -> Statistics:
    """Of the training images uint8 [n, height, width, 3]: their mean, and the standard deviation around it."""
    axes = (0,) if data.mean == "pixel" else (0, 1, 2)
    mean = images.mean(axes, dtype=np.float64)
    mean = mean if data.mean == "pixel" else mean[None, None]
    if data.scale == "none":
        return Statistics(mean.astype(np.float32), 1.0)
    square = np.zeros(images.shape[1:])
    for chunk in np.array_split(images, max(1, len(images) // 1000)):  # whole sets do not fit as float64
        square += ((chunk - mean) ** 2).sum(0)
    return Statistics(mean.astype(np.float32), float(np.sqrt(square.sum() / images.size)))


def normalize(images: jax.Array, stats: Statistics) -> jax.Array:
    """uint8 [batch, height, width, 3] to float32, mean subtracted and scaled."""
    return (images.astype(jnp.float32) - stats.mean) / stats.scale


def shift_and_mirror(images: jax.Array, key: jax.Array, data: Data) -> jax.Array:
    """Random crops of images [batch, height, width, 3] padded with zeros, and mirrors with probability 1/2.

    One draw per image, of global shape, so that it is the same on every mesh.
    """
    batch, height, width, channels = images.shape
    shift_key, mirror_key = jax.random.split(key)
    if data.crop_padding:
        pad = data.crop_padding
        corners = jax.random.randint(shift_key, (batch, 2), 0, 2 * pad + 1)
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

        def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

        images = jax.vmap(crop)(padded, corners)
    if data.mirror:
        mirrored = jax.random.bernoulli(mirror_key, 0.5, (batch, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images
