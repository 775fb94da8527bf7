"""Run sweeps on narrow networks and the digits: skipped, resumed, recorded and rejected trials."""

import csv
import dataclasses
import json
import re
import signal
import statistics
import sys

import numpy as np
import pytest
from running import command, contents, epochs, main, numbers, start, wait_for

from alexnet_jax.command_line import read
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Network
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.sweeps import plan_file, trials
from alexnet_jax.sweeps.estimate import estimate, matrix_speed
from alexnet_jax.sweeps.plan import Arm, Trial
from experiments import update_rule_sweep

pytest_plugins = ["running"]

STEPS = 6
ARMS = (
    next(arm for arm in update_rule_sweep.SWEEP.arms if arm.name == "original_biases"),
    Arm("impossible", {"network.columns": 2}, "LeNet-5 has one column"),
    Arm("diverging", {"optim.learning_rate": 1e30}, "a rate that no network survives"),
)

LENET = {"network__name": "lenet5", "network__columns": 1} | {
    f"network__{field.name}": field.default
    for field in dataclasses.fields(Network)
    if field.name not in ("name", "columns")
}
"""Options of the network that compiles fastest."""


def sweep(folder, *more, **options):
    """Return the arguments of a small sweep; `more` are appended unchanged."""
    named = {
        "exp": "update_rule_sweep",
        "data__name": "digits",
        "sweep__epochs": epochs(STEPS),
        "sweep__seeds": 2,
    } | LENET
    return [*command(folder / "update_rule_sweep", **(named | options)), *more]


def cells(folder):
    with (folder / "update_rule_sweep" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def more_arms():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update_rule_sweep, "SWEEP", dataclasses.replace(update_rule_sweep.SWEEP, arms=ARMS))
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, compile_cache, more_arms):
    """Return a finished sweep with a working, an invalid and a diverging arm. Tests must not write into it."""
    folder = tmp_path_factory.mktemp("swept")
    assert main(sweep(folder)) == 0
    return folder


def test_failures_are_recorded_and_the_others_finish(swept):
    found = {(cell["arm"], cell["status"]) for cell in cells(swept)}
    finished = {(arm, "finished") for arm in ("base", "control", "original_biases")}
    assert found == finished | {("impossible", "failed"), ("diverging", "diverged")}
    assert len(cells(swept)) == 2 * 5
    report = (swept / "update_rule_sweep" / "report.md").read_text()
    assert "10 planned: 6 finished, 2 diverged, 2 failed, 0 to do" in report
    assert "network.columns=2: expected 1 for lenet5" in report and "The loss of step" in report
    for picture in ("forest", "dots", "curves"):
        assert (swept / "update_rule_sweep" / "figures" / f"{picture}.png").stat().st_size > 5000


def test_the_numbers_of_the_report_are_those_of_the_trials(swept):
    for cell in cells(swept):
        if cell["status"] == "finished":
            result = json.loads((swept / cell["folder"] / "result.json").read_text())
            assert float(cell["top1_error"]) == result["top1_error"]
            ranks = np.load(swept / cell["folder"] / "test_ranks.npy")
            assert len(ranks) == 360 and (ranks >= 1).mean() == result["top1_error"]
            assert (ranks >= 5).mean() == result["top5_error"]


def test_a_trial_is_a_run_like_any_other(swept):
    """The folder of a trial records the options of its arm, as that of any run."""
    folder = swept / next(cell["folder"] for cell in cells(swept) if cell["arm"] == "original_biases")
    experiment = Workdir(folder).experiment()
    assert experiment.optim.rule == "original" and experiment.train.epochs == pytest.approx(epochs(STEPS))
    assert "--optim.rule=original" in (folder / "report.md").read_text()


def test_again_nothing_is_trained(swept, capsys):
    before = contents(swept / "trials")
    assert main(sweep(swept)) == 0
    assert contents(swept / "trials") == before
    assert "10 trials, 10 of them done. Nothing is left to train." in capsys.readouterr().out


def test_a_report_of_a_sweep_is_written_again(swept):
    report = swept / "update_rule_sweep" / "report.md"
    before = report.read_text()
    report.unlink()
    assert main(sweep(swept, "--mode=report")) == 0
    assert report.read_text() == before


