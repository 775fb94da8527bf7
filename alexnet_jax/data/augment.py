"""Operations on images on the device: normalization, random crops, mirrors, colour noise, and the views of a test image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alexnet_jax.data.statistics import Statistics
from alexnet_jax.experiment import Data


def normalize(images: jax.Array, stats: Statistics) -> jax.Array:
    """Return images uint8 [batch, height, width, 3] as float32, minus the mean and divided by the scale."""
    return (images.astype(jnp.float32) - stats.mean) / stats.scale


COLOUR = 0.1
"""Standard deviation of the noise along each principal component of the colours, in lengths of the component (section 4.1)."""


def augment(
    images: jax.Array,
    key: jax.Array,
    options: Data,
    stats: Statistics,
    recolour: jax.Array | bool = True,
    shares: int = 1,
) -> jax.Array:
    """Return normalized training images padded, cropped, mirrored and with colour noise.

    Each image has its own draws, whose arrays have global shapes, so that they are equal on every mesh.

    Args:
      images: float [batch, height, width, 3].
      key: Key of the draws of this step.
      options: The options crop, crop_padding, mirror and colour.
      stats: The statistics of the training split.
      recolour: False, or a traced bool [], in epochs without colour noise.
      shares: Number of equal parts into which the batch is divided over devices.

    Returns:
      float [batch, crop, crop, 3].
    """
    crop_key, mirror_key, colour_key = jax.random.split(key, 3)
    side = options.crop or images.shape[1]
    pad, free = options.crop_padding, images.shape[1] + 2 * options.crop_padding - side
    if free:
        corners = jax.random.randint(crop_key, (len(images), 2), 0, free + 1)
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        images = crops(padded, corners, side, shares)
    if options.mirror:
        mirrored = jax.random.bernoulli(mirror_key, 0.5, (len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if options.colour != "none":
        strength = COLOUR * jnp.asarray(recolour, images.dtype)
        shift = strength * jax.random.normal(colour_key, (len(images), 3)) @ jnp.asarray(stats.colour).T / stats.scale
        images = images + shift.reshape(-1, 1, 1, 3)
        if options.colour == "original":  # the original program's compensation for the variance that the noise adds
            images = images / (1 + strength)
    return images


def crops(images: jax.Array, corners: jax.Array, side: int, shares: int) -> jax.Array:
    """Return the crop of each image, [batch, side, side, channels], at its corner, int [batch, 2].

    On a CPU a loop over the images takes half the time of a gather, and XLA does not repeat it in the operations that follow.
    The loop is over the images of one share of the batch, so that no device needs the images of another.
    """

    def loop(images: jax.Array, corners: jax.Array) -> jax.Array:
        divided = [x.reshape(shares, -1, *x.shape[1:]) for x in (images, corners)]
        cut = jax.vmap(lambda *share: jax.lax.map(lambda each: _crop(*each, side), share))(*divided)
        return cut.reshape(-1, *cut.shape[2:])

    return jax.lax.platform_dependent(images, corners, cpu=loop, default=lambda *given: gathered(*given, side))


def gathered(images: jax.Array, corners: jax.Array, side: int) -> jax.Array:
    """Return `crops` by a gather, the form for accelerators."""
    return jax.vmap(lambda image, corner: _crop(image, corner, side))(images, corners)


def _crop(image: jax.Array, corner: jax.Array, side: int) -> jax.Array:
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (side, side, image.shape[-1]))


class View(NamedTuple):
    """A crop of a test image, in pixels from its top left corner."""

    top: int | jax.Array
    left: int | jax.Array
    mirrored: bool | jax.Array


def list_views(side: int, options: Data) -> list[View]:
    """Return the views, as large as a training crop, of test images of this side. Their softmax outputs are averaged."""
    free = side - (options.crop or side)
    half = free // 2
    corners = {
        1: [(half, half)],
        9: [(top, left) for top in (0, half, free) for left in (0, half, free)],
        10: [(0, 0), (0, free), (free, 0), (free, free), (half, half)],
    }[options.views]
    return [View(*corner, mirrored) for mirrored in (False, True)[: 1 + (options.views == 10)] for corner in corners]


def cut_view(images: jax.Array, view: View, options: Data) -> jax.Array:
    """Return one view [batch, crop, crop, 3] of images [batch, height, width, 3].

    The numbers of a view may be traced, so that one compiled program cuts out every view.
    """
    side = options.crop or images.shape[1]
    cut = jax.lax.dynamic_slice(images, (0, view.top, view.left, 0), (len(images), side, side, images.shape[-1]))
    return jnp.where(view.mirrored, cut[:, :, ::-1], cut)
