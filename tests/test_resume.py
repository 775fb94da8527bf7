"""Check that a stopped training resumes and reaches the same result as without the stop."""

import shutil
import signal
from contextlib import closing

import jax
import numpy as np
import pytest
from running import (
    STEPS_PER_EPOCH,
    command,
    epochs,
    first_state,
    main,
    numbers,
    same_bits,
    start,
    state,
    train,
    wait_for,
)

from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.metrics import Metrics

pytest_plugins = ["running"]


def steps(run):
    with closing(Checkpoints(run / "checkpoints")) as checkpoints:
        return checkpoints.steps()


@pytest.fixture
def interrupt_at(monkeypatch):
    """Return a function that schedules a signal for the moment when the loss of a step is read."""
    pending, original = {}, Metrics.train

    def train(self, step, **values):
        original(self, step, **values)
        if step in pending:
            signal.raise_signal(pending.pop(step))

    monkeypatch.setattr(Metrics, "train", train)
    return lambda step, number=signal.SIGINT: pending.update({step: number})


def test_twenty_steps_in_three_starts_equal_those_of_one(twenty_steps, tmp_path, interrupt_at, capsys):
    run, whole = tmp_path / "run", {"train__epochs": epochs(20)}
    interrupt_at(8)  # two steps are in flight when its loss is read
    assert main([*command(run, **whole), "--overwrite"]) == 130
    message = capsys.readouterr().err
    assert "Interrupted by SIGINT and saved at step 10." in message
    assert f"python launch.py {' '.join(command(run, **whole))}\n" in message  # without --overwrite
    assert steps(run) == [10]
    interrupt_at(13, signal.SIGTERM)
    assert train(run, **whole) == 143
    assert "SIGTERM and saved at step 15" in capsys.readouterr().err
    assert train(run, **whole) == 0
    assert same_bits(state(run), state(twenty_steps))
    for kind in ("train", "validation", "test"):
        assert numbers(run, kind) == numbers(twenty_steps, kind)
    assert [line["step"] for line in numbers(run)] == list(range(1, 21))


@pytest.mark.evidence
def test_means_are_those_of_an_undisturbed_run(tmp_path, interrupt_at, compile_cache):
    """Stop between two logged steps, where no line ends."""
    options = {"train__epochs": epochs(20), "train__log_every": 5, "train__save_every": 7}
    assert train(tmp_path / "whole", **options) == 0
    for stop in (3, 8, 13):
        interrupt_at(stop)
        assert train(tmp_path / "run", **options) == 130
    assert train(tmp_path / "run", **options) == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


@pytest.mark.evidence
def test_resumed_five_times_equals_once(twenty_steps, tmp_path, interrupt_at):
    run, whole = tmp_path / "run", {"train__epochs": epochs(20)}
    for stop in (2, 5, 8, 11, 14):
        interrupt_at(stop)
        assert train(run, **whole) == 130
    assert train(run, **whole) == 0
    assert same_bits(state(run), state(twenty_steps))
    for kind in ("train", "validation", "test"):
        assert numbers(run, kind) == numbers(twenty_steps, kind)


def test_saves_between_epochs_change_nothing(twenty_steps, tmp_path, compile_cache):
    assert train(tmp_path / "run", train__epochs=epochs(20), train__save_every=7, train__keep=9) == 0
    assert steps(tmp_path / "run") == [7, 14, 20]
    assert same_bits(state(tmp_path / "run"), state(twenty_steps))
    assert numbers(tmp_path / "run") == numbers(twenty_steps)


@pytest.mark.evidence
def test_more_epochs_continue_a_finished_run(learned, tmp_path, compile_cache):
    run, end = tmp_path / "run", STEPS_PER_EPOCH
    assert train(run, train__epochs=epochs(20)) == 0
    assert train(run, train__epochs=2, train__keep=9) == 0
    assert {20, end, 2 * end} <= set(steps(run))
    expected = [line for line in numbers(learned) if line["step"] <= 2 * end]
    assert numbers(run) == expected


