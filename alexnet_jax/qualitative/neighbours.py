"""`--mode=neighbours`: the training images whose fc7 vectors are nearest, as in figure 4 (right) of the paper.

Distances are Euclidean, between what a layer hands on at test time. The training split passes by in batches and only the
nearest stay, so it may be larger than memory.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from alexnet_jax.assembly import Trained, load_trained
from alexnet_jax.modes import Request
from alexnet_jax.qualitative import paper_figures
from alexnet_jax.qualitative.examples import (
    UNKNOWN,
    Batch,
    Pictures,
    Sample,
    asked_for,
    batches,
    output_folder,
    picture_files,
)
from alexnet_jax.qualitative.outputs import batch_size, chosen_layer, vectors
from alexnet_jax.qualitative.results import Neighbours

NEAREST, TEST_IMAGES = 6, 5
"""Neighbours of each image (six in the paper), and test images that are asked about when no picture is given."""

DRAWN = 24
"""Images in the picture; the text has all of them."""


def show(request: Request) -> None:
    """Print and draw the neighbours of every image. Raises RunError at the end where pictures could not be read."""
    files = picture_files(request.look.image)
    trained = load_trained(request)
    folder = output_folder(request.look.out, trained.checkpoint, "figures")
    layer = chosen_layer(trained.trainer.table, request.look.layer)
    asked = asked_for(files, trained.splits["test"], TEST_IMAGES)
    found = _search(trained, layer, asked)
    if found:
        names, size = trained.data_set.classes, len(trained.splits["train"])
        print(
            f"Checkpoint: {trained.checkpoint}\nNearest of {size:,} training images by {layer}: class, distance, number\n"
        )
        print("\n".join(_text(each, names) for each in found))
        path = folder / "neighbours.png"
        paper_figures.neighbours(found[:DRAWN], names, path, f"{request.experiment.name}: nearest training images by {layer}")
        print(f"\n{_agreement(found)}{path}" + (f" (the first {DRAWN} images)" if len(found) > DRAWN else ""))
    asked.close()


def _search(trained: Trained, layer: str, asked: Pictures | Sample) -> list[Neighbours]:
    """Of every image that can be read."""
    extract, training = vectors(trained, layer), trained.splits["train"]
    asking = list(asked.batches(batch_size(trained, len(asked))))
    if not asking:
        return []
    points = jnp.concatenate([extract(images)[counted] for images, _, counted in asking])
    size, total = batch_size(trained, len(training)), len(training)
    passing = tqdm(batches(training, size), total=-(-total // size), unit="batch", leave=False, disable=None)
    distances, indices, kept = nearest(points, passing, extract, min(NEAREST, total))
    images = np.concatenate([images[counted] for images, _, counted in asking])
    labels = np.concatenate([labels[counted] for _, labels, counted in asking])
    found = []
    for i, name in enumerate(asked.names):
        pictures, classes = zip(*(kept[int(index)] for index in indices[i]), strict=True)
        found.append(Neighbours(name, images[i], int(labels[i]), distances[i], indices[i], pictures, classes))
    return found


def nearest(
    points: jax.Array, passing: Iterable[Batch], extract: Callable[[np.ndarray], jax.Array], number: int
) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[np.ndarray, int]]]:
    """(distances [points, number], indices [points, number], {index: (image, label)}), rising by distance.

    points: vectors [points, units]; extract: images to vectors [batch, units]. Of equally near ones the earlier stands first.
    """
    squares = jnp.full((len(points), number), jnp.inf)
    indices = jnp.full((len(points), number), -1)
    kept: dict[int, tuple[np.ndarray, int]] = {}
    start = 0
    for images, labels, counted in passing:
        squares, indices = _merge(points, squares, indices, extract(images), start, counted)
        near = np.unique(indices).tolist()
        new = {i: (images[i - start].copy(), int(labels[i - start])) for i in near if i >= start}
        kept = {i: image for i, image in (kept | new).items() if i in near}
        start += int(counted.sum())
    return np.sqrt(squares), np.asarray(indices), kept


@jax.jit
def _merge(
    points: jax.Array,
    squares: jax.Array,
    indices: jax.Array,
    vectors: jax.Array,
    start: jax.Array,
    counted: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The nearest so far, and the vectors [batch, units] of a batch whose first image has index `start`, put together."""
    # From differences, one point after the other: |a|^2 + |b|^2 - 2 a b takes no loop, but near ones would be lost in rounding.
    here = lax.map(lambda point: jnp.square(vectors - point).sum(1), points)
    here = jnp.where(counted, here, jnp.inf)
    places = jnp.broadcast_to(start + jnp.arange(len(vectors)), here.shape)
    both, where = jnp.concatenate([squares, here], 1), jnp.concatenate([indices, places], 1)
    found, order = lax.top_k(-both, squares.shape[1])
    return -found, jnp.take_along_axis(where, order, 1)


def _text(found: Neighbours, names: tuple[str, ...]) -> str:
    title = found.name if found.label == UNKNOWN else f"{found.name}: {names[found.label]}"
    each = zip(found.labels, found.distances, found.indices, strict=True)
    near = [f"{names[label]} {distance:.3g} (#{index})" for label, distance, index in each]
    return f"{title} <- {', '.join(near)}"


def _agreement(found: list[Neighbours]) -> str:
    """How many neighbours have the class of their test image; nothing of pictures."""
    known = [each for each in found if each.label != UNKNOWN]
    same = sum(label == each.label for each in known for label in each.labels)
    total = sum(len(each.labels) for each in known)
    return f"{same} of these {total} neighbours have the class of their test image.\n" if known else ""
