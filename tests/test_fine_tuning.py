"""Check runs that start from trained parameters with some new layers: initial values, learning rates and resuming."""

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from running import LEARNING_EPOCHS, command, epochs, first_state, main, numbers, state, train

from alexnet_jax.data import statistics
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.model import initialize
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.train import INIT, stream

pytest_plugins = ["running"]


def fresh(trainer):
    """Return the initial parameters for the trainer's seed."""
    return initialize(trainer.table, stream(trainer.experiment.train.seed, INIT), trainer.placement)


@pytest.mark.parametrize("skip", ["fc8", "fc7, fc8"])
def test_only_skipped_layers_start_afresh(learned, tmp_path, skip):
    trainer, begun = first_state(tmp_path / "run", restore=learned, restore_skip=skip, train__seed=5)
    assert trainer.experiment.train.seed == 5
    expected = state(learned)[0] | {name: fresh(trainer)[name] for name in skip.split(", ")}
    jax.tree.map(np.testing.assert_array_equal, begun.parameters, expected)
    assert not np.array_equal(begun.parameters["fc8"]["kernel"], state(learned)[0]["fc8"]["kernel"])
    assert int(begun.step) == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(begun.optimizer))


def test_the_source_may_have_other_classes(learned, tmp_path):
    """An example is a source with 1000 classes for a data set of ten."""
    parameters, source = state(learned)[0], tmp_path / "source"
    wider = {"kernel": np.ones((2, 25, 16), np.float32), "bias": np.ones(25, np.float32)}
    with closing(Checkpoints(source / "checkpoints")) as checkpoints:
        checkpoints.save(7, parameters | {"fc8": wider})
        checkpoints.wait()
    trainer, begun = first_state(tmp_path / "run", restore=source, restore_skip="fc8")
    expected = parameters | {"fc8": fresh(trainer)["fc8"]}
    jax.tree.map(np.testing.assert_array_equal, begun.parameters, expected)
    assert train(tmp_path / "other", restore=source) == 2  # without --restore_skip


def test_skipped_layers_have_a_rate_of_their_own(learned, tmp_path):
    trainer, _ = first_state(tmp_path / "run", restore=learned, restore_skip="fc7,fc8", optim__new_rate=10)
    assert {s.name: s.rate for s in trainer.table.layers if s.rate != 1} == {"fc7": 10, "fc8": 10}


def test_it_learns_and_resumes_with_the_same_command_only(learned, tmp_path, compile_cache, capsys):
    run, options = tmp_path / "run", {"restore": learned, "restore_skip": "fc8", "optim__new_rate": 10}
    assert train(run, **options, train__epochs=epochs(3)) == 0
    record = json.loads((run / "experiment.json").read_text())
    assert record["restore_skip"] == ["fc8"] and record["experiment"]["optim"]["new_rate"] == 10.0
    assert train(run, **options, train__epochs=epochs(6)) == 0  # velocities of both rates are restored
    assert numbers(run)[-1]["step"] == 6
    assert (
        numbers(run, "validation")[0]["loss"] < 1.5
    )  # after three steps, an untrained network would have about ln(10) = 2.3
    capsys.readouterr()
    for other, message in (
        ({"restore_skip": "fc7,fc8"}, "--restore_skip: fc8 recorded, fc7,fc8 requested"),
        ({"optim__new_rate": 5}, "--optim.new_rate: 10.0 recorded, 5.0 requested"),
    ):
        assert train(run, **options | other, train__epochs=epochs(6)) == 2
        assert message in capsys.readouterr().err
    assert main(command(run, restore=learned, train__epochs=epochs(6))) == 2
    assert "--restore_skip: fc8 recorded, None requested" in capsys.readouterr().err
    assert main(command(run, mode="eval")) == 0


