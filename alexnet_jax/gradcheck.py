"""`--mode=gradcheck`: the gradient that training uses against differences of the loss, in 64-bit numbers, leaf by leaf.

The original program moved every single weight of a matrix for a numeric gradient and asked that
||numeric - analytic|| / ||analytic|| be below 0.02, in 32 bits. In 64 bits three digits more can be asked for. And here a
leaf of parameters moves as a whole along random directions: two losses per direction test all of its weights, since one wrong
derivative changes the slope along every direction; moving each of 60 million weights would take a year.

The check is of the network: it reads no data set, its images are noise of the size that normalized images have, and fresh
parameters have He's scale, since after layers of N(0, 0.01) a narrow network's gradients drown in the rounding of the loss.
At a kink, such as a sum exactly at ReLU's zero, there is no derivative to compare with, and zero biases put units there that
see nothing but zeros; so fresh biases are a little off. A step may still cross kinks, with 650,000 units and their maxima
in AlexNet: then the slopes ahead and behind differ, and smaller steps are tried. Whether a step is small enough is not judged
by the analytic gradient.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax import assembly, columns
from alexnet_jax.data.classes import class_count
from alexnet_jax.errors import RunError
from alexnet_jax.model import Parameters, abstract, dropout_masks, initialize, loss_and_gradients
from alexnet_jax.modes import Request
from alexnet_jax.network import networks
from alexnet_jax.network.table import Table
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.run.restore import restore_parameters

TOLERANCE = 1e-5
"""Of the relative error of a leaf."""

EXAMPLES, DIRECTIONS = 2, 4
"""Images for each data replica, and random directions for each leaf."""

CHANGE, LARGEST = 1e-8, 1e-3
"""The first step changes the loss by about this share of it, but no weight by more than this share of the leaf's root mean
square. Rounding makes a relative error of about 1e-16 / CHANGE, and ten times as much with each smaller step."""

ATTEMPTS, AGREEMENT = 3, 5e-6
"""Steps tried, each a tenth of the one before, until the slopes ahead and behind agree so well; rounding forbids a fourth."""

PIXELS = {"std": 1.0, "none": 64.0}
"""Deviation of normalized images by --data.scale."""


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Of the loss along the random directions of one leaf."""

    leaf: str
    size: int
    step: float
    """The shortest, per weight."""
    analytic: np.ndarray  # float64 [directions]
    numeric: np.ndarray  # float64 [directions]

    @property
    def error(self) -> float:
        """||numeric - analytic|| / the larger of both; nan where the loss does not change at all."""
        largest = max(np.linalg.norm(self.analytic), np.linalg.norm(self.numeric))
        return float(np.linalg.norm(self.numeric - self.analytic) / largest) if largest else float("nan")


def check(request: Request) -> None:
    """Print the relative error of every leaf. Raises RunError where one is above TOLERANCE or no slope was found."""
    experiment = request.experiment
    set_up_devices(experiment)
    table = networks.build(experiment.network, class_count(experiment.data))
    mesh = assembly.make_mesh(experiment)
    seed, deviation = experiment.train.seed, PIXELS[experiment.data.scale]
    if request.restore is None:
        where, parameters = "fresh parameters", fresh(table, mesh, deviation, seed)
    else:
        where, parameters = restore_parameters(request.restore, request.workdir, abstract(table, mesh))
    print(f"{table.name} at {where}, mesh {dict(mesh.shape)}, {DIRECTIONS} random directions for each leaf\n")
    print(f"{'leaf':16s}{'parameters':>12s}  {'slope':>9s}  {'step':>8s}  relative error")
    with jax.enable_x64(True):
        found = [_shown(each) for each in slopes(table, mesh, parameters, deviation, seed, experiment.mesh.scheme)]
    _judge(found)


def fresh(table: Table, mesh: Mesh, deviation: float, seed: int) -> Parameters:
    """Parameters at which every leaf matters: He's weights, biases moved by N(0, 0.01), and logits of about 1."""
    he = tuple(dataclasses.replace(spec, weight_std="he") for spec in table.layers)
    parameters = initialize(dataclasses.replace(table, layers=he), jax.random.key(seed), mesh)
    noise = _numbers(seed, 0)
    for leaves in parameters.values():
        off = np.asarray(leaves["bias"]) + 0.01 * noise.standard_normal(leaves["bias"].shape, np.float32)
        leaves["bias"] = jax.device_put(off, leaves["bias"].sharding)
    parameters[table.layers[-1].name]["kernel"] /= deviation
    return parameters


