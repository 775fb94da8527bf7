"""`--mode=gradcheck`: compare the gradients of training with finite differences of the loss, in float64, leaf by leaf.

The original program perturbed every weight of a matrix and required ||numeric - analytic|| / ||analytic|| < 0.02 in float32.
Float64 permits a tolerance that is three digits tighter. This check moves all weights of a leaf along random directions of
signs: two losses per direction test the complete leaf, because one wrong derivative changes the slope along every direction.
Perturbing each of 60 million weights would take a year.

The check needs no data set. Its images are noise with the deviation of normalized images. Fresh parameters have He's scale: after
layers of N(0, 0.01) the gradients of a narrow network would be smaller than the rounding of the loss. The loss has no derivative
at a kink, such as a ReLU at zero; nonzero biases keep units with zero inputs away from it. A step may still cross a kink, since
AlexNet has 650,000 units. Then the slopes ahead and behind differ, and smaller steps are tried. The analytic gradient does not
influence the choice of the step.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from alexnet_jax import assembly
from alexnet_jax.errors import RunError
from alexnet_jax.model import Parameters, abstract, dropout_masks, initialize, loss_and_gradients
from alexnet_jax.modes import Request
from alexnet_jax.network.placement import Placement
from alexnet_jax.network.table import Table
from alexnet_jax.processes.devices import set_up_devices
from alexnet_jax.run.restore import restore_parameters

TOLERANCE = 1e-5
"""Largest accepted relative error of a leaf."""

EXAMPLES, DIRECTIONS = 2, 4
"""Images per data replica and random directions per leaf."""

CHANGE, LARGEST = 1e-8, 1e-3
"""The first step changes the loss by about the fraction CHANGE, but no weight by more than LARGEST times the leaf's root mean
square. Rounding causes a relative error of about 1e-16 / CHANGE, ten times as much after each smaller step."""

ATTEMPTS, AGREEMENT = 3, 5e-6
"""Number of steps, each a tenth of the previous one, and the relative agreement of the slopes ahead and behind that ends the
search. Rounding would dominate a fourth step."""

PIXELS = {"std": 1.0, "none": 64.0}
"""{--data.scale: standard deviation of the images}."""


@dataclasses.dataclass(frozen=True)
class Slopes:
    """The slopes of the loss along the random directions of one leaf."""

    leaf: str
    size: int
    step: float
    """The smallest step of a weight."""
    analytic: np.ndarray  # float64 [directions]
    numeric: np.ndarray  # float64 [directions]

    @property
    def error(self) -> float:
        """||numeric - analytic|| / max(||numeric||, ||analytic||); NaN if the loss does not change."""
        largest = max(np.linalg.norm(self.analytic), np.linalg.norm(self.numeric))
        return float(np.linalg.norm(self.numeric - self.analytic) / largest) if largest else float("nan")


def check(request: Request) -> None:
    """Print the relative error of every leaf. Raises RunError if one exceeds TOLERANCE or the loss does not change."""
    experiment = request.experiment
    set_up_devices(experiment)
    table = assembly.build_table(experiment)
    placement = assembly.make_placement(experiment)
    seed, deviation = experiment.train.seed, PIXELS[experiment.data.scale]
    if request.restore is None:
        described, parameters = f"{table.name}, fresh parameters.", fresh(table, placement, deviation, seed)
    else:
        where, parameters = restore_parameters(request.restore, request.workdir, abstract(table, placement))
        described = assembly.describe_trained(request, where, table)
    print(f"{described}\n{assembly.describe(placement)}, {DIRECTIONS} random directions per leaf\n")
    print(f"{'leaf':16s}{'parameters':>12s}  {'slope':>9s}  {'step':>8s}  relative error")
    with jax.enable_x64(True):
        found = [_printed(each) for each in slopes(table, placement, parameters, deviation, seed)]
    judge(found)


def fresh(table: Table, placement: Placement, deviation: float, seed: int) -> Parameters:
    """Return parameters with He's weights, N(0, 0.01) added to biases, and logits of about 1; deviation: that of the images."""
    he = tuple(dataclasses.replace(spec, weight_std="he") for spec in table.layers)
    parameters = initialize(dataclasses.replace(table, layers=he), jax.random.key(seed), placement)
    noise = _numbers(seed, 0)
    for leaves in parameters.values():
        off = np.asarray(leaves["bias"]) + 0.01 * noise.standard_normal(leaves["bias"].shape, np.float32)
        leaves["bias"] = jax.device_put(off, leaves["bias"].sharding)
    parameters[table.layers[-1].name]["kernel"] /= deviation
    return parameters


