"""How far an arm of a sweep lies from the base: differences paired by seed, their tests and what the tests can find.

scipy and statsmodels do the computing. This file knows no jax, so that a finished sweep can be read without a device.
Errors of cells are fractions from 0 to 1; everything a `Comparison` holds is in percentage points of top-1 error.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alexnet_jax.errors import RunError
from alexnet_jax.run.records import Environment, Line
from alexnet_jax.sweeps import inference
from alexnet_jax.sweeps.plan import ALPHA, Arm

Status = Literal["finished", "diverged", "failed", "planned"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Cell:
    """What became of one trial: an arm trained with a seed."""

    arm: str
    seed: int
    status: Status
    message: str = ""
    """Why it diverged or failed."""
    folder: str = ""
    top1_error: float | None = None
    """Fraction of the test images, after the final epoch; top5_error likewise."""
    top5_error: float | None = None
    seconds: float | None = None
    """Of the training, as the clock went on."""
    step_seconds: float | None = None
    """Of its steps alone, at their median speed: compilation, evaluations and saves say nothing of an arm."""
    milestone: float | None = None
    """Epochs until the training error had fallen to the sweep's milestone; None when it never did or was not asked."""
    wrong: np.ndarray | None = field(default=None, compare=False, repr=False)
    """bool [test images]: True where the first answer was wrong."""
    metrics: list[Line] = field(default_factory=list, compare=False, repr=False)
    """The lines of `metrics.read_metrics`."""


@dataclass(frozen=True)
class Comparison:
    """One arm against the base, in points of top-1 error; positive differences mean that the arm is worse.

    What needs two paired seeds is None with fewer, `difference` with none. Where all differences are equal the t tests are
    taken to their limit: an interval of no width.
    """

    arm: str
    seeds: tuple[int, ...]
    """The base's seeds of the pairs in which both trials finished."""
    mean: float | None
    """Of all the arm's finished trials, paired or not; std likewise, None with fewer than two."""
    std: float | None
    difference: float | None
    """Mean of the paired differences, arm minus base."""
    interval: tuple[float, float] | None = None
    """95 % t interval of `difference`: what other seeds may give."""
    p: float | None = None
    """Two-sided sign-flip test; exact up to 13 pairs (`is_exact`)."""
    p_holm: float | None = None
    """`p` corrected over all arms of the sweep, those without a result included; None for the control."""
    correlation: float | None = None
    """Pearson's r between base and arm across pairs: what pairing gains. None below three pairs or without spread."""
    image_interval: tuple[float, float] | None = None
    """95 % bootstrap interval of `difference` over test images, the trained networks given: what other images may give."""
    equivalence_p: float | None = None
    """Two one-sided t tests that the difference lies within the margin."""
    detectable: float | None = None
    """The difference a paired t test of so many pairs with this spread finds with power 0.8."""
    verdict: Verdict = "undecided"


def compare(
    cells: Mapping[str, Sequence[Cell]], base: str, arms: Sequence[str], control: str | None, margin: float
) -> list[Comparison]:
    """Each of `arms`, then the control, with the base; `base` and `control` among `arms` are passed over.

    `cells` are all trials by arm, planned and failed ones included: the control's seeds differ from the base's, so its
    i-th is paired with the base's i-th in order of seeds. `margin`, in points, is the smallest difference that matters.
    Raises RunError when two paired trials were tested on different numbers of images.
    """
    family = [arm for arm in dict.fromkeys(arms) if arm not in (base, control)]
    others = family if control is None else [*family, control]
    pairs = {arm: paired(cells.get(base, ()), cells.get(arm, ()), by_position=arm == control) for arm in others}
    tests = {arm: inference.sign_flip(differences(found)) if len(found) > 1 else None for arm, found in pairs.items()}
    holm = inference.holm({arm: tests[arm] for arm in family})
    return [_comparison(arm, cells.get(arm, ()), pairs[arm], margin, tests[arm], holm.get(arm)) for arm in others]