def _numbers(seed: int, stream: int) -> np.random.Generator:
    """Drawn by NumPy: jax would compile a program for the shape of every leaf."""
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def slopes(
    table: Table, mesh: Mesh, parameters: Parameters, deviation: float, seed: int, scheme: str = "whole"
) -> Iterator[Slopes]:
    """Of every leaf in turn; 64-bit numbers must be on. deviation: of the images. scheme: `Mesh.scheme`."""
    devices = columns.data_replicas(mesh)
    number = EXAMPLES * devices * (devices if scheme == "slices" else 1)
    batch, signs = _batch(table, number, deviation, seed), _numbers(seed, 1)
    both = functools.partial(loss_and_gradients, table, mesh, scheme=scheme)
    parameters = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf.astype("float64"), tree))(parameters)
    _, gradients = jax.jit(both)(parameters, *batch)
    # The same function; what only its gradient needs is not computed.
    loss = jax.jit(lambda parameters: both(parameters, *batch)[0][0])
    base = float(loss(parameters))
    for layer, kind in [(spec.name, kind) for spec in table.layers for kind in ("kernel", "bias")]:
        leaf, gradient = np.asarray(parameters[layer][kind]), np.asarray(gradients[layer][kind])
        along = functools.partial(_loss_along, loss, parameters, layer, kind)
        first, rows = _first_step(base, leaf, gradient), []
        for _ in range(DIRECTIONS):
            direction = signs.choice(np.array([-1, 1], np.int8), leaf.shape)
            step, numeric = difference(functools.partial(along, direction), base, first)
            rows.append((step, float((gradient * direction).sum()), numeric))
        steps, analytic, numeric = np.array(rows).T
        yield Slopes(f"{layer}/{kind}", leaf.size, steps.min(), analytic, numeric)


def _loss_along(
    loss: Callable[[Parameters], jax.Array],
    parameters: Parameters,
    layer: str,
    kind: str,
    direction: np.ndarray,
    step: float,
) -> float:
    """The loss where one leaf is moved by step * direction."""
    leaf = parameters[layer][kind]
    moved = jax.device_put(np.asarray(leaf) + step * direction, leaf.sharding)
    return float(loss({**parameters, layer: {**parameters[layer], kind: moved}}))


def difference(along: Callable[[float], float], base: float, step: float) -> tuple[float, float]:
    """(step, slope at 0) of a function that is `base` at 0, by differences over a step or smaller ones.

    Taken is the first step at which the differences ahead and behind agree, that is with no kink within it, or the one where
    they agree best.
    """
    tried = []
    for _ in range(ATTEMPTS):
        ahead, behind = (along(step) - base) / step, (base - along(-step)) / step
        tried.append((abs(ahead - behind), step, (ahead + behind) / 2))
        if tried[-1][0] <= AGREEMENT * abs(tried[-1][2]):
            break
        step /= 10
    return min(tried)[1:]


def _batch(table: Table, number: int, deviation: float, seed: int) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Images float64 [channels, height, width, batch], labels int32 [batch] and dropout masks."""
    height, width, channels = table.image
    draw = _numbers(seed, 2)
    images = deviation * draw.standard_normal((channels, height, width, number))
    labels = draw.integers(0, table.classes, number, np.int32)
    masks = jax.jit(lambda key: dropout_masks(table, key, number))(jax.random.key(seed))
    return jax.device_put(images), jax.device_put(labels), masks


def _first_step(base: float, leaf: np.ndarray, gradient: np.ndarray) -> float:
    """How far to move along directions of signs, whose slopes have the gradient's norm as their standard deviation."""
    largest = LARGEST * float(np.sqrt(np.mean(np.square(leaf))))
    slope = float(np.linalg.norm(gradient))
    return min(largest, CHANGE * base / slope) if slope else largest


def _shown(found: Slopes) -> Slopes:
    slope = np.sqrt(np.mean(np.square(found.analytic)))
    print(f"{found.leaf:16s}{found.size:12,d}  {slope:9.2e}  {found.step:8.1e}  {found.error:.1e}", flush=True)
    return found


def _judge(found: list[Slopes]) -> None:
    wrong = [each.leaf for each in found if not each.error <= TOLERANCE]  # nan is wrong too: nothing was compared
    if wrong:
        raise RunError(
            f"{len(wrong)} of {len(found)} gradients are not the slope of the loss to {TOLERANCE:g}: {', '.join(wrong)}. "
            "Repeat it with another --train.seed: a wrong gradient stays wrong, an unlucky kink goes away."
        )
    worst = max(found, key=lambda each: each.error)
    print(
        f"\nAll {len(found)} gradients are the slope of the loss: the largest relative error is {worst.error:.1e} ({worst.leaf})."
    )
