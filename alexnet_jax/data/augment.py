"""What is done to images on the device: normalization, crops, mirrors, colour noise, and the views of a test image."""

import jax
import jax.numpy as jnp

from alexnet_jax.data.statistics import Statistics
from alexnet_jax.experiment import Data


def normalize(images: jax.Array, stats: Statistics) -> jax.Array:
    """uint8 [batch, height, width, 3] to float32, mean subtracted and scaled."""
    return (images.astype(jnp.float32) - stats.mean) / stats.scale


COLOUR = 0.1
"""Deviation of the noise along each principal component of the colours, in lengths of that component (section 4.1)."""


def augment(
    images: jax.Array, key: jax.Array, data: Data, stats: Statistics, recoloured: jax.Array | bool = True
) -> jax.Array:
    """What training does to normalized images [batch, height, width, 3]: padded, cropped, mirrored, recoloured.

    Every draw is one per image, of global shape, so that it is the same on every mesh. recoloured: False in epochs without
    colour noise.
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
    if data.colour != "none":
        strength = COLOUR * jnp.asarray(recoloured, images.dtype)
        shift = strength * jax.random.normal(colour_key, (len(images), 3)) @ jnp.asarray(stats.colour).T / stats.scale
        images = images + shift.reshape(-1, 1, 1, 3)
        if data.colour == "original":  # by as much more deviation as the noise adds, by its author's reckoning
            images = images / (1 + strength)
    return images


def _cut(image: jax.Array, corner: jax.Array, side: int) -> jax.Array:
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (side, side, image.shape[-1]))


View = tuple[int, int, bool]
"""(top, left, mirrored): where a view of a test image is cut out."""


def views(side: int, data: Data) -> list[View]:
    """The views of test images of this side whose softmax is averaged; each is as large as a training crop."""
    free = side - (data.crop or side)
    half = free // 2
    corners = {
        1: [(half, half)],
        9: [(top, left) for top in (0, half, free) for left in (0, half, free)],
        10: [(0, 0), (0, free), (free, 0), (free, free), (half, half)],
    }[data.views]
    return [(*corner, mirrored) for mirrored in (False, True)[: 1 + (data.views == 10)] for corner in corners]


def view(images: jax.Array, place: View, data: Data) -> jax.Array:
    """One view of images [batch, height, width, 3]: [batch, crop, crop, 3]. Its place may be traced: one program serves all."""
    top, left, mirrored = place
    side = data.crop or images.shape[1]
    cut = jax.lax.dynamic_slice(images, (0, top, left, 0), (len(images), side, side, images.shape[-1]))
    return jnp.where(mirrored, cut[:, :, ::-1], cut)