def test_a_run_needs_its_source_only_to_begin(learned, twenty_steps, tmp_path, capsys):
    """The source may be moved or deleted: a run resumes from its own checkpoint, and compares its source by content."""
    source, run = Path(shutil.copytree(learned, tmp_path / "source")), tmp_path / "run"
    assert train(run, restore=source, train__epochs=epochs(2)) == 0
    origin = json.loads((run / "experiment.json").read_text())["restored_from"]
    moved = source.rename(tmp_path / "moved")
    assert train(run, restore=source, train__epochs=epochs(3)) == 0
    assert train(run, restore=moved, train__epochs=epochs(4)) == 0
    assert json.loads((run / "experiment.json").read_text())["restored_from"] == origin
    assert [line["step"] for line in numbers(run)] == [1, 2, 3, 4]
    capsys.readouterr()
    assert train(run, restore=twenty_steps, train__epochs=epochs(5)) == 2
    assert f"--restore: {origin} recorded" in capsys.readouterr().err
    assert train(run, restore=tmp_path / "never", train__epochs=epochs(5)) == 2
    assert "no checkpoint folder" in capsys.readouterr().err
    (run / "statistics.npz").unlink()
    assert train(run, restore=source, train__epochs=epochs(5)) == 1
    assert "statistics.npz is missing" in capsys.readouterr().err


@pytest.mark.evidence
def test_a_source_may_be_trained_further(learned, tmp_path):
    source, run = Path(shutil.copytree(learned, tmp_path / "source")), tmp_path / "run"
    assert train(run, restore=source, train__epochs=epochs(2)) == 0
    assert train(source, train__epochs=LEARNING_EPOCHS + epochs(1)) == 0
    assert train(run, restore=source, train__epochs=epochs(3)) == 0
    assert [line["step"] for line in numbers(run)] == [1, 2, 3]


def test_runs_from_before_this_option_continue(learned, tmp_path, compile_cache, capsys):
    run = shutil.copytree(learned, tmp_path / "run")
    record = json.loads((run / "experiment.json").read_text())
    del record["restore_skip"], record["experiment"]["optim"]["new_rate"]
    (run / "experiment.json").write_text(json.dumps(record))
    assert train(run, train__epochs=3) == 0
    assert "This run is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--restore=.", "--restore_skip=fc9"),
            "--restore_skip=fc9: alexnet_cifar has no such layer. Its layers are conv1,",
        ),
        (("--restore_skip=fc8",), "--restore_skip=fc8: expected only with --restore=PATH"),
        (("--optim.new_rate=10",), "--optim.new_rate=10: expected only with --restore_skip"),
        (("--optim.new_rate=10", "--restore=."), "--optim.new_rate=10: expected only with --restore_skip"),
        (
            ("--optim.new_rate=0", "--restore=.", "--restore_skip=fc8"),
            "--optim.new_rate=0.0: expected a positive number",
        ),
        (("--mode=eval", "--restore=best", "--restore_skip=fc8"), "expected only with --mode=train"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["--exp=alexnet_digits", *options]) == 2
    assert message in " ".join(re.sub(r"\s+", " ", capsys.readouterr().err).split())
    assert not list(tmp_path.iterdir())


def test_a_mean_image_of_another_size_is_refused(copied, tmp_path, capsys):
    """An example is the mean image of 256x256 pixels in a run whose parameters are restored for small images."""
    statistics.save(Statistics(np.zeros((256, 256, 3), np.float32), 1.0), copied / "statistics.npz")
    assert main(command(copied, mode="eval")) == 2
    assert "a mean image of 256x256x3, but the images of scikit-learn digits" in capsys.readouterr().err
    assert train(tmp_path / "new", restore=copied, restore_skip="fc8") == 2
    assert "--data.side" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_new_run_sees_images_as_its_source_did(copied, tmp_path):
    given = Statistics(np.full((1, 1, 3), 100, np.float32), np.array([[[50, 60, 70]]], np.float32))
    statistics.save(given, copied / "statistics.npz")
    made, _ = first_state(tmp_path / "new", restore=copied, restore_skip="fc8")
    np.testing.assert_array_equal(made.stats.mean, given.mean)
    np.testing.assert_array_equal(made.stats.scale, given.scale)