def paired(base: Sequence[Cell], arm: Sequence[Cell], by_position: bool = False) -> list[tuple[Cell, Cell]]:
    """Pairs (base, arm) of finished trials with equal seeds, or with the same place in the order of seeds."""
    if by_position:
        couples = list(zip(sorted(base, key=_seed), sorted(arm, key=_seed), strict=False))
    else:
        partners = {cell.seed: cell for cell in arm}
        couples = [(cell, partners[cell.seed]) for cell in sorted(base, key=_seed) if cell.seed in partners]
    return [(one, other) for one, other in couples if measured(one) and measured(other)]


def differences(pairs: list[tuple[Cell, Cell]]) -> np.ndarray:
    """float [pairs]: arm minus base, in points."""
    return np.array([round(_error(arm) - _error(base), 9) for base, arm in pairs], float)


def measured(cell: Cell) -> bool:
    """Whether the trial finished and has a test error."""
    return cell.status == "finished" and cell.top1_error is not None


def points(cells: Sequence[Cell]) -> np.ndarray:
    """float [measured cells]: their top-1 errors in points, in the given order."""
    return np.array([_error(cell) for cell in cells if measured(cell)], float)


def spread(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean, None without values, and sample standard deviation, None below two, of values [n]."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def _seed(cell: Cell) -> int:
    return cell.seed


def _comparison(
    arm: str, cells: Sequence[Cell], pairs: list[tuple[Cell, Cell]], margin: float, p: float | None, holm: float | None
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
        detectable=deviation * inference.effect_size(len(pairs)),
        verdict=verdict,
    )


def _error(cell: Cell) -> float:
    # Rounded, for 0.3 - 0.2 and 0.2 - 0.1 to be one difference: ties decide the sign-flip test.
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
            "expected one test set. Run the arm again with the base's test images, or take it out of the sweep."
        )
    values = 100 * np.mean([np.subtract(arm, base, dtype=float) for arm, base in both], axis=0)
    return inference.bootstrap(values)


# --- a whole sweep ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmFacts(Arm):
    """An arm, and what is known of it before it is trained; `changes` are the options that differ from the base."""

    parameters: int | None = None
    operations: int | None = None
    """Of one image, forward."""


@dataclass(frozen=True)
class Study:
    """A sweep as planned and as far as it got."""

    name: str
    question: str
    base_arm: str
    control: str | None
    """The arm that is the base with other seeds, or None."""
    arms: tuple[ArmFacts, ...]
    """The base and the control may be among them; they are not counted as arms to be tested."""
    margin: float
    """Points of top-1 error: the smallest difference that matters."""
    milestone: float | None
    """Training error (a fraction) whose first epoch is compared, or None."""
    base: str
    """What the base is: an experiment, and the options in which this sweep's base differs from its file."""
    data_title: str
    seeds: tuple[int, ...]
    epochs: float
    cells: list[Cell]
    """Every trial, those not yet made with the status planned."""
    environments: list[Environment]
    """One of every finished trial."""
    command: str
    history: list[dict[str, Any]] = field(default_factory=list)
    """How the plan grew: 'time', 'seeds', 'arms' and how many trials were 'finished' then; the first is the plan as begun."""

    def family(self) -> list[str]:
        """The arms whose tests are corrected together: all but the base and the control."""
        return [arm.name for arm in self.arms if arm.name not in (self.base_arm, self.control)]

    def by_arm(self) -> dict[str, list[Cell]]:
        """Trials by arm: the base, the family, the control, then arms that only cells name."""
        names = [self.base_arm, *self.family(), *([self.control] if self.control else [])]
        names = dict.fromkeys([*names, *(cell.arm for cell in self.cells)])
        return {name: [cell for cell in self.cells if cell.arm == name] for name in names}

    def facts(self, arm: str) -> ArmFacts:
        """Of an arm that `arms` leaves out, only the name and its part in the study."""
        parts = {self.base_arm: "the base", self.control: "the base with other seeds: how far chance alone goes"}
        return next((a for a in self.arms if a.name == arm), ArmFacts(arm, {}, parts.get(arm, "")))
