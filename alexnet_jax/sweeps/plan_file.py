"""sweep.json: the plan of a sweep, written before its first trial. It grows when more is requested and never shrinks."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten
from alexnet_jax.run.records import from_values, read_record
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.sweeps import trials
from alexnet_jax.sweeps.analysis.comparison import Growth
from alexnet_jax.sweeps.plan import Arm, Plan, SweepRequest

PLAN = "sweep.json"
DELETE = "Delete it to plan again; the trials are kept."
ANOTHER = "another --workdir, or --overwrite to forget its plan (trials are kept)."


@dataclass(frozen=True)
class SavedPlan:
    """The content of sweep.json. Later commands may change only the question and reasons of arms."""

    sweep: str
    question: str
    margin: float
    milestone: float | None
    base: Experiment
    arms: tuple[Arm, ...]
    seeds: int
    command: str
    history: tuple[Growth, ...] = ()


def read(folder: Path) -> SavedPlan | None:
    """Return the plan in the folder of a sweep; None if there is none. Raises RunError when it is damaged."""
    return read_record(SavedPlan, folder / PLAN, DELETE)


def write(request: SweepRequest) -> None:
    """Write the requested plan, merged with the earlier plan of the folder.

    Raises UsageError when the folder holds a run or another sweep, RunError when its plan is damaged.
    """
    workdir = Workdir(request.plan.folder)
    if workdir.record() is not None:
        raise UsageError(f"{workdir.path} holds the run of an experiment. Choose another --workdir for the sweep.")
    with workdir.locked(wait=True):
        if request.overwrite:
            for name in (PLAN, "report.md", "arms.csv", "trials.csv"):
                (workdir.path / name).unlink(missing_ok=True)
        before = read(workdir.path)
        files.write_json(workdir.path / PLAN, dataclasses.asdict(_saved(request, before)))


def _saved(request: SweepRequest, before: SavedPlan | None) -> SavedPlan:
    plan = merged(request.plan, before)
    whole = (plan.arms, plan.seeds) == (request.plan.arms, request.plan.seeds)
    return SavedPlan(
        sweep=plan.sweep.name,
        question=plan.sweep.question,
        margin=plan.sweep.margin,
        milestone=plan.sweep.milestone,
        base=plan.base,
        arms=plan.arms,
        seeds=plan.seeds,
        command=request.command if whole or before is None else before.command,
        history=_history(plan, before),
    )


def _history(plan: Plan, before: SavedPlan | None) -> tuple[Growth, ...]:
    names, history = tuple(arm.name for arm in plan.arms), before.history if before else ()
    if before and (plan.seeds, names) == (before.seeds, tuple(arm.name for arm in before.arms)):
        return history
    finished = sum(trials.state(trial)[0] == "finished" for trial in plan.trials())
    return (*history, Growth(time.strftime("%Y-%m-%d %H:%M"), plan.seeds, names, finished))


def merged(plan: Plan, before: SavedPlan | None) -> Plan:
    """Merge a plan with the one in its folder, if any. Raises UsageError when they contradict each other."""
    if before is None:
        return plan
    sweep = plan.sweep
    old = _fixed(before.sweep, before.margin, before.milestone, before.base)
    new = _fixed(sweep.name, sweep.margin, sweep.milestone, plan.base)
    differing = [
        f"  {name}: {old[name]} recorded, {value} requested" for name, value in new.items() if old[name] != value
    ]
    if differing:
        listed = "\n".join([f"{plan.folder} holds another sweep:", *differing])
        raise UsageError(f"{listed}\nGive the same options to continue it, {ANOTHER}")
    current = {arm.name: _as_saved(arm).changes for arm in sweep.arms}
    for arm in before.arms:
        if current.get(arm.name) != arm.changes:
            raise UsageError(
                f"{plan.folder} was begun with an arm {arm.name} of {arm.changes}; the sweep's file now has "
                f"{current.get(arm.name)}. Give the arm another name, {ANOTHER}"
            )
    names = {arm.name for arm in (*before.arms, *plan.arms)}
    arms = tuple(arm for arm in sweep.arms if arm.name in names)
    return dataclasses.replace(plan, arms=arms, seeds=max(plan.seeds, before.seeds))


def _fixed(sweep: str, margin: float, milestone: float | None, base: Experiment) -> dict[str, Any]:
    """Return what later commands must repeat, by the names of the options."""
    own = {"sweep": sweep, "margin": margin, "milestone": milestone}
    return own | {k: v for k, v in flatten(base).items() if k not in MAY_DIFFER}


def _as_saved(arm: Arm) -> Arm:
    """Return an arm as it is read back from JSON, in which records and tuples become plain values."""
    return from_values(Arm, json.loads(json.dumps(dataclasses.asdict(arm))))
