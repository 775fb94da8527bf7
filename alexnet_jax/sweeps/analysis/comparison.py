"""The comparison of an arm with the base: differences paired by seed, their tests, and what the tests can detect.

This file does not import jax, so that a finished sweep can be read without a device. Errors of cells are fractions; every
number of a `Comparison` is in percentage points of top-1 error.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from alexnet_jax.errors import RunError
from alexnet_jax.run.records import Environment, Line
from alexnet_jax.sweeps.analysis import inference
from alexnet_jax.sweeps.plan import ALPHA, Arm

Status = Literal["finished", "diverged", "failed", "planned"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Growth:
    """One enlargement of a sweep's plan, or its first plan."""

    time: str
    seeds: int
    arms: tuple[str, ...]
    finished: int
    """Number of trials that had finished by then."""


@dataclass(frozen=True)
class Cell:
    """The state and the measurements of one trial: an arm trained with a seed."""

    arm: str
    seed: int
    status: Status
    message: str = ""
    """Why the trial diverged or failed."""
    folder: str = ""
    top1_error: float | None = None
    """Fraction of the test images, after the final epoch; likewise top5_error."""
    top5_error: float | None = None
    seconds: float | None = None
    """Wall time of the training."""
    step_seconds: float | None = None
    """Time of the steps alone, at their median speed, without compilation, evaluations and checkpoints."""
    milestone: float | None = None
    """Epochs until the training error fell to the sweep's milestone; None if it did not, or without a milestone."""
    wrong: np.ndarray | None = field(default=None, compare=False, repr=False)
    """bool [test images]: whether the most probable class was wrong."""
    metrics: list[Line] = field(default_factory=list, compare=False, repr=False)
    """The lines of `metrics.read_metrics`."""


@dataclass(frozen=True)
class Comparison:
    """One arm against the base, in points of top-1 error; positive differences mean that the arm is worse.

    Fields that need two paired seeds are None with fewer; `difference` is None with none. When all differences are equal, the
    t tests take their limit, an interval of width zero.
    """

    arm: str
    seeds: tuple[int, ...]
    """The seeds of the base in the pairs of which both trials finished."""
    mean: float | None
    """Mean error of the arm's finished trials, paired or not; likewise their std, None with fewer than two."""
    std: float | None
    difference: float | None
    """Mean of the paired differences, arm minus base."""
    interval: tuple[float, float] | None = None
    """95 % t interval of `difference`: its variation over seeds."""
    p: float | None = None
    """p of the two-sided sign-flip test; exact up to 13 pairs (`is_exact`)."""
    p_holm: float | None = None
    """`p` corrected over all arms of the sweep, including those without a result; None for the control."""
    correlation: float | None = None
    """Pearson's r between base and arm over the pairs. None for fewer than three pairs or without spread."""
    image_interval: tuple[float, float] | None = None
    """95 % bootstrap interval of `difference` over test images: its variation over images for the same trained networks."""
    equivalence_p: float | None = None
    """p of two one-sided t tests that the difference lies within the margin."""
    equivalence_interval: tuple[float, float] | None = None
    """90 % t interval of `difference`: it is within the margin exactly if the two one-sided tests give p < 0.05."""
    detectable: float | None = None
    """The difference that the verdict (sign-flip test, corrected over the arms) detects with power 0.8 for this number of pairs
    and this spread. None if it can detect none."""
    verdict: Verdict = "undecided"


def compare(
    cells: Mapping[str, Sequence[Cell]], base: str, arms: Sequence[str], control: str | None, margin: float
) -> list[Comparison]:
    """Compare each of `arms`, then the control, with the base; `base` and `control` are skipped among `arms`.

    `cells` are all trials by arm, including planned and failed ones. The seeds of the control differ from those of the base,
    so they are paired in ascending order. `margin`, in points, is the smallest difference that matters. Raises RunError when
    two paired trials were tested on different numbers of images.
    """
    family = [arm for arm in dict.fromkeys(arms) if arm not in (base, control)]
    others = family if control is None else [*family, control]
    pairs = {arm: paired(cells.get(base, ()), cells.get(arm, ()), by_position=arm == control) for arm in others}
    tests = {arm: inference.sign_flip(differences(found)) if len(found) > 1 else None for arm, found in pairs.items()}
    holm = inference.holm({arm: tests[arm] for arm in family})
    sizes = {arm: len(family) if arm in family else 1 for arm in others}
    return [
        _comparison(arm, cells.get(arm, ()), pairs[arm], margin, tests[arm], holm.get(arm), sizes[arm]) for arm in others
    ]


def paired(base: Sequence[Cell], arm: Sequence[Cell], by_position: bool = False) -> list[tuple[Cell, Cell]]:
    """Return pairs (base, arm) of finished trials with equal seeds, or with the same position in ascending order of seeds."""
    if by_position:
        couples = list(zip(sorted(base, key=_seed), sorted(arm, key=_seed), strict=False))
    else:
        partners = {cell.seed: cell for cell in arm}
        couples = [(cell, partners[cell.seed]) for cell in sorted(base, key=_seed) if cell.seed in partners]
    return [(one, other) for one, other in couples if measured(one) and measured(other)]


