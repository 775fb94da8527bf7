"""The modes of a sweep: list it, run it, report on it. A sweep runs the trials that its plan (plan_file.py) still lacks."""

from pathlib import Path

from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import DataNotFoundError, RunError, UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten
from alexnet_jax.network import networks
from alexnet_jax.network.table import operation_count, parameter_count
from alexnet_jax.run.records import RunRecord
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.sweeps import engines, plan_file, trials
from alexnet_jax.sweeps.analysis.comparison import ArmFacts, Study
from alexnet_jax.sweeps.analysis.report import write_report
from alexnet_jax.sweeps.estimate import estimate
from alexnet_jax.sweeps.plan import BASE, CONTROL, Arm, Plan, SweepRequest, Trial, reach


def run(request: SweepRequest) -> None:
    """Write the plan, run the missing trials, write the report. The same command resumes the sweep.

    Raises RunError when no trial of the base finished, since then nothing was compared.
    """
    _check_data(request)
    plan_file.write(request)
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
    if plan_file.read(request.plan.folder) is None:
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


def _check_data(request: SweepRequest) -> None:
    """Raise DataNotFoundError: a sweep never replaces its data set by the digits on its own."""
    from alexnet_jax.assembly import report_validation
    from alexnet_jax.data import registry

    data = request.plan.base.data
    try:
        report_validation(data, request.given, registry.load(data))
    except DataNotFoundError as problem:
        raise DataNotFoundError(
            f"{problem}\n\nTo see the sweep at work on the digits that scikit-learn ships: --data.name=digits"
        ) from problem


# --- the report ------------------------------------------------------------------------------------------------------


def _report(request: SweepRequest) -> Path:
    """Write the report of everything that was planned in the folder, by any process; return its path."""
    saved = plan_file.read(request.plan.folder)
    plan = plan_file.merged(request.plan, saved)
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
        command=saved.command if saved else request.command,
        history=saved.history if saved else (),
    )
    with Workdir(plan.folder).locked(wait=True):
        return write_report(plan.folder, study)


def _describe_base(plan: Plan, shipped: Experiment) -> str:
    """Return the base's experiment and the options in which it differs from its file, in words."""
    usual = flatten(shipped)
    changed = {k: v for k, v in flatten(plan.base).items() if v != usual[k] and k not in MAY_DIFFER}
    listed = ", ".join(f"`{name}={value}` (instead of {usual[name]})" for name, value in changed.items())
    named = f"the experiment `{shipped.name}`" + (f" with {listed}" if listed else " as its file defines it")
    return f"{named}. It trains with {_regularization(plan.base)}"


def _regularization(experiment: Experiment) -> str:
    """Return what regularizes a training, so that a report's words about it come from the plan."""
    network, data = experiment.network, experiment.data
    dropout = f"dropout {network.dropout:g}" if network.dropout else "no dropout"
    crops = "random crops" if data.crop or data.crop_padding else "no crops"
    return f"{dropout}, {crops}, {'' if data.mirror else 'no '}mirror images and weight decay {experiment.optim.weight_decay:g}"


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
    data = trial.experiment.data
    table = networks.build(trial.experiment.network, class_count(data), data.crop)
    usual = flatten(plan.base) | {"train.seed": trial.seed}
    changes = {k: v for k, v in flatten(trial.experiment).items() if v != usual[k]}
    return ArmFacts(
        arm.name, changes, arm.reason, arm.published, arm.effect, parameter_count(table), operation_count(table)
    )
