"""The modes of a sweep: list it, run it, report on it. The plan is written before the first trial runs."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import DataNotFoundError, RunError, UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten, from_json, to_json
from alexnet_jax.network import networks
from alexnet_jax.network.table import operation_count, parameter_count
from alexnet_jax.run.records import RunRecord
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.sweeps import engines, trials
from alexnet_jax.sweeps.comparison import ArmFacts, Study
from alexnet_jax.sweeps.estimate import estimate
from alexnet_jax.sweeps.plan import BASE, CONTROL, Arm, Plan, SweepRequest, Trial, reach
from alexnet_jax.sweeps.report import write_report

PLAN = "sweep.json"


def run(request: SweepRequest) -> None:
    """Write the plan, run the missing trials, write the report. The same command resumes the sweep.

    Raises RunError when no trial of the base finished, since then nothing was compared.
    """
    _check_data(request.plan.base)
    _write_plan(request)
    planned = list(request.plan.trials())
    if request.options.retry:
        for trial in planned:
            trials.forget(trial)
    todo = [trial for trial in planned if not trials.ended(trial)]
    print(
        f"{request.plan.sweep.name}: {len(planned)} trials, {len(planned) - len(todo)} of them done. {_outlook(request, todo)}"
    )
    try:
        if request.options.engine == "ray":
            engines.with_ray(todo, request.shipped, request.options.address)
        else:
            engines.here(todo, request.shipped)
    finally:
        print(f"\n{_report(request)}")
    base = [trials.state(trial) for trial in planned if trial.arm == BASE]
    if all(status in ("failed", "diverged") for status, _ in base):
        raise RunError(f"No trial of the base could be finished, so nothing was compared: {base[0][1]}")


def report(request: SweepRequest) -> None:
    """Write the report of the trials so far. Raises UsageError when the folder holds no sweep."""
    if not (request.plan.folder / PLAN).exists():
        raise UsageError(
            f"{request.plan.folder} holds no sweep yet. Run it first: the same command without --mode=report."
        )
    print(_report(request))


def dry_run(request: SweepRequest) -> None:
    """List the trials and estimate the time of those that are not done. Nothing is written."""
    planned = list(request.plan.trials())
    for trial in planned:
        state = f"impossible: {trial.problem}" if trial.problem else trials.state(trial)[0]
        print(f"{trial.arm:24s} seed {trial.seed:<6d} {state:10s} {trial.folder}")
    todo = [trial for trial in planned if not trials.ended(trial)]
    print(f"{len(planned)} trials, {len(planned) - len(todo)} of them need no training. {_outlook(request, todo)}")


def _outlook(request: SweepRequest, todo: list[Trial]) -> str:
    """Return an estimate of the time left, and a sentence on what the tests can find with this number of seeds."""
    plan = request.plan
    done = [trial for trial in plan.trials() if trials.ended(trial)]
    return f"{estimate(todo, done)}\n{reach(plan.seeds, max(1, len(plan.arms)))}"


def summarize(request: SweepRequest) -> None:
    """Print the question and the arms, with parameters and operations."""
    plan = request.plan
    print(f"{plan.sweep.name}: {plan.sweep.question}\n")
    for facts in (_facts(plan, arm) for arm in plan.rows):
        size = "cannot be built with this base"
        if facts.parameters and facts.operations:
            size = f"{facts.parameters:,} parameters, {facts.operations / 1e6:,.1f} M operations"
        changes = ", ".join(f"{k}={v}" for k, v in facts.changes.items()) or "-"
        print(f"{facts.name:24s} {changes}\n{'':24s} {facts.reason}; {size}")
        if facts.published:
            print(f"{'':24s} published effect: {facts.published}")


def _check_data(base: Experiment) -> None:
    """Raise DataNotFoundError: a sweep never replaces its data set by the digits on its own."""
    from alexnet_jax.data import registry

    try:
        registry.load(base.data)
    except DataNotFoundError as problem:
        raise DataNotFoundError(
            f"{problem}\n\nTo see the sweep at work on the digits that scikit-learn ships: --data.name=digits"
        ) from problem


# --- the plan on disk ------------------------------------------------------------------------------------------------


def _write_plan(request: SweepRequest) -> None:
    """Write sweep.json, merged with the earlier plan of the folder: a plan grows and never shrinks."""
    workdir = Workdir(request.plan.folder)
    if workdir.record() is not None:
        raise UsageError(f"{workdir.path} holds the run of an experiment. Choose another --workdir for the sweep.")
    with workdir.locked(wait=True):
        if request.overwrite:
            for name in (PLAN, "report.md", "arms.csv", "trials.csv"):
                (workdir.path / name).unlink(missing_ok=True)
        before = workdir.read(PLAN) or {}
        plan = _merged(request.plan, before)
        arms = [dataclasses.asdict(arm) for arm in plan.arms]
        history = before.get("history", [])
        planned = [arm["name"] for arm in before.get("arms", [])]
        if not before or (plan.seeds, [arm.name for arm in plan.arms]) != (before["seeds"], planned):
            finished = sum(trials.state(trial)[0] == "finished" for trial in plan.trials())
            when, names = time.strftime("%Y-%m-%d %H:%M"), [arm.name for arm in plan.arms]
            history = [*history, {"time": when, "seeds": plan.seeds, "arms": names, "finished": finished}]
        whole = not before or (plan.arms, plan.seeds) == (request.plan.arms, request.plan.seeds)
        command = request.command if whole else before["command"]
        values = {**_fixed(plan), "arms": arms, "seeds": plan.seeds, "command": command, "history": history}
        workdir.write(PLAN, json.loads(json.dumps(values)))


def _fixed(plan: Plan) -> dict[str, Any]:
    """Return what may not change once a sweep has begun."""
    sweep = plan.sweep
    fixed = {"sweep": sweep.name, "question": sweep.question, "margin": sweep.margin, "milestone": sweep.milestone}
    return fixed | {"base": to_json(plan.base)}


def _merged(plan: Plan, before: dict[str, Any]) -> Plan:
    """Merge a plan with the content of sweep.json, {} if there is none. Raises UsageError when they contradict each other."""
    if not before:
        return plan
    if not {"base", "arms", "seeds", "command"} <= set(before):
        raise RunError(f"{plan.folder / PLAN} is damaged. Delete it to plan again; the trials are kept.")
    old, new = _comparable(before), _comparable(_fixed(plan))
    differing = [
        f"  {name}: {old.get(name)} there, {value} requested" for name, value in new.items() if old.get(name) != value
    ]
    if differing:
        raise UsageError(
            "\n".join([f"{plan.folder} holds another sweep:", *differing])
            + "\nGive the same options to continue it, another --workdir, or --overwrite to forget its plan (trials are kept)."
        )
    named = {arm.name: json.loads(json.dumps(dataclasses.asdict(arm))) for arm in plan.sweep.arms}
    for arm in before["arms"]:
        now = named.get(arm["name"])
        if now is None or now["changes"] != arm["changes"]:
            raise UsageError(
                f"{plan.folder} was begun with an arm {arm['name']} of {arm['changes']}; the sweep's file now has "
                f"{now and now['changes']}. Give the arm another name, another --workdir, or --overwrite to forget the plan."
            )
    names = {arm["name"] for arm in before["arms"]} | {arm.name for arm in plan.arms}
    arms = tuple(arm for arm in plan.sweep.arms if arm.name in names)
    return dataclasses.replace(plan, arms=arms, seeds=max(plan.seeds, before["seeds"]))


def _comparable(fixed: dict[str, Any]) -> dict[str, Any]:
    flat = {k: v for k, v in flatten(from_json(fixed["base"])).items() if k not in MAY_DIFFER}
    return {k: v for k, v in fixed.items() if k in ("sweep", "margin", "milestone")} | flat


# --- the report ------------------------------------------------------------------------------------------------------


def _report(request: SweepRequest) -> Path:
    """Write the report of everything that was planned in the folder, by any process; return its path."""
    saved = Workdir(request.plan.folder).read(PLAN) or {}
    plan = _merged(request.plan, saved)
    every = list(plan.trials())
    cells = [trials.cell(trial, plan.sweep.milestone) for trial in every]
    finished = [trial for trial, cell in zip(every, cells, strict=True) if cell.status == "finished"]
    records = [record for trial in finished if (record := Workdir(trial.folder).record()) is not None]
    title = _one_data_set(records) or plan.base.data.name
    study = Study(
        name=plan.sweep.name,
        question=plan.sweep.question,
        base_arm=BASE,
        control=CONTROL,
        arms=tuple(_facts(plan, arm) for arm in plan.rows),
        margin=plan.sweep.margin,
        milestone=plan.sweep.milestone,
        base=_describe_base(plan, request.shipped),
        data_title=title,
        seeds=tuple(plan.seeds_of(BASE)),
        epochs=plan.base.train.epochs,
        cells=cells,
        environments=[record.environment for record in records],
        command=saved.get("command", request.command),
        history=saved.get("history", []),
    )
    with Workdir(plan.folder).locked(wait=True):
        return write_report(plan.folder, study)


def _describe_base(plan: Plan, shipped: Experiment) -> str:
    """Return the base's experiment and the options in which it differs from its file, in words."""
    usual = flatten(shipped)
    changed = {k: v for k, v in flatten(plan.base).items() if v != usual[k] and k not in MAY_DIFFER}
    listed = ", ".join(f"`{name}={value}` (instead of {usual[name]})" for name, value in changed.items())
    return f"the experiment `{shipped.name}`" + (f" with {listed}" if listed else " as its file defines it")


def _one_data_set(records: list[RunRecord]) -> str | None:
    """Return the title of the data set of all trials. Raises RunError when they were trained on different data sets."""
    found = {record.data.fingerprint: record.data.title for record in records}
    if len(found) > 1:
        titles = ", ".join(f"{title} ({fingerprint})" for fingerprint, title in found.items())
        raise RunError(
            f"The trials were trained on different data, so they cannot be compared: {titles}. Use another --workdir."
        )
    return next(iter(found.values()), None)


def _facts(plan: Plan, arm: Arm) -> ArmFacts:
    trial = plan.trial(arm, plan.seeds_of(arm.name)[0])
    if trial.problem:
        return ArmFacts(**vars(arm))
    table = networks.build(trial.experiment.network, class_count(trial.experiment.data))
    usual = flatten(plan.base) | {"train.seed": trial.seed}
    changes = {k: v for k, v in flatten(trial.experiment).items() if v != usual[k]}
    return ArmFacts(
        arm.name, changes, arm.reason, arm.published, arm.effect, parameter_count(table), operation_count(table)
    )