def test_a_smaller_request_does_not_shrink_the_plan(swept, capsys):
    assert main(sweep(swept, sweep__arms="original_biases", sweep__seeds=1)) == 0
    assert "3 trials, 3 of them done" in capsys.readouterr().out
    assert len(cells(swept)) == 10


def test_another_base_in_the_same_folder_is_refused(swept, capsys):
    assert main(sweep(swept, optim__momentum=0.6)) == 2
    error = capsys.readouterr().err
    assert "optim.momentum: 0.9 recorded, 0.6 requested" in error and "--overwrite" in error


def test_no_trial_continues_on_other_data(swept):
    _, request = read(sweep(swept, data__fallback="digits"))
    assert {trial.experiment.data.fallback for trial in request.plan.trials() if not trial.problem} == {"error"}
    saved = plan_file.read(swept / "update_rule_sweep")
    assert saved.base.data.fallback == "error"
    data = dataclasses.replace(saved.base.data, fallback="digits")
    older = dataclasses.replace(saved, base=dataclasses.replace(saved.base, data=data))
    assert plan_file.merged(request.plan, older) == request.plan


def test_a_dry_run_lists_what_is_left_and_writes_nothing(swept, tmp_path, capsys):
    before = contents(swept)
    assert main(sweep(swept, "--dry_run", sweep__seeds=3)) == 0
    out = capsys.readouterr().out
    assert out.count(" planned ") == 4 and out.count(" finished ") == 6 and out.count("impossible: ") == 3
    assert contents(swept) == before
    assert main(sweep(tmp_path, "--dry_run")) == 0
    assert not list(tmp_path.iterdir())


def test_failed_trials_run_again_when_asked(swept, capsys):
    folder = swept / next(cell["folder"] for cell in cells(swept) if cell["arm"] == "diverging")
    note = folder.with_name(f"{folder.name}.json")
    before = json.loads(note.read_text())
    assert main(sweep(swept, sweep__retry=True, sweep__arms="diverging", sweep__seeds=1)) == 0
    after = json.loads(note.read_text())
    assert after["status"] == before["status"] == "diverged" and after["time"] > before["time"]


def test_the_report_of_nothing_is_refused(tmp_path, capsys):
    assert main(sweep(tmp_path, "--mode=report")) == 2
    assert "holds no sweep yet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- stops and kills -------------------------------------------------------------------------------------------------


@pytest.mark.evidence
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_sweep_ends_like_an_undisturbed_one(number, tmp_path, swept, compile_cache, capsys):
    """After a stop in the second trial, the first trial is skipped and the second resumes from its last checkpoint."""
    options = {"sweep__arms": "original_biases", "sweep__seeds": 1, "train__save_every": 1}
    arguments, log = sweep(tmp_path, **options), tmp_path / "log"
    process = start(arguments, compile_cache, log)
    base, control = (tmp_path / cell["folder"] for cell in cells(swept)[:2])
    wait_for(lambda: (control / "checkpoints" / "2").is_dir(), process, log)
    process.send_signal(number)
    assert process.wait(120) in (-signal.SIGKILL, 128 + signal.SIGTERM), log.read_text()
    first = contents(base)
    assert len(list((tmp_path / "trials").glob("*/*/result.json"))) < 3
    capsys.readouterr()
    assert main(arguments) == 0
    assert re.search(r"Continuing at step [2-5] of 6 steps .* in \S*seed1000", capsys.readouterr().out)
    assert contents(base) == first
    assert len({cell["folder"] for cell in cells(tmp_path)}) == len(cells(tmp_path)) == 3
    assert {cell["status"] for cell in cells(tmp_path)} == {"finished"}
    for cell in cells(tmp_path):  # up to rounding: the order of sums depends on the number of virtual devices
        ours, theirs = (numbers(folder / cell["folder"]) for folder in (tmp_path, swept))
        assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, STEPS + 1))
        np.testing.assert_allclose([x["loss"] for x in ours], [x["loss"] for x in theirs], rtol=1e-4)


def trial(folder, **values):
    return Trial("arm", 0, values.pop("experiment", None), folder / "trials" / "key" / "seed0", **values)


def test_a_trial_whose_process_keeps_dying_fails(tmp_path):
    one = trial(tmp_path)
    for _ in range(trials.DEATHS):
        assert trials.may_start(one) and not trials.ended(one)
    assert not trials.may_start(one)
    assert trials.ended(one) and "died 3 times" in trials.cell(one, None).message


