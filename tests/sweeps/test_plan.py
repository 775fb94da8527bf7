"""Check the plan of a sweep before it runs: arms, seeds, folders and contradictions."""

import dataclasses
import importlib
from pathlib import Path

import pytest

import experiments
from alexnet_jax.checks import check
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data, Experiment, Network, Train
from alexnet_jax.network import networks
from alexnet_jax.network.table import Conv, Dense, Table
from alexnet_jax.sweeps.plan import BASE, CONTROL, Arm, Plan, Sweep, changed, choose, digest

NAMES = sorted(path.stem for path in Path(experiments.__path__[0]).glob("[!_]*.py"))
SWEEPS = [name for name in NAMES if hasattr(importlib.import_module(f"experiments.{name}"), "SWEEP")]

EXAMPLE = Sweep(
    "example",
    "Which?",
    (Arm("narrow", {"network.width": 0.5}, "half"), Arm("impossible", {"network.fc_units": 33}, "odd")),
)


def plan(sweep=EXAMPLE, base=None, seeds=3, folder=Path("/runs/example"), **train):
    base = base or experiments.experiment(sweep.base)
    base = dataclasses.replace(base, train=dataclasses.replace(base.train, **train))
    return Plan(sweep, base, sweep.arms, seeds, folder)


@pytest.mark.parametrize("base", ["alexnet_cifar", "alexnet_digits", "alexnet_imagenet"])
@pytest.mark.parametrize("name", SWEEPS)
def test_every_arm_builds_on_every_base_and_changes_it(name, base):
    sweep = experiments.find(name)
    found = plan(sweep, changed(experiments.experiment(base), sweep.common), seeds=1)
    for trial in found.trials():
        # For example, digits are never mirrored.
        if base != sweep.base and ("changes nothing" in trial.problem or "is the same as" in trial.problem):
            continue
        assert not trial.problem, trial.problem
        if trial.arm not in (BASE, CONTROL):
            assert digest(trial.experiment) != digest(found.base), trial.arm


@pytest.mark.parametrize("name", SWEEPS)
def test_arms_have_names_reasons_and_no_twins(name):
    arms = experiments.find(name).arms
    assert len({arm.name for arm in arms}) == len(arms)
    assert not {BASE, CONTROL} & {arm.name for arm in arms}
    assert all(arm.reason and arm.changes for arm in arms)
    assert all(arm.published for arm in arms if arm.effect is not None)
    keys = {str(sorted(arm.changes.items(), key=str)) for arm in arms}
    assert len(keys) == len(arms)


def test_the_union_has_every_arm_of_the_sweeps_on_the_plain_base():
    union = {arm.name for arm in experiments.find("all_ablations").arms}
    for name in set(SWEEPS) - {"all_ablations"}:
        sweep = experiments.find(name)
        if not sweep.common:
            assert {arm.name for arm in sweep.arms} <= union, name
    assert "tanh" in union


def test_a_stopped_sweep_has_compared_all_arms():
    trials = list(plan(seed=5).trials())
    assert [(t.arm, t.seed) for t in trials[:4]] == [("base", 5), ("control", 1005), ("narrow", 5), ("impossible", 5)]
    assert [t.seed for t in trials if t.arm == BASE] == [5, 6, 7]
    assert [t.seed for t in trials if t.arm == CONTROL] == [1005, 1006, 1007]
    assert all(t.experiment.train.seed == t.seed for t in trials if not t.problem)


def test_an_arm_that_changes_nothing_says_so():
    same = dataclasses.replace(EXAMPLE, arms=(Arm("same", {"data.mirror": True}, "as the base has it"),))
    assert {t.arm: t.problem for t in plan(same).trials()}["same"].startswith("The arm same changes nothing")


def test_a_misspelt_arm_is_its_own_problem_only():
    arms = (
        Arm("misspelt", {"network.pool": "none"}, "no such option"),
        Arm("quarter", {"network.width": 0.25}, "narrow"),
    )
    problems = {t.arm: t.problem for t in plan(dataclasses.replace(EXAMPLE, arms=arms)).trials()}
    assert "network.pool, which is not an option" in problems["misspelt"] and not problems["quarter"]


def test_an_arm_that_is_another_one_does_not_count_twice():
    twins = tuple(Arm(name, {"network.width": 0.25}, "a quarter") for name in ("one", "two"))
    problems = {t.arm: t.problem for t in plan(dataclasses.replace(EXAMPLE, arms=twins)).trials()}
    assert not problems["one"] and problems["two"].startswith("The arm two is the same as one")