def differences(pairs: list[tuple[Cell, Cell]]) -> np.ndarray:
    """Return float [pairs]: arm minus base, in points."""
    return np.array([round(_error(arm) - _error(base), 9) for base, arm in pairs], float)


def measured(cell: Cell) -> bool:
    """Return whether a trial finished and has a test error."""
    return cell.status == "finished" and cell.top1_error is not None


def points(cells: Sequence[Cell]) -> np.ndarray:
    """Return float [measured cells]: their top-1 errors in points, in the given order."""
    return np.array([_error(cell) for cell in cells if measured(cell)], float)


def spread(values: np.ndarray) -> tuple[float | None, float | None]:
    """Return the mean and the sample standard deviation of values [n]; None for fewer than one and two values."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def _seed(cell: Cell) -> int:
    return cell.seed


def _comparison(
    arm: str,
    cells: Sequence[Cell],
    pairs: list[tuple[Cell, Cell]],
    margin: float,
    p: float | None,
    holm: float | None,
    family: int,
) -> Comparison:
    found = differences(pairs)
    difference, deviation = spread(found)
    head = Comparison(arm, tuple(base.seed for base, _ in pairs), *spread(points(cells)), difference)
    if difference is None or deviation is None or p is None:
        return head
    equivalence_p = inference.equivalence(found, margin)
    verdict: Verdict = "equivalent" if equivalence_p < ALPHA else "undecided"
    if (p if holm is None else holm) < ALPHA:
        verdict = "worse" if difference > 0 else "better"
    return dataclasses.replace(
        head,
        interval=inference.interval(found),
        p=p,
        p_holm=holm,
        correlation=_correlation(pairs),
        image_interval=_image_interval(pairs),
        equivalence_p=equivalence_p,
        equivalence_interval=inference.interval(found, 1 - 2 * ALPHA),
        detectable=None if (effect := inference.effect_size(len(pairs), family)) is None else deviation * effect,
        verdict=verdict,
    )


def _error(cell: Cell) -> float:
    # Rounded, so that 0.3 - 0.2 equals 0.2 - 0.1: the sign-flip test depends on ties.
    return round(100 * (cell.top1_error or 0.0), 9)


def _correlation(pairs: list[tuple[Cell, Cell]]) -> float | None:
    return inference.correlation(points([one for one, _ in pairs]), points([other for _, other in pairs]))


def _image_interval(pairs: list[tuple[Cell, Cell]]) -> tuple[float, float] | None:
    both = [(arm.wrong, base.wrong) for base, arm in pairs if arm.wrong is not None and base.wrong is not None]
    if len(both) < len(pairs):
        return None
    sizes = sorted({len(wrong) for pair in both for wrong in pair})
    if len(sizes) > 1:
        raise RunError(
            f"{pairs[0][1].arm}: its trials and the base's were tested on {' and '.join(map(str, sizes))} images, "
            "expected one test set. Run the arm again with the test images of the base, or remove it from the sweep."
        )
    values = 100 * np.mean([np.subtract(arm, base, dtype=float) for arm, base in both], axis=0)
    return inference.bootstrap(values)


# --- a whole sweep ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmFacts(Arm):
    """An arm with the size of its network; `changes` are the options in which it differs from the base."""

    parameters: int | None = None
    operations: int | None = None
    """Multiplications and additions of the forward pass of one image."""


@dataclass(frozen=True)
class Study:
    """The plan of a sweep and its trials so far: everything that its report is made of."""

    name: str
    question: str
    base_arm: str
    control: str | None
    """Name of the arm that is the base with other seeds, or None."""
    arms: tuple[ArmFacts, ...]
    """All arms. The base and the control may be among them; they are not tested as arms."""
    margin: float
    """The smallest difference that matters, in points of top-1 error."""
    milestone: float | None
    """Training error (a fraction) whose first epoch is compared between arms, or None."""
    base: str
    """The experiment that is the base, and the options in which it differs from its file, in words."""
    data_title: str
    seeds: tuple[int, ...]
    epochs: float
    cells: list[Cell]
    """Every trial; those that did not run yet have the status planned."""
    environments: list[Environment]
    """The environment of every finished trial."""
    command: str
    history: tuple[Growth, ...] = ()
    """How the plan grew, the first plan first."""

    def family(self) -> list[str]:
        """Return the arms whose tests are corrected together: all but the base and the control."""
        return [arm.name for arm in self.arms if arm.name not in (self.base_arm, self.control)]

    def by_arm(self) -> dict[str, list[Cell]]:
        """Return the trials by arm: the base, the family, the control, then arms that only cells name."""
        names = [self.base_arm, *self.family(), *([self.control] if self.control else [])]
        names = dict.fromkeys([*names, *(cell.arm for cell in self.cells)])
        return {name: [cell for cell in self.cells if cell.arm == name] for name in names}

    def facts(self, arm: str) -> ArmFacts:
        """Return the facts of an arm; if it is not in `arms`, its name and its role."""
        parts = {self.base_arm: "the base", self.control: "the base with other seeds: the effect of chance alone"}
        return next((a for a in self.arms if a.name == arm), ArmFacts(arm, {}, parts.get(arm, "")))