def test_deaths_count_anew_after_a_checkpoint(tmp_path):
    one = trial(tmp_path)
    for step in range(2 * trials.DEATHS):
        (one.folder / "checkpoints" / str(step + 1)).mkdir(parents=True)
        assert trials.may_start(one)
    for _ in range(2 * trials.DEATHS):
        trials.forget(one)
        assert trials.may_start(one)


def test_a_trial_at_which_another_process_works_is_left_to_it(swept, capsys):
    folder = swept / next(cell["folder"] for cell in cells(swept) if cell["arm"] == "base")
    result = (folder / "result.json").read_bytes()
    (folder / "result.json").unlink()
    try:
        with Workdir(folder).locked():
            assert main(sweep(swept, sweep__arms="original_biases", sweep__seeds=1)) == 0
    finally:
        (folder / "result.json").write_bytes(result)
    assert "Another process is training this trial" in capsys.readouterr().out
    assert main(sweep(swept, "--mode=report")) == 0  # restores the report


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": 1}', '{"arm": "a", "seed": 0, "time": 1, "status": "x"}'])
def test_a_damaged_note_is_reported(content, tmp_path):
    one = trial(tmp_path)
    one.folder.parent.mkdir(parents=True)
    one.folder.with_name("seed0.json").write_text(content)
    with pytest.raises(RunError, match="Delete it to run the trial again"):
        trials.ended(one)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_plan_is_reported(content, tmp_path, capsys):
    folder = tmp_path / "update_rule_sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(content)
    for arguments in (sweep(tmp_path), sweep(tmp_path, "--mode=report")):
        assert main(arguments) == 1
        assert "sweep.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "trials").exists()


def test_damaged_files_of_a_finished_trial_are_reported(tmp_path):
    one = trial(tmp_path)
    one.folder.mkdir(parents=True)
    (one.folder / "result.json").write_text("{")
    assert trials.ended(one) and trials.state(one) == ("finished", "")
    found = trials.cell(one, None)
    assert found.status == "failed" and f"delete {one.folder} to train it again" in found.message


def test_the_first_epoch_at_a_training_error():
    lines = [{"kind": "train", "epoch": i / 2, "mean_error": error} for i, error in enumerate((0.9, 0.5, 0.6, 0.2))]
    lines.insert(1, {"kind": "validation", "epoch": 0.1, "top1_error": 0.0})
    assert trials.epochs_to(lines, 0.5) == 0.5 and trials.epochs_to(lines, 0.25) == 1.5
    assert trials.epochs_to(lines, 0.1) is None


# --- other engines ---------------------------------------------------------------------------------------------------


@pytest.mark.evidence  # takes half a minute, mostly for the start of Ray
def test_ray_runs_the_same_trials(tmp_path, swept, compile_cache):
    pytest.importorskip("ray")
    arguments = sweep(tmp_path, sweep__engine="ray", sweep__arms="original_biases", sweep__seeds=1)
    log = tmp_path / "log"
    process = start(arguments, compile_cache, log)
    assert process.wait(300) == 0, log.read_text()
    assert [cell["status"] for cell in cells(tmp_path)] == ["finished"] * 3, log.read_text()
    for cell in cells(tmp_path):
        ours, theirs = (numbers(folder / cell["folder"]) for folder in (tmp_path, swept))
        np.testing.assert_allclose([x["loss"] for x in ours], [x["loss"] for x in theirs], rtol=1e-4)


def test_without_ray_the_remedy_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(sweep(tmp_path, sweep__engine="ray")) == 2
    assert "requirements-cluster.txt" in capsys.readouterr().err


def test_estimates_come_from_what_was_measured(swept):
    assert 1e8 < matrix_speed(seconds=0.05) < 1e15
    _, request = read(sweep(swept, sweep__arms="original_biases"))
    done = list(request.plan.trials())
    assert estimate([], done) == "Nothing is left to train."
    rates = [1 / json.loads((trial.folder / "result.json").read_text())["seconds"] for trial in done]
    expected = f"About {3 / statistics.median(rates):.0f} seconds for the rest, at the speed of the 6 trials"
    assert estimate(done[:3], done).startswith(expected)
    assert "GFLOP/s" in estimate(done, [])