def test_an_arm_that_cannot_be_trained_says_why():
    wide = dataclasses.replace(EXAMPLE, arms=(Arm("narrow", {"network.width": 0.25}, "a quarter"), EXAMPLE.arms[1]))
    problems = {t.arm: t.problem for t in plan(wide).trials()}
    assert "network.fc_units=33" in problems["impossible"]
    assert not any(problem for arm, problem in problems.items() if arm != "impossible")


def test_an_arm_whose_table_does_not_fit_together_says_so(monkeypatch):
    huge = Table("huge", (32, 32, 3), 1, (Conv("conv1", 6, 64), Dense("fc2", 10, "sum")))
    monkeypatch.setitem(networks.FIXED, "lenet5", lambda classes: huge)
    arms = (
        Arm("huge", {"network": Network("lenet5", columns=1)}, "a kernel larger than the image"),
        Arm("quarter", {"network.width": 0.25}, "narrow"),
    )
    problems = {t.arm: t.problem for t in plan(dataclasses.replace(EXAMPLE, arms=arms)).trials()}
    assert "conv1: its 64x64 kernel does not fit" in problems.pop("huge") and not any(problems.values())


def test_trials_of_equal_mathematics_share_a_folder():
    first, second = (plan(dataclasses.replace(EXAMPLE, name=name)) for name in ("one", "two"))
    assert [t.folder for t in first.trials()] == [t.folder for t in second.trials()]
    folders = [t.folder for t in first.trials()]
    assert len(set(folders)) == len(folders)
    assert {folder.parents[1] for folder in folders} == {Path("/runs/trials")}


def test_epochs_written_as_1_and_1_0_are_the_same():
    assert digest(Experiment("a", train=Train(epochs=11))) == digest(Experiment("a", train=Train(epochs=11.0)))


def test_what_leaves_the_mathematics_alone_leaves_the_folder():
    base = Experiment("a", train=Train(seed=1))
    same = Experiment("b", data=Data(dir="elsewhere"), train=Train(seed=2, keep=9, log_every=1))
    assert digest(base) == digest(same)
    for other in (Experiment("a", network=Network(width=0.5)), Experiment("a", train=Train(epochs=3))):
        assert digest(other) != digest(base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.pool": "none"}, "network.pool, which is not an option"),
        ({"pooling": "non_overlapping"}, "pooling, which is not an option"),
        ({"network.pooling": "none"}, "expected one of overlapping, non_overlapping"),
        ({"network.columns": 3}, "expected one of 1, 2"),
        ({"network": 3}, "network, which is not an option"),
    ],
)
def test_an_arm_with_an_option_or_a_value_that_there_is_not(changes, message):
    with pytest.raises(UsageError, match=message):
        changed(Experiment("a"), changes)


def test_changes_replace_fields_and_whole_sections():
    found = changed(Experiment("a"), {"network": Network("lenet5", columns=1), "train.seed": 7})
    assert found == Experiment("a", network=Network("lenet5", columns=1), train=Train(seed=7))
    check(found)


def test_arms_are_chosen_by_name_in_the_sweeps_order():
    assert choose(EXAMPLE, "") == EXAMPLE.arms
    assert [arm.name for arm in choose(EXAMPLE, "impossible, narrow")] == ["narrow", "impossible"]
    assert [arm.name for arm in choose(EXAMPLE, "base,narrow")] == ["narrow"]
    with pytest.raises(UsageError, match="no arm 'wide'. Expected narrow, impossible"):
        choose(EXAMPLE, "narrow,wide")


@pytest.mark.parametrize(
    ("sweep", "folders"),
    [
        ("pooling_sweep", {"base": "alexnet_cifar-d9471bff50", "non_overlapping": "alexnet_cifar-d79c9de331"}),
        ("seed_comparison", {"lenet5": "lenet5-5fe11a3855", "simple_cnn": "simple_cnn-3b8c101bed"}),
    ],
)
def test_trials_keep_the_folders_of_earlier_versions(sweep, folders):
    """With a changed digest, a sweep would repeat trials that have already finished with the options of that time."""
    found = experiments.find(sweep)
    options = {"data.crop": 0, "data.crop_padding": 4, "data.views": 1, "optim.learning_rate": 0.03, "train.epochs": 11}
    plan = Plan(found, changed(experiments.experiment("alexnet_cifar"), options), found.arms, 1, Path("/runs/sweep"))
    names = {trial.arm: trial.folder.parent.name for trial in plan.trials()}
    assert {arm: names[arm] for arm in folders} == folders
