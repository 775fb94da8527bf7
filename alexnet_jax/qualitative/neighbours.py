"""`--mode=neighbours`: print and draw the training images with the nearest fc7 vectors (figure 4, right, of the paper).

Distances are Euclidean between the outputs of a layer at test time. The training split is read in batches of which only the
nearest images are kept, so it may exceed memory.
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
    batches,
    check_all_read,
    output_folder,
    requested,
    requested_files,
)
from alexnet_jax.qualitative.outputs import batch_size, chosen_layer, vectors
from alexnet_jax.qualitative.results import Neighbours

NEAREST, TEST_IMAGES = 6, 5
"""Number of neighbours per image (six in the paper), and of test images without --image."""

DRAWN = 24
"""Largest number of images in neighbours.png; the text has all images."""


def show(request: Request) -> None:
    """Print the neighbours of every image, draw the first. Raises RunError at the end if pictures were unreadable."""
    files = requested_files(request.look.image)
    trained = load_trained(request)
    folder = output_folder(request.look.out, trained.checkpoint, "figures")
    layer = chosen_layer(trained.setup.table, request.look.layer)
    examples = requested(files, trained.setup.splits["test"], TEST_IMAGES)
    found = _search(trained, layer, examples)
    if found:
        names, size = trained.setup.data_set.classes, len(trained.setup.splits["train"])
        print(
            f"{trained.description}\nNearest of {size:,} training images by {layer}: class, distance, index\n"
        )
        print("\n".join(_text(each, names) for each in found))
        path = folder / "neighbours.png"
        paper_figures.neighbours(found[:DRAWN], names, path, f"{request.experiment.name}: nearest training images by {layer}")
        print(f"\n{_agreement(found)}{path}" + (f" (the first {DRAWN} images)" if len(found) > DRAWN else ""))
    check_all_read(examples)


def _search(trained: Trained, layer: str, examples: Pictures | Sample) -> list[Neighbours]:
    """Return the neighbours of every readable image."""
    extract, training = vectors(trained, layer), trained.setup.splits["train"]
    queries = list(examples.batches(batch_size(trained, len(examples))))
    if not queries:
        return []
    points = jnp.concatenate([extract(images)[counted] for images, _, counted in queries])
    size, total = batch_size(trained, len(training)), len(training)
    progress = tqdm(batches(training, size), total=-(-total // size), unit="batch", leave=False, disable=None)
    distances, indices, kept = nearest(points, progress, extract, min(NEAREST, total))
    images = np.concatenate([images[counted] for images, _, counted in queries])
    labels = np.concatenate([labels[counted] for _, labels, counted in queries])
    found = []
    for i, name in enumerate(examples.names):
        pictures, classes = zip(*(kept[int(index)] for index in indices[i]), strict=True)
        found.append(Neighbours(name, images[i], int(labels[i]), distances[i], indices[i], pictures, classes))
    return found


def nearest(
    points: jax.Array, training: Iterable[Batch], extract: Callable[[np.ndarray], jax.Array], number: int
) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[np.ndarray, int]]]:
    """Return distances float32 [points, number], indices int32 [points, number], and {index: (image, label)}.

    points: vectors [points, units]. training: the batches to search. extract: a function from images to vectors [batch, units].
    Neighbours are sorted by distance, those at equal distances by index.
    """
    squares = jnp.full((len(points), number), jnp.inf)
    indices = jnp.full((len(points), number), -1)
    kept: dict[int, tuple[np.ndarray, int]] = {}
    start = 0
    for images, labels, counted in training:
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
    """Merge the nearest so far with the vectors [batch, units] of a batch whose first image has the index `start`."""
    # |a|^2 + |b|^2 - 2 a b would need no loop over points, but rounds small distances to zero.
    found = lax.map(lambda point: jnp.square(vectors - point).sum(1), points)
    found = jnp.where(counted, found, jnp.inf)
    batch_indices = jnp.broadcast_to(start + jnp.arange(len(vectors)), found.shape)
    all_squares = jnp.concatenate([squares, found], 1)
    all_indices = jnp.concatenate([indices, batch_indices], 1)
    negative, order = lax.top_k(-all_squares, squares.shape[1])
    return -negative, jnp.take_along_axis(all_indices, order, 1)


def _text(found: Neighbours, names: tuple[str, ...]) -> str:
    title = found.name if found.label == UNKNOWN else f"{found.name}: {names[found.label]}"
    each = zip(found.labels, found.distances, found.indices, strict=True)
    near = [f"{names[label]} {distance:.3g} (#{index})" for label, distance, index in each]
    return f"{title} <- {', '.join(near)}"


def _agreement(found: list[Neighbours]) -> str:
    """Return the number of neighbours with the class of their test image as text, empty for picture files."""
    known = [each for each in found if each.label != UNKNOWN]
    same = sum(label == each.label for each in known for label in each.labels)
    total = sum(len(each.labels) for each in known)
    return f"{same} of these {total} neighbours have the class of their test image.\n" if known else ""
