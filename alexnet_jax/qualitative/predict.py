"""`--mode=predict`: print and draw the five most probable classes of pictures or test images (figure 4, left, of the paper)."""

from collections.abc import Iterator

import numpy as np

from alexnet_jax.assembly import Trained, load_trained
from alexnet_jax.formatting import percent
from alexnet_jax.modes import Request
from alexnet_jax.qualitative import paper_figures
from alexnet_jax.qualitative.examples import (
    UNKNOWN,
    Pictures,
    Sample,
    check_all_read,
    output_folder,
    requested,
    requested_files,
)
from alexnet_jax.qualitative.outputs import batch_size, probabilities
from alexnet_jax.qualitative.results import Prediction

TOP, TEST_IMAGES, BAR = 5, 8, 40
"""Number of classes per image, of test images without --image (eight in figure 4), and of characters in a bar of 100 %."""

DRAWN = 24
"""Largest number of images in predictions.png; the text has all images."""


def predict(request: Request) -> None:
    """Print the most probable classes of every image, draw the first. Raises RunError at the end if pictures were unreadable."""
    files = requested_files(request.look.image)
    trained = load_trained(request)
    folder = output_folder(request.look.out, trained.checkpoint, "figures")
    names = trained.setup.data_set.classes
    examples = requested(files, trained.setup.splits["test"], TEST_IMAGES)
    print(trained.description)
    drawn: list[Prediction] = []
    for found in _predictions(trained, examples):
        print(f"\n{_text(found, names)}")
        drawn += [found] * (len(drawn) < DRAWN)
    if drawn:
        path = folder / "predictions.png"
        paper_figures.predictions(drawn, names, path, f"{request.experiment.name}: most probable classes")
        print(f"\n{path}" + (f" (the first {DRAWN} images)" if len(examples.names) > DRAWN else ""))
    check_all_read(examples)


def _predictions(trained: Trained, examples: Pictures | Sample) -> Iterator[Prediction]:
    classify, number = probabilities(trained), 0
    for images, labels, counted in examples.batches(batch_size(trained, len(examples))):
        for image, label, shares in zip(images[counted], labels[counted], classify(images)[counted], strict=True):
            order = np.argsort(-shares, kind="stable")[:TOP]
            yield Prediction(examples.names[number], image, int(label), order, shares[order])
            number += 1


def _text(found: Prediction, names: tuple[str, ...]) -> str:
    title = found.name if found.label == UNKNOWN else f"{found.name}: {names[found.label]}"
    width = max(len(names[index]) for index in found.classes)
    rows = [
        f"  {percent(share):>8s}  {names[index]:{width}s}  {'#' * round(BAR * float(share))}".rstrip()
        for index, share in zip(found.classes, found.probabilities, strict=True)
    ]
    return "\n".join([title, *rows])
