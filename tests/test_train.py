"""Check a complete training on the digits: its result, its files, its failures, and `--mode=eval`."""

import dataclasses
import gc
import json
import math
import shutil
import struct

import jax
import numpy as np
import pytest
from running import LEARNING_EPOCHS, STEPS_PER_EPOCH, command, epochs, main, numbers, result, state, train, trainer

from alexnet_jax import train as train_module
from alexnet_jax.data.pipeline import OnDevice
from alexnet_jax.experiment import from_json
from alexnet_jax.run.metrics import Metrics
from alexnet_jax.run.records import read_metrics

pytest_plugins = ["running"]

LAST = LEARNING_EPOCHS * STEPS_PER_EPOCH


def records(file):
    """Yield the records of a TensorBoard file; each is stored as length, checksum, data, checksum."""
    data, start = file.read_bytes(), 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        yield data[start + 12 : start + 12 + length]
        start += 16 + length


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that schedules an action for the moment when the loss of a step is read."""

    def arrange(step, action):
        original = Metrics.train

        def train(self, number, **values):
            original(self, number, **values)
            if number == step:
                action()

        monkeypatch.setattr(Metrics, "train", train)

    return arrange


# --- results and files -----------------------------------------------------------------------------------------------


def test_the_digits_are_learned(learned):
    losses = [line["loss"] for line in numbers(learned)]
    assert len(losses) == LAST
    assert np.mean(losses[:5]) == pytest.approx(math.log(10), rel=0.15)
    assert np.mean(losses[-STEPS_PER_EPOCH // 2 :]) < 1.0
    assert result(learned)["top1_error"] < 0.3


def test_the_train_step_is_compiled_once(learned):
    assert (learned.parent / "programs").read_text() == "1"


def test_each_epoch_is_validated_and_the_test_set_is_read_once(learned):
    assert [line["step"] for line in numbers(learned, "validation")] == list(
        range(STEPS_PER_EPOCH, LAST + 1, STEPS_PER_EPOCH)
    )
    assert [line["step"] for line in numbers(learned, "test")] == [LAST]
    assert numbers(learned, "test")[0]["examples"] == 360


def test_the_result_is_that_of_the_metrics(learned):
    reached, (test,) = result(learned), numbers(learned, "test")
    assert {k: reached[k] for k in ("loss", "top1_error", "top5_error")} == {
        k: test[k] for k in ("loss", "top1_error", "top5_error")
    }
    best = min(reversed(numbers(learned, "validation")), key=lambda line: line["top1_error"])
    assert (reached["best_step"], reached["best_validation_top1_error"]) == (best["step"], best["top1_error"])
    assert (reached["steps"], reached["epochs"]) == (LAST, LEARNING_EPOCHS)


def test_the_record_says_what_was_run(learned):
    record = json.loads((learned / "experiment.json").read_text())
    experiment = from_json(record["experiment"])
    assert (experiment.name, experiment.network.width, experiment.train.batch) == ("alexnet_digits", 0.0625, 32)
    assert record["environment"]["versions"]["jax"] == jax.__version__
    assert "digits" in record["data"]["title"] and len(record["data"]["fingerprint"]) == 16
    assert record["restored_from"] is None


def test_report_picture_and_events_are_written(learned):
    report = (learned / "report.md").read_text()
    assert f"{100 * result(learned)['top1_error']:.2f} %" in report
    assert "--network.width=0.0625" in report
    assert (learned / "figures" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    (events,) = (learned / "tensorboard").iterdir()
    assert sum(b"train/loss" in record for record in records(events)) == LAST
    assert sum(b"test/top1_error" in record for record in records(events)) == 1


def test_the_latest_checkpoints_and_the_best_are_kept(learned):
    steps = {int(path.name) for path in (learned / "checkpoints").iterdir()}
    assert steps >= {LAST, LAST - STEPS_PER_EPOCH, result(learned)["best_step"]}


@pytest.mark.parametrize("rule", ["paper", "original"])
def test_velocities_are_sharded_as_their_parameters(rule):
    state = trainer(1, 2, rule=rule).initial_state()
    velocities = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert sorted(leaf.shape for leaf in velocities) == sorted(leaf.shape for leaf in jax.tree.leaves(state.parameters))
    for leaf in velocities:
        assert leaf.sharding.is_fully_replicated == (leaf.shape == (10,))  # only the bias of fc8 is stored once


def test_the_original_rule_makes_a_step(compile_cache):
    trained = trainer(rule="original")
    state = jax.eval_shape(trained.initial_state)
    split = OnDevice(jax.ShapeDtypeStruct((50, 32, 32, 3), np.uint8), jax.ShapeDtypeStruct((50,), np.int32))
    after, _ = jax.eval_shape(trained.step(), state, split, jax.ShapeDtypeStruct((32,), np.int32), np.uint32(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_losses_are_fetched_in_bulk(tmp_path, compile_cache, monkeypatch):
    """No value is copied to the host between two lines of metrics.jsonl."""
    fetched, original = [], jax.device_get
    monkeypatch.setattr(train_module, "READ_EVERY", math.inf)
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(tree) or original(tree))
    steps = []
    monkeypatch.setattr(Metrics, "train", lambda self, step, **values: steps.append((step, len(fetched))))
    assert train(tmp_path / "run", train__epochs=epochs(20), train__log_every=8) == 0
    assert [step for step, _ in steps] == list(range(1, 21))
    assert len({time for _, time in steps}) == 3  # at steps 8 and 16, and before the validation


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluated(run, capsys, **options):
    capsys.readouterr()
    assert main(command(run, mode="eval", **options)) == 0
    return capsys.readouterr().out


def line_of(scores):
    return f"Test error: top-1 {100 * scores['top1_error']:.2f} %, top-5 {100 * scores['top5_error']:.2f} %"


@pytest.mark.parametrize("mesh", [(1, 1), (1, 2)], ids=["one device", "two devices"])
def test_evaluation_repeats_the_result_of_the_training(learned, capsys, mesh):
    shown = evaluated(learned, capsys, mesh__data=mesh[0], mesh__column=mesh[1])
    assert line_of(result(learned)) in shown
    assert f"Mean loss {result(learned)['loss']:.4f}" in shown


def test_the_same_checkpoint_by_step_and_by_path(learned, capsys):
    for restore in (LAST, learned, learned / "checkpoints" / str(LAST)):
        assert line_of(result(learned)) in evaluated(learned, capsys, restore=restore)


def test_best_and_earlier_checkpoints_can_be_evaluated(learned, capsys):
    best = result(learned)["best_step"]
    by_word, by_step = (evaluated(learned, capsys, restore=restore) for restore in ("best", best))
    assert by_word.split("Mean")[0] == by_step.split("Mean")[0]  # the line of the loss ends with the duration
    earlier = LAST - STEPS_PER_EPOCH
    assert f"checkpoints/{earlier}. Data:" in evaluated(learned, capsys, restore=earlier)


def test_evaluation_takes_its_options_from_the_run(learned, capsys):
    capsys.readouterr()
    options = ["--mesh.data=1", "--mesh.column=1", "--train.tune_allocator=False"]
    assert main(["--exp=alexnet_digits", "--mode=eval", f"--workdir={learned}", *options]) == 0
    assert line_of(result(learned)) in capsys.readouterr().out


@pytest.mark.parametrize("restore", ["7", "nowhere"])
def test_evaluating_a_missing_checkpoint_is_refused(learned, capsys, restore):
    assert main(command(learned, mode="eval", restore=restore)) == 2
    message = capsys.readouterr().err
    assert f"--restore={restore}" in message and "Traceback" not in message


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_nonfinite_loss_ends_the_run_with_a_good_checkpoint(tmp_path, compile_cache, capsys):
    assert train(tmp_path / "run", train__epochs=1, train__save_every=1, train__keep=5, optim__learning_rate=1e4) == 1
    message = capsys.readouterr().err
    assert (
        "The loss of step " in message and "--optim.learning_rate (now 10000)" in message and "Traceback" not in message
    )
    failed = int(message.split("The loss of step ")[1].split()[0])
    assert [line["step"] for line in numbers(tmp_path / "run")] == list(range(1, failed))
    parameters, optimizer = state(tmp_path / "run")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((parameters, optimizer)))
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_batch_that_does_not_divide_is_refused(tmp_path, capsys):
    assert train(tmp_path / "run", train__batch=127, mesh__data=2) == 2
    message = capsys.readouterr().err
    assert "--train.batch=127" in message and "2 data-parallel devices" in message
    assert not (tmp_path / "run" / "experiment.json").exists()


def test_more_devices_than_exist_are_refused(tmp_path, capsys):
    assert train(tmp_path / "run", mesh__data=64, train__batch=64) == 2
    assert "--mesh.data=64 --mesh.column=1 needs 64 devices" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("train__batch", 5000), ("data__validation", 1437)])
def test_more_images_than_exist_are_refused(tmp_path, capsys, option, value):
    assert train(tmp_path / "run", **{option: value}) == 2
    message = capsys.readouterr().err
    assert f"--{option.replace('__', '.')}={value}" in message and "training images" in message


def test_a_network_for_larger_images_is_refused(tmp_path, capsys):
    assert train(tmp_path / "run", network__name="alexnet") == 2
    message = capsys.readouterr().err
    assert "32x32x3" in message and "224x224x3" in message


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # of orbax, after the failure
def test_checkpoints_that_cannot_be_written_end_the_run(tmp_path, compile_cache, at_step, capsys):
    folder = tmp_path / "run" / "checkpoints"

    def replace_by_a_file():
        shutil.rmtree(folder)
        folder.write_text("in the way")

    at_step(3, replace_by_a_file)
    assert train(tmp_path / "run", train__epochs=epochs(12), train__save_every=6) == 1
    message = capsys.readouterr().err
    assert str(folder) in message and "Could not save" in message and "Traceback" not in message
    assert not (tmp_path / "run" / "result.json").exists()
    gc.collect()


def test_a_folder_is_locked_while_it_is_trained_in(tmp_path, compile_cache, at_step, capsys):
    seen = []
    at_step(1, lambda: seen.append(main(command(tmp_path / "run", train__epochs=epochs(3)))))
    assert train(tmp_path / "run", train__epochs=epochs(3)) == 0
    assert seen == [2]
    assert "Another process is working in" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"] == [
        1,
        2,
        3,
    ]


def test_a_partial_last_epoch_leaves_the_plateau_alone(tmp_path, compile_cache):
    """The validation of a partial epoch does not count, because a longer training does not have it."""
    options = {"train__epochs": epochs(5), "optim__schedule": "plateau"}
    assert train(tmp_path / "run", **options) == 0
    assert [line["step"] for line in numbers(tmp_path / "run", "validation")] == [5]
    narrow = trainer()
    optim = dataclasses.replace(narrow.experiment.optim, schedule="plateau")
    narrow = dataclasses.replace(narrow, experiment=dataclasses.replace(narrow.experiment, optim=optim))
    _, saved = state(tmp_path / "run", on=narrow)
    jax.tree.map(np.testing.assert_array_equal, saved.plateau, narrow.initial_state().optimizer.plateau)
