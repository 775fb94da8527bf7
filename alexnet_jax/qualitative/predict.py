"""`--mode=predict`: the five likeliest classes of pictures or test images, as text and as in figure 4 (left) of the paper."""

from collections.abc import Iterator

import numpy as np

from alexnet_jax.assembly import Trained, load_trained
from alexnet_jax.formatting import percent
from alexnet_jax.modes import Request
from alexnet_jax.qualitative import paper_figures
from alexnet_jax.qualitative.examples import UNKNOWN, Pictures, Sample, asked_for, output_folder, picture_files
from alexnet_jax.qualitative.outputs import batch_size, probabilities
from alexnet_jax.qualitative.results import Prediction

TOP, TEST_IMAGES, BAR = 5, 8, 40
"""Classes shown; test images shown when no picture is given, as many as in figure 4; signs of a bar of 100 %."""

DRAWN = 24
"""Images in the picture; the text has all of them."""


def predict(request: Request) -> None:
    """Print the likeliest classes of every image and draw the first. Raises RunError at the end of unreadable pictures."""
    files = picture_files(request.look.image)
    trained = load_trained(request)
    folder = output_folder(request.look.out, trained.checkpoint, "figures")
    names = trained.data_set.classes
    asked = asked_for(files, trained.splits["test"], TEST_IMAGES)
    print(f"Checkpoint: {trained.checkpoint}")
    drawn: list[Prediction] = []
    for found in _predictions(trained, asked):
        print(f"\n{_text(found, names)}")
        drawn += [found] * (len(drawn) < DRAWN)
    if drawn:
        path = folder / "predictions.png"
        paper_figures.predictions(drawn, names, path, f"{request.experiment.name}: the likeliest classes")
        print(f"\n{path}" + (f" (the first {DRAWN} images)" if len(asked.names) > DRAWN else ""))
    asked.close()


def _predictions(trained: Trained, asked: Pictures | Sample) -> Iterator[Prediction]:
    classify, number = probabilities(trained), 0
    for images, labels, counted in asked.batches(batch_size(trained, len(asked))):
        for image, label, likely in zip(images[counted], labels[counted], classify(images)[counted], strict=True):
            order = np.argsort(-likely, kind="stable")[:TOP]
            yield Prediction(asked.names[number], image, int(label), order, likely[order])
            number += 1


def _text(found: Prediction, names: tuple[str, ...]) -> str:
    title = found.name if found.label == UNKNOWN else f"{found.name}: {names[found.label]}"
    width = max(len(names[index]) for index in found.classes)
    rows = [
        f"  {percent(share):>8s}  {names[index]:{width}s}  {'#' * round(BAR * float(share))}".rstrip()
        for index, share in zip(found.classes, found.probabilities, strict=True)
    ]
    return "\n".join([title, *rows])