def test_steps_after_the_checkpoint_leave_no_lines(tmp_path, interrupt_at, compile_cache):
    run = tmp_path / "run"
    interrupt_at(4)
    assert train(run, train__epochs=epochs(12)) == 130
    metrics = run / "metrics.jsonl"
    ahead = metrics.read_text().replace('"step": 6,', '"step": 7,')  # as if the process was killed after step 7
    metrics.write_text(metrics.read_text() + ahead.splitlines()[-1] + "\n" + '{"kind": "tra')
    assert train(run, train__epochs=epochs(12)) == 0
    assert [line["step"] for line in numbers(run)] == list(range(1, 13))


def test_a_run_can_start_from_the_parameters_of_another(learned, tmp_path, compile_cache, capsys):
    run = tmp_path / "run"
    assert train(run, restore=learned, train__epochs=epochs(3)) == 0
    assert numbers(run, "validation")[0]["loss"] < 1.0  # the loss of an untrained network is ln(10) = 2.3
    assert len(numbers(run)) == 3
    capsys.readouterr()
    assert train(run, restore=learned, train__epochs=epochs(3)) == 0
    assert "This run is finished" in capsys.readouterr().out
    assert train(run, train__epochs=epochs(3)) == 2
    assert "--restore" in capsys.readouterr().err


def test_given_parameters_are_the_first_ones(learned, tmp_path):
    _, first = first_state(tmp_path / "run", restore=learned)
    assert same_bits(first.parameters, state(learned)[0])
    assert int(first.step) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(first.optimizer))


def test_two_devices_give_the_losses_of_one(two_devices, twenty_steps):
    two, one = ([line["loss"] for line in numbers(run)[:5]] for run in (two_devices, twenty_steps))
    assert len(two) == 5
    assert two == pytest.approx(one, abs=1e-5)


def test_a_run_resumes_on_another_mesh(two_devices, tmp_path, twenty_steps, compile_cache):
    run = shutil.copytree(two_devices, tmp_path / "run")
    assert train(run, train__epochs=epochs(7)) == 0
    losses = [line["loss"] for line in numbers(run)]
    assert losses == pytest.approx([line["loss"] for line in numbers(twenty_steps)[:7]], abs=1e-4)


# --- real signals ----------------------------------------------------------------------------------------------------


SIGNALS = ((signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 8))
"""Each signal, the exit status after it, and the step after which it is sent."""


@pytest.mark.evidence
def test_signals_and_kills_in_a_separate_process(learned, tmp_path, compile_cache):
    """`python -m benchmarks.faults` is the long version, with kills at random moments."""
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = command(run, train__epochs=3, train__save_every=5)

    def trained(step):
        return lambda: (run / "metrics.jsonl").exists() and any(line["step"] >= step for line in numbers(run))

    for number, code, step in SIGNALS:
        process = start(arguments, compile_cache, log, "-X", "importtime")
        wait_for(trained(step), process, log)
        process.send_signal(number)
        assert process.wait(timeout=120) == code
        lines = log.read_text().splitlines()
        imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
        assert "jax" in imported and "tensorflow" not in imported
        said = [line for line in lines if "saved at step" in line]
        assert len(said) == 1 and signal.Signals(number).name in said[0] and f"--workdir={run}" in said[0]
        assert f"saved at step {steps(run)[-1]}." in said[0]

    saves = (run / "checkpoints").glob  # a folder of this name exists while a checkpoint is written
    for moment in (lambda: any(saves("*.orbax-checkpoint-tmp")), trained(steps(run)[-1] + 7)):
        process = start(arguments, compile_cache, log)
        wait_for(moment, process, log)
        process.kill()
        assert process.wait(timeout=120) == -signal.SIGKILL
        assert not (run / "result.json").exists()

    assert main(arguments) == 0
    assert [line["step"] for line in numbers(run)] == list(range(1, 3 * STEPS_PER_EPOCH + 1))
    assert [line["step"] for line in numbers(run, "validation")] == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
    assert len(numbers(run, "test")) == 1
    assert same_bits(state(run), state(learned)) and numbers(run) == numbers(learned)
    assert not list(saves("*tmp*"))


def test_evaluation_on_two_devices_in_its_own_process(two_devices, tmp_path, compile_cache):
    process = start(command(two_devices, mode="eval", mesh__column=2), compile_cache, tmp_path / "log")
    assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    assert "Test error: top-1" in (tmp_path / "log").read_text()