def _numbers(seed: int, stream: int) -> np.random.Generator:
    """Return a NumPy generator; jax would compile a program for the shape of every leaf."""
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def slopes(table: Table, placement: Placement, parameters: Parameters, deviation: float, seed: int) -> Iterator[Slopes]:
    """Yield the slopes of every leaf. Requires jax.enable_x64. deviation: standard deviation of the images."""
    number = EXAMPLES * placement.replicas * placement.slices
    batch, signs = _batch(table, number, deviation, seed), _numbers(seed, 1)
    evaluate = functools.partial(loss_and_gradients, table, placement)
    parameters = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf.astype("float64"), tree))(parameters)
    _, gradients = jax.jit(evaluate)(parameters, *batch)
    # XLA removes the operations that only the gradients need.
    loss = jax.jit(lambda parameters: evaluate(parameters, *batch)[0][0])
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
    """Return the loss with one leaf moved by step * direction."""
    leaf = parameters[layer][kind]
    moved = jax.device_put(np.asarray(leaf) + step * direction, leaf.sharding)
    return float(loss({**parameters, layer: {**parameters[layer], kind: moved}}))


def difference(along: Callable[[float], float], base: float, step: float) -> tuple[float, float]:
    """Return (step, slope at 0) of the function `along`, whose value at 0 is `base`.

    The result is the central difference over the first step whose slopes ahead and behind agree, so that no kink is within it,
    or over the step where they agree best.
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
    """Return images float64 [channels, height, width, batch], labels int32 [batch] and dropout masks."""
    height, width, channels = table.image
    draw = _numbers(seed, 2)
    images = deviation * draw.standard_normal((channels, height, width, number))
    labels = draw.integers(0, table.classes, number, np.int32)
    masks = jax.jit(lambda key: dropout_masks(table, key, number))(jax.random.key(seed))
    return jax.device_put(images), jax.device_put(labels), masks


def _first_step(base: float, leaf: np.ndarray, gradient: np.ndarray) -> float:
    """Return the first step. Slopes along random signs have the norm of the gradient as their standard deviation."""
    largest = LARGEST * float(np.sqrt(np.mean(np.square(leaf))))
    slope = float(np.linalg.norm(gradient))
    return min(largest, CHANGE * base / slope) if slope else largest


def _printed(found: Slopes) -> Slopes:
    slope = np.sqrt(np.mean(np.square(found.analytic)))
    print(f"{found.leaf:16s}{found.size:12,d}  {slope:9.2e}  {found.step:8.1e}  {found.error:.1e}", flush=True)
    return found


def judge(found: list[Slopes]) -> None:
    """Print the largest relative error. Raises RunError if an error exceeds TOLERANCE or is NaN."""
    wrong = [each.leaf for each in found if not each.error <= TOLERANCE]  # also NaN
    if wrong:
        raise RunError(
            f"{len(wrong)} of {len(found)} gradients differ from the slope of the loss by more than {TOLERANCE:g}: "
            f"{', '.join(wrong)}. Repeat with another --train.seed: a wrong gradient fails again, a kink does not."
        )
    worst = max(found, key=lambda each: each.error)
    largest = f"the largest relative error is {worst.error:.1e} ({worst.leaf})"
    print(f"\nAll {len(found)} gradients equal the slope of the loss; {largest}.")
