"""A sweep as planned and as far as it got: all that its report is made from."""

from dataclasses import dataclass, field
from typing import Any

from alexnet_jax.run.records import Environment
from alexnet_jax.sweeps.comparison import Cell
from alexnet_jax.sweeps.plan import Arm


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
