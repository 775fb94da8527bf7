"""What a sweep is: a base experiment, arms that replace a few of its fields, and seeds; and the trials that follow from it.

This file knows no jax: a plan can be read, checked and listed without a device.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from alexnet_jax.checks import check
from alexnet_jax.data.classes import class_count
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten
from alexnet_jax.network import networks

BASE, CONTROL = "base", "control"
"""Two arms every sweep has: the base as it is, and the base once more with other seeds (an A/A control)."""

ALPHA = 0.05
"""Significance level of the tests."""

CONTROL_SEEDS = 1000
"""The control's seeds are the base's plus this."""


@dataclass(frozen=True)
class Arm:
    """One variant: fields of the base replaced, by their names on the command line, or whole sections of it."""

    name: str
    changes: dict[str, Any]
    reason: str
    published: str = ""
    """What is known of it, with the source and the original program's net."""
    effect: float | None = None
    """Published difference to the base in points of top-1 error; positive is worse."""


@dataclass(frozen=True)
class Sweep:
    """A question, and everything about how it will be answered that must be fixed before the first trial runs."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    base: str = "alexnet_cifar"
    """Experiment all arms start from."""
    common: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields replaced in the base itself, and so in every arm."""
    margin: float = 1.0
    """The smallest difference that matters, in points of top-1 error."""
    milestone: float | None = None
    """A training error; the report says how many epochs each arm took to fall to it."""


@dataclass(frozen=True)
class SweepOptions:
    """Which part of a sweep to run, and where."""

    seeds: int | None = None
    """Trainings of each arm, and of the control; equal seeds are compared with each other. Left out: at least six, and as
    many as the test needs to find anything beside so many arms."""
    arms: str = ""
    """Names separated by commas; empty: all of them. The base and its control always run."""
    epochs: float | None = None
    """Epochs of every arm, in place of the base's."""
    base: str | None = None
    """Another experiment to start from, such as alexnet_imagenet."""
    engine: Literal["here", "ray"] = "here"
    """here: one after another in this process. ray: handed to Ray (requirements-cluster.txt)."""
    address: str | None = None
    """Of a Ray cluster, such as ray://host:10001 or auto; left out: Ray on this machine."""
    retry: bool = False
    """Try the trials again that diverged or failed."""


@dataclass(frozen=True)
class Trial:
    """One training of one arm."""

    arm: str
    seed: int
    experiment: Experiment
    folder: Path
    """The run's folder. Trials of equal mathematics share it, whatever sweep they belong to."""
    problem: str = ""
    """Why the arm cannot be trained at all, if so."""


@dataclass(frozen=True)
class Plan:
    """A sweep with its base resolved, and the part of it that was asked for."""

    sweep: Sweep
    base: Experiment
    arms: tuple[Arm, ...]
    seeds: int
    folder: Path

    @property
    def rows(self) -> tuple[Arm, ...]:
        """The base, its control and the arms."""
        reason = "what the arms are compared with"
        return (
            Arm(BASE, {}, reason),
            Arm(CONTROL, {}, "the base with other seeds: must differ by chance only"),
            *self.arms,
        )

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds of an arm, in the order in which they are compared with the base's."""
        first = self.base.train.seed + (CONTROL_SEEDS if arm == CONTROL else 0)
        return list(range(first, first + self.seeds))

    def trials(self) -> Iterator[Trial]:
        """Seed by seed, so that a sweep that is stopped half-way has compared all arms on fewer seeds."""
        for number in range(self.seeds):
            for arm in self.rows:
                yield self.trial(arm, self.seeds_of(arm.name)[number])

    @functools.cached_property
    def problems(self) -> dict[str, str]:
        """{arm: why it cannot be trained, or would count twice in the tests}, of those arms where that is so."""
        found, seen = {}, {digest(self.base): BASE}
        for arm in self.rows:
            try:
                experiment = changed(self.base, arm.changes | {"train.seed": self.seeds_of(arm.name)[-1]})
                check(experiment)
                networks.build(experiment.network, class_count(experiment.data))
            except UsageError as problem:
                found[arm.name] = str(problem)
                continue
            twin = seen.setdefault(digest(experiment), arm.name)
            if arm.changes and twin == BASE:
                found[arm.name] = f"The arm {arm.name} changes nothing: {self.base.name} has its values already."
            elif arm.changes and twin != arm.name:
                found[arm.name] = f"The arm {arm.name} is the same as {twin} where {self.base.name} is the base."
        return found

    def trial(self, arm: Arm, seed: int) -> Trial:
        """One training; one that cannot be says why."""
        problem, experiment = self.problems.get(arm.name, ""), self.base
        if not problem:
            experiment = changed(self.base, arm.changes | {"train.seed": seed})
        title = f"{self.base.name}: {arm.name}, seed {seed}"
        experiment = dataclasses.replace(experiment, name=title)
        key = digest(experiment) if not problem else f"{arm.name}-impossible"  # nothing is ever written there
        return Trial(arm.name, seed, experiment, self.folder.parent / "trials" / key / f"seed{seed}", problem)


