"""Check training on pictures from disk: plateau, colour noise, ten views, and the same bits after stops and resumes."""

import json
import signal

import jax
import numpy as np
import photographs
import pytest
from photographs import OPTIONS, write_folder
from running import command, main, numbers, state

from alexnet_jax.assembly import assemble_training
from alexnet_jax.command_line import read
from alexnet_jax.data import registry
from alexnet_jax.evaluate import Evaluator
from alexnet_jax.run.metrics import Metrics
from alexnet_jax.run.restore import best_step, step_folders

pytest_plugins = ["running"]
own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)
pytestmark = pytest.mark.usefixtures("compile_cache")

EXAMPLES, BATCH = 23 - 5, OPTIONS["train.batch"]
PER_EPOCH = EXAMPLES // BATCH


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("animals"))


def train(workdir, root, **options):
    return main(command(workdir, **OPTIONS, data__dir=root, **options))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, root, compile_cache):
    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))
        assert train(run, root) == 0
    return run


def test_it_trains_validates_and_tests_every_picture_once(undisturbed):
    assert [line["step"] for line in numbers(undisturbed)] == list(range(1, 5 * PER_EPOCH + 1))
    result = json.loads((undisturbed / "result.json").read_text())
    assert result["examples"] == 9 and len(np.load(undisturbed / "test_ranks.npy")) == 9
    assert (undisturbed / "statistics.npz").exists()


def test_the_rate_falls_when_the_validation_error_does_not(undisturbed):
    errors = [line["top1_error"] for line in numbers(undisturbed, "validation")]
    rates = [line["learning_rate"] for line in numbers(undisturbed)][::PER_EPOCH]  # of each epoch's first step
    expected, best = [0.005], np.inf
    for error in errors[:-1]:
        expected.append(expected[-1] if error < best else max(expected[-1] / 10, 0.005e-3))
        best = min(best, error)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert len(set(expected)) > 1, "no plateau was met: choose another rate for this test"


@pytest.mark.evidence
def test_stopped_within_an_epoch_it_ends_with_the_same_bits(undisturbed, root, tmp_path, monkeypatch):
    original = Metrics.train

    def train_and_stop(self, step, **values):
        original(self, step, **values)
        if step in (6, 13):
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    monkeypatch.setattr(Metrics, "train", train_and_stop)
    assert [train(run, root) for _ in range(3)] == [143, 143, 0]
    check_equal(run, undisturbed, root)


def check_equal(run, undisturbed, root):
    """Assert that parameters, velocities, plateau state and metrics are equal."""
    request = read(command(run, **OPTIONS, data__dir=root))[1]
    trainer = assemble_training(request.experiment, registry.load(request.experiment.data)).trainer()
    leaves = [jax.tree.leaves(state(folder, on=trainer)) for folder in (run, undisturbed)]
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for kind in ("train", "validation", "test"):
        assert numbers(run, kind) == numbers(undisturbed, kind)


@pytest.mark.evidence
def test_stopped_while_it_evaluates_it_ends_with_the_same_bits(undisturbed, root, tmp_path, monkeypatch):
    """A validation has two batches, the test three. Signals arrive in the first validation, in its repetition, in the
    last batch of another one, which still finishes, in the next one, in that of the last epoch, and in the test."""
    batches, original = [], Evaluator.scores

    def scores(self, *arguments):
        batches.append(None)
        if len(batches) in (1, 2, 6, 7, 12, 16):
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments)

    run = tmp_path / "run"
    monkeypatch.setattr(Evaluator, "scores", scores)
    assert [train(run, root) for _ in range(7)] == [143] * 6 + [0]
    assert len(batches) == 19
    check_equal(run, undisturbed, root)
    assert [path.name for path in step_folders(run / "checkpoints")] == [
        path.name for path in step_folders(undisturbed / "checkpoints")
    ]
    assert best_step(run / "checkpoints") == best_step(undisturbed / "checkpoints")


@pytest.mark.evidence
def test_two_devices_see_the_same_losses(undisturbed, root, tmp_path):
    run = tmp_path / "run"
    assert train(run, root, mesh__data=2, mesh__column=2, train__epochs=1) == 0
    losses = [[line["loss"] for line in numbers(folder)][:PER_EPOCH] for folder in (run, undisturbed)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_damaged_picture_ends_the_run_with_its_name(root, tmp_path, capsys):
    broken = write_folder(tmp_path / "animals")
    (broken / "train" / "eel" / "002.jpg").write_bytes(b"no picture")
    assert train(tmp_path / "run", broken) == 1
    assert "eel/002.jpg cannot be read as a picture" in capsys.readouterr().err


def test_pictures_that_changed_are_no_continuation(root, tmp_path, capsys):
    own = write_folder(tmp_path / "animals")
    assert train(tmp_path / "run", own, train__epochs=1) == 0
    (own / "train" / "eel" / "002.jpg").write_bytes(photographs.photograph(2000))
    assert train(tmp_path / "run", own, train__epochs=2) == 2
    assert "was trained on" in capsys.readouterr().err
