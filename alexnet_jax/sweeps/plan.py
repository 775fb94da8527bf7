"""What a sweep is: a base experiment, arms that replace a few of its fields, and seeds; and the trials that follow.

This file does not import jax: a plan can be read, checked and listed without a device.
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
from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, fits, flatten
from alexnet_jax.network import networks
from alexnet_jax.suggestions import question

BASE, CONTROL = "base", "control"
"""Two arms of every sweep: the base, and the base again with other seeds (an A/A control)."""

ALPHA = 0.05
"""Significance level of the tests."""

CONTROL_SEEDS = 1000
"""The seeds of the control are those of the base plus this."""


@dataclass(frozen=True)
class Arm:
    """One variant of the base: replaced fields, by their names on the command line, or whole sections."""

    name: str
    changes: dict[str, Any]
    reason: str
    published: str = ""
    """The published effect in words, with its source and the network of the original program."""
    effect: float | None = None
    """The published difference from the base in points of top-1 error; positive is worse."""


@dataclass(frozen=True)
class Sweep:
    """A question, and everything about its answer that must be fixed before the first trial runs."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    base: str = "alexnet_cifar"
    """The experiment that all arms start from."""
    common: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields replaced in the base itself, and thereby in every arm."""
    margin: float = 1.0
    """The smallest difference that matters, in points of top-1 error."""
    milestone: float | None = None
    """A training error; the report states after how many epochs each arm fell to it."""


@dataclass(frozen=True)
class SweepOptions:
    """Which part of a sweep to run, and where."""

    seeds: int | None = None
    """Number of seeds of each arm and of the control; trials with equal seeds are compared. Default: the smallest number with
    which the test can reach p < 0.05 for this number of arms."""
    arms: str = ""
    """Names of arms, separated by commas; empty: all arms. The base and the control always run."""
    epochs: float | None = None
    """Epochs of every arm. Default: those of the base."""
    base: str | None = None
    """The experiment to start from, such as alexnet_imagenet. Default: that of the sweep."""
    engine: Literal["here", "ray"] = "here"
    """here: run the trials one after another in this process. ray: submit them to Ray (requirements-cluster.txt)."""
    address: str | None = None
    """Address of a Ray cluster, such as ray://host:10001 or auto. Default: Ray on this machine."""
    retry: bool = False
    """Repeat the trials that diverged or failed."""


@dataclass(frozen=True)
class Trial:
    """One training of one arm."""

    arm: str
    seed: int
    experiment: Experiment
    folder: Path
    """The folder of the run. Trials with equal mathematics share it across sweeps."""
    problem: str = ""
    """Why the arm cannot be trained; empty if it can."""


@dataclass(frozen=True)
class Plan:
    """A sweep with its base, and the part of it that was requested."""

    sweep: Sweep
    base: Experiment
    arms: tuple[Arm, ...]
    seeds: int
    folder: Path

    @property
    def rows(self) -> tuple[Arm, ...]:
        """The base, its control and the arms."""
        reason = "the arms are compared with it"
        return (
            Arm(BASE, {}, reason),
            Arm(CONTROL, {}, "the base with other seeds: must differ by chance only"),
            *self.arms,
        )

    def seeds_of(self, arm: str) -> list[int]:
        """Return the seeds of an arm, in the order in which they are compared with those of the base."""
        first = self.base.train.seed + (CONTROL_SEEDS if arm == CONTROL else 0)
        return list(range(first, first + self.seeds))

    def trials(self) -> Iterator[Trial]:
        """Yield the trials seed by seed, so that a sweep that is stopped early compares all arms on fewer seeds."""
        for number in range(self.seeds):
            for arm in self.rows:
                yield self.trial(arm, self.seeds_of(arm.name)[number])

    @functools.cached_property
    def problems(self) -> dict[str, str]:
        """{arm: why it cannot be trained, or would count twice in the tests}, for arms with such a problem."""
        found, seen = {}, {digest(self.base): BASE}
        for arm in self.rows:
            try:
                experiment = changed(self.base, arm.changes | {"train.seed": self.seeds_of(arm.name)[-1]})
                check(experiment)
                networks.build(experiment.network, class_count(experiment.data), experiment.data.crop)
            except UsageError as problem:
                found[arm.name] = str(problem)
                continue
            twin = seen.setdefault(digest(experiment), arm.name)
            if arm.changes and twin == BASE:
                found[arm.name] = f"The arm {arm.name} changes nothing: {self.base.name} has these values already."
            elif arm.changes and twin != arm.name:
                found[arm.name] = f"The arm {arm.name} is the same as {twin} if the base is {self.base.name}."
        return found

    def trial(self, arm: Arm, seed: int) -> Trial:
        """Return the trial of an arm and a seed. If the arm cannot be trained, the trial has a `problem`."""
        problem, experiment = self.problems.get(arm.name, ""), self.base
        if not problem:
            experiment = changed(self.base, arm.changes | {"train.seed": seed})
        title = f"{self.base.name}: {arm.name}, seed {seed}"
        experiment = dataclasses.replace(experiment, name=title)
        key = digest(experiment) if not problem else f"{arm.name}-impossible"  # nothing is ever written there
        return Trial(arm.name, seed, experiment, self.folder.parent / "trials" / key / f"seed{seed}", problem)


@dataclass(frozen=True)
class SweepRequest:
    """A command line for a sweep that was read and checked."""

    plan: Plan
    options: SweepOptions
    shipped: Experiment  # the base as its file defines it, before any option
    command: str
    overwrite: bool = False
    given: frozenset[str] = frozenset()  # names of the options on the command line
    notes: tuple[str, ...] = ()  # sentences for the user, printed before the mode runs


def choose(sweep: Sweep, names: str) -> tuple[Arm, ...]:
    """Return the named arms in the order of the sweep, or all arms for no names. Raises UsageError for an unknown name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [arm.name for arm in sweep.arms]
    for name in wanted:
        if name not in (*known, BASE, CONTROL):
            raise UsageError(f"--sweep.arms={names}: {sweep.name} has no arm {name!r}. Expected {', '.join(known)}.")
    return tuple(arm for arm in sweep.arms if not wanted or arm.name in wanted)


def changed(experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    """Return the experiment with replaced fields, {'network.pooling': ...}, or sections, {'network': Network(...)}.

    Raises UsageError for an unknown field or value.
    """
    for option, value in changes.items():
        section, _, name = option.partition(".")
        if not name and type(value) is type(getattr(experiment, section, None)):  # a whole record
            experiment = dataclasses.replace(experiment, **{section: value})
            continue
        record = getattr(experiment, section, None)
        known = get_type_hints(type(record)) if dataclasses.is_dataclass(record) else {}
        if name not in known:
            hint = question(option, flatten(experiment)) or "--help prints all options."
            raise UsageError(f"A sweep changes {option}, which is not an option. {hint}")
        if not fits(value, known[name]):
            raise UsageError(f"A sweep sets {option} to {value!r}; expected {_expected(known[name])}.")
        replaced = dataclasses.replace(record, **{name: value})  # type: ignore[type-var]
        experiment = dataclasses.replace(experiment, **{section: replaced})
    return experiment


def _expected(hint: Any) -> str:
    """Describe the values of a type for a message."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)


def digest(experiment: Experiment) -> str:
    """Return a folder name that is equal for equal mathematics: seeds and fields of MAY_DIFFER do not enter.

    Only fields that differ from the defaults enter, so that an option added later does not rename earlier trials.
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