@dataclass(frozen=True)
class SweepRequest:
    """A command line that names a sweep, read and checked."""

    plan: Plan
    options: SweepOptions
    shipped: Experiment  # the base as its file has it, before any option
    command: str
    overwrite: bool = False


def choose(sweep: Sweep, names: str) -> tuple[Arm, ...]:
    """The arms named, in the sweep's order; all of them when none is. Raises UsageError for a name that is none."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [arm.name for arm in sweep.arms]
    for name in wanted:
        if name not in (*known, BASE, CONTROL):
            raise UsageError(f"--sweep.arms={names}: {sweep.name} has no arm {name!r}. There are: {', '.join(known)}.")
    return tuple(arm for arm in sweep.arms if not wanted or arm.name in wanted)


def changed(experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    """The experiment with fields replaced, {'network.pooling': 'non_overlapping'}, or a section, {'network': Network(...)}.

    Raises UsageError for a field or a value that its record does not know.
    """
    for option, value in changes.items():
        section, _, name = option.partition(".")
        if not name and type(value) is type(getattr(experiment, section, None)):  # a whole record
            experiment = dataclasses.replace(experiment, **{section: value})
            continue
        record = getattr(experiment, section, None)
        known = get_type_hints(type(record)) if dataclasses.is_dataclass(record) else {}
        if name not in known:
            raise UsageError(f"An arm changes {option}, which is no option. --help shows them all.")
        if get_origin(known[name]) is Literal and value not in get_args(known[name]):
            choices = ", ".join(map(str, get_args(known[name])))
            raise UsageError(f"An arm sets {option} to {value!r}; expected one of {choices}.")
        replaced = dataclasses.replace(record, **{name: value})  # type: ignore[type-var]
        experiment = dataclasses.replace(experiment, **{section: replaced})
    return experiment


def digest(experiment: Experiment) -> str:
    """A folder's name that is the same for the same mathematics: seeds, and fields that leave it alone, do not count.

    Only what differs from the defaults enters, so that an option added later does not move what was trained before.
    """
    usual = flatten(Experiment("defaults"))
    own = {k: v for k, v in flatten(experiment).items() if v != usual[k] and k not in MAY_DIFFER | {"train.seed"}}
    own = {k: float(v) if type(usual[k]) is float or k == "train.epochs" else v for k, v in own.items()}  # 11 is 11.0
    code = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:10]
    return f"{experiment.network.name}-{code}"


# --- what a number of seeds can show ---------------------------------------------------------------------------------

def smallest_p(seeds: int, family: int) -> float:
    """Return the smallest p that the exact sign-flip test of `seeds` pairs can give, corrected over `family` arms (Holm)."""
    return min(1.0, family * 2 / 2**seeds)


def seeds_needed(family: int, alpha: float = ALPHA) -> int:
    """Return the smallest number of seeds whose `smallest_p` is below `alpha`."""
    return next(seeds for seeds in range(1, 1000) if smallest_p(seeds, family) < alpha)


def reach(seeds: int, family: int) -> str:
    """Return a sentence on what the test can find with this number of seeds and arms."""
    some = f"{seeds} seed{'s' * (seeds != 1)}"
    p = f"after Holm's correction over {family} arm{'s' * (family != 1)}, is {smallest_p(seeds, family):.3g}"
    if smallest_p(seeds, family) < ALPHA:
        return f"With {some} the smallest p this test can give, {p}."
    needed = seeds_needed(family)
    return f"With {some} this test cannot reach p < {ALPHA} (its smallest p, {p}); {needed} can."
